//! What instructions say about the image without touching its files: pure changes of the config, each with the text that
//! `docker history` shows for it.

use crate::image::{Empty, Healthcheck, ImageConfig, RunConfig};
use crate::oci::Platform;

/// Docker's shell where no SHELL was given (Dockerfile reference: SHELL).
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Docker's PATH where the image sets none (Dockerfile reference: ENV; moby's `DefaultPathEnv` for Unix).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The config of the stage that is being planned.
#[derive(Debug, Clone)]
pub struct StageConfig {
    /// As it is so far, without layers and without this build's history.
    pub image: ImageConfig,
    /// A CMD in this stage survives a later ENTRYPOINT; an inherited one does not.
    cmd_is_own: bool,
}

/// A value that an instruction cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// EXPOSE with something that is no port.
    #[error("{0:?} is not a port such as 80, 53/udp or 8000-8010/tcp")]
    Port(String),
    /// STOPSIGNAL with something that is no signal.
    #[error("{0:?} is not a signal such as SIGTERM or 15")]
    Signal(String),
    /// An empty value where one is needed.
    #[error("{0} is empty after its variables were replaced")]
    Empty(&'static str),
}

impl StageConfig {
    /// What a stage starts from: its base's config, whose ONBUILD triggers were taken out.
    pub fn new(image: ImageConfig, platform: &Platform) -> StageConfig {
        let mut image = image.into_base();
        let mut run = image.run_config();
        if run.env_value("PATH").is_none() {
            run.env.insert(0, format!("PATH={DEFAULT_PATH}"));
        }
        run.on_build = Vec::new();
        image.config = Some(run);
        if image.os.is_empty() {
            image.os.clone_from(&platform.os);
        }
        if image.architecture.is_empty() {
            image.architecture.clone_from(&platform.architecture);
        }
        StageConfig { image, cmd_is_own: false }
    }

    /// The execution parameters.
    pub fn run(&mut self) -> &mut RunConfig {
        self.image.config.get_or_insert_default()
    }

    /// The words before a shell-form command.
    pub fn shell(&self) -> Vec<String> {
        match self.image.config.as_ref().and_then(|run| run.shell.clone()) {
            Some(shell) if !shell.is_empty() => shell,
            _ => DEFAULT_SHELL.map(String::from).to_vec(),
        }
    }

    /// The working directory, `/` where none was set.
    pub fn working_directory(&self) -> &str {
        match self.image.config.as_ref().map(|run| run.working_dir.as_str()) {
            None | Some("") => "/",
            Some(directory) => directory,
        }
    }

    /// ENV.
    pub fn env(&mut self, pairs: &[(String, String)]) -> String {
        for (name, value) in pairs {
            self.run().set_env(name, value);
        }
        format!("ENV {}", joined(pairs))
    }

    /// LABEL.
    pub fn label(&mut self, pairs: &[(String, String)]) -> String {
        self.run().labels.extend(pairs.iter().cloned());
        format!("LABEL {}", joined(pairs))
    }

    /// CMD.
    pub fn cmd(&mut self, words: Vec<String>) -> String {
        let text = format!("CMD {}", quoted(&words));
        self.run().cmd = Some(words);
        self.cmd_is_own = true;
        text
    }

    /// ENTRYPOINT; drops a CMD that was inherited (Dockerfile reference: "CMD will be reset to an empty value").
    pub fn entrypoint(&mut self, words: Vec<String>) -> String {
        let text = format!("ENTRYPOINT {}", quoted(&words));
        self.run().entrypoint = Some(words);
        if !self.cmd_is_own {
            self.run().cmd = None;
        }
        text
    }

    /// SHELL.
    pub fn set_shell(&mut self, words: Vec<String>) -> String {
        let text = format!("SHELL [{}]", words.join(" "));
        self.run().shell = Some(words);
        text
    }

    /// USER.
    pub fn user(&mut self, user: String) -> Result<String, BadValue> {
        if user.is_empty() {
            return Err(BadValue::Empty("USER"));
        }
        let text = format!("USER {user}");
        self.run().user = user;
        Ok(text)
    }

    /// WORKDIR, with a path that is already absolute.
    pub fn workdir(&mut self, directory: String) -> String {
        let text = format!("WORKDIR {directory}");
        self.run().working_dir = directory;
        text
    }

    /// EXPOSE.
    pub fn expose(&mut self, words: &[String]) -> Result<String, BadValue> {
        let mut ports = Vec::new();
        for word in words {
            ports.extend(parse_ports(word)?);
        }
        ports.sort();
        ports.dedup();
        let text = format!("EXPOSE [{}]", ports.join(" "));
        self.run().exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
        Ok(text)
    }

    /// VOLUME: only says so in the config; no directory is made, later instructions keep what they write there.
    pub fn volume(&mut self, places: Vec<String>) -> Result<String, BadValue> {
        if places.iter().any(String::is_empty) {
            return Err(BadValue::Empty("VOLUME"));
        }
        let text = format!("VOLUME [{}]", places.join(" "));
        self.run().volumes.extend(places.into_iter().map(|place| (place, Empty {})));
        Ok(text)
    }

    /// STOPSIGNAL.
    pub fn stop_signal(&mut self, signal: String) -> Result<String, BadValue> {
        if !is_signal(&signal) {
            return Err(BadValue::Signal(signal));
        }
        let text = format!("STOPSIGNAL {signal}");
        self.run().stop_signal = signal;
        Ok(text)
    }

    /// HEALTHCHECK.
    pub fn healthcheck(&mut self, check: Healthcheck) -> String {
        let seconds = go_duration;
        let text = format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            check.test.join(" "),
            seconds(check.interval),
            seconds(check.timeout),
            seconds(check.start_period),
            seconds(check.start_interval),
            check.retries,
        );
        self.run().healthcheck = Some(check);
        text
    }

    /// ONBUILD: kept for images that are built from this one.
    pub fn on_build(&mut self, trigger: String) -> String {
        let text = format!("ONBUILD {trigger}");
        self.run().on_build.push(trigger);
        text
    }

    /// MAINTAINER.
    pub fn maintainer(&mut self, name: String) -> String {
        let text = format!("MAINTAINER {name}");
        self.image.author = Some(name);
        text
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// Words as Go prints a list of strings with `%q`: what docker shows for exec forms.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", words.join(" "))
}

/// One string as Go's `%q` prints it.
fn go_quote(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() && (c as u32) < 0x100 => text.push_str(&format!("\\x{:02x}", c as u32)),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Nanoseconds as Go's `time.Duration` prints them: `1m30s`, `500ms`, `0s`.
fn go_duration(nanoseconds: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let fraction = |value: i64, unit: i64| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanoseconds {
        0 => "0s".into(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}µs", fraction(n, 1_000)),
        n if n < SECOND => format!("{}ms", fraction(n, 1_000_000)),
        n => {
            let (hours, minutes) = (n / (3600 * SECOND), n / (60 * SECOND) % 60);
            let seconds = fraction(n % (60 * SECOND), SECOND);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `80`, `80/udp`, `8000-8003`, `8080:80` (the host's part means nothing in an image): each as `port/protocol`.
fn parse_ports(word: &str) -> Result<Vec<String>, BadValue> {
    let bad = || BadValue::Port(word.to_owned());
    let (range, protocol) = match word.split_once('/') {
        Some((range, protocol)) => (range, protocol.to_lowercase()),
        None => (word, "tcp".to_owned()),
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    let container = range.rsplit(':').next().unwrap_or(range);
    let number = |text: &str| -> Result<u16, BadValue> {
        match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| bad()),
            false => Err(bad()),
        }
    };
    let (first, last) = match container.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(container)?, number(container)?),
    };
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Names of Linux signals with or without SIG, real-time ones, and numbers from 1 to 64.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |name: &str| {
        let (offset, sign) =
            name.strip_prefix("RTMIN").map(|rest| (rest, '+')).or_else(|| Some((name.strip_prefix("RTMAX")?, '-')))?;
        let is_near = |offset: &str| offset.parse::<u8>().is_ok_and(|offset| offset <= 30);
        (offset.is_empty() || offset.strip_prefix(sign).is_some_and(is_near)).then_some(())
    };
    const ALIASES: [&str; 4] = ["CLD", "IOT", "POLL", "UNUSED"];
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        || ALIASES.contains(&name)
        || real_time(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> StageConfig {
        StageConfig::new(ImageConfig::default(), &Platform::host())
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn ports() {
        for (word, ports) in [
            ("80", Some(vec!["80/tcp"])),
            ("53/UDP", Some(vec!["53/udp"])),
            ("8000-8002/tcp", Some(vec!["8000/tcp", "8001/tcp", "8002/tcp"])),
            ("8080:80", Some(vec!["80/tcp"])),
            ("127.0.0.1:8080:80", Some(vec!["80/tcp"])),
            ("2-1", None),
            ("x", None),
            ("", None),
            ("70000", None),
            ("80/http", None),
        ] {
            let expected = ports.map(|ports| strings(&ports));
            assert_eq!(parse_ports(word).ok(), expected, "{word}");
        }
    }

    #[test]
    fn entrypoint_resets_only_an_inherited_cmd() {
        let run = RunConfig { cmd: Some(strings(&["inherited"])), ..RunConfig::default() };
        let base = ImageConfig { config: Some(run), ..ImageConfig::default() };
        let mut inherited = StageConfig::new(base.clone(), &Platform::host());
        inherited.entrypoint(strings(&["e"]));
        assert_eq!(inherited.run().cmd, None);
        let mut own = StageConfig::new(base, &Platform::host());
        own.cmd(strings(&["own"]));
        own.entrypoint(strings(&["e"]));
        assert_eq!(own.run().cmd, Some(strings(&["own"])));
    }

    #[test]
    fn what_docker_history_shows() {
        let mut stage = stage();
        assert_eq!(stage.cmd(strings(&["a", "b \"c\"", "d\\"])), r#"CMD ["a" "b \"c\"" "d\\"]"#);
        assert_eq!(stage.set_shell(strings(&["/bin/bash", "-c"])), "SHELL [/bin/bash -c]");
        assert_eq!(stage.env(&[("A".into(), "1 2".into()), ("B".into(), String::new())]), "ENV A=1 2 B=");
        assert_eq!(stage.expose(&strings(&["443", "80", "53/udp"])).as_deref(), Ok("EXPOSE [443/tcp 53/udp 80/tcp]"));
        let check = Healthcheck {
            test: strings(&["CMD", "check"]),
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            retries: 4,
            ..Healthcheck::default()
        };
        assert_eq!(
            stage.healthcheck(check),
            "HEALTHCHECK {Test:[CMD check] Interval:1m30s Timeout:1.5s StartPeriod:0s StartInterval:0s Retries:4}"
        );
    }

    #[test]
    fn durations() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (5, "5ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (2_000_000_000, "2s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(nanoseconds), text);
        }
    }

    #[test]
    fn signals() {
        for (text, good) in [
            ("SIGTERM", true),
            ("KILL", true),
            ("sighup", true),
            ("9", true),
            ("64", true),
            ("SIGRTMIN+3", true),
            ("RTMAX-14", true),
            ("RTMIN", true),
            ("RTMIN-1", false),
            ("RTMAX31", false),
            ("SIGRTMIN\u{e9}", false),
            ("0", false),
            ("65", false),
            ("SIGNOPE", false),
            ("", false),
        ] {
            assert_eq!(is_signal(text), good, "{text}");
        }
    }
}
