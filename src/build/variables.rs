//! Which variables are in force at a line: ARG and ENV in the order they come, the later one winning.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::request::HOST_NAME;
use crate::oci::Platform;

/// Names that mean something to BuildKit itself (Dockerfile reference, "BuildKit built-in build args"); no ARG has to take them. Of
/// these, only those for `.git` and for the host's name change what is built here, since frontends, caches and platforms at
/// once are not there.
const BUILDKIT_ARGS: [&str; 7] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    HOST_NAME,
    "BUILDKIT_SYNTAX",
];

/// Build arguments that every RUN sees without an ARG, and that leave no trace in the history (Dockerfile reference:
/// predefined ARGs).
const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What holds for the whole Dockerfile: arguments from the command line, arguments before the first FROM, platform arguments.
#[derive(Debug, Clone, Default)]
pub struct GlobalScope {
    given: BTreeMap<String, String>,
    before_first_from: BTreeMap<String, String>,
    predefined: BTreeMap<String, String>,
    used: BTreeSet<String>,
}

/// The variables of one stage.
#[derive(Debug, Clone, Default)]
pub struct StageScope {
    in_force: Vec<(String, String)>,
    /// Where each name is among those.
    places: HashMap<String, usize>,
    declared: Vec<String>,
    /// There may be more in force: the environment of an image that is only named.
    is_partial: bool,
    /// A variable was asked for that may be among those.
    guessed: Cell<bool>,
}

impl GlobalScope {
    /// All that have a value before the first FROM or are declared there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.before_first_from.keys().chain(self.predefined.keys()).map(String::as_str)
    }

    /// From `--build-arg`, which wins over the rest, the platform the image is for, and the name of the target stage
    /// (`default` where none was named).
    pub fn new(given: &[(String, String)], target: &Platform, target_stage: &str) -> GlobalScope {
        let mut predefined = BTreeMap::new();
        for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
            predefined.insert(format!("{prefix}PLATFORM"), platform.to_string());
            predefined.insert(format!("{prefix}OS"), platform.os.clone());
            predefined.insert(format!("{prefix}OSVERSION"), platform.os_version.clone().unwrap_or_default());
            predefined.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            predefined.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
        }
        predefined.insert("TARGETSTAGE".into(), target_stage.into());
        let given: BTreeMap<String, String> = given.iter().cloned().collect();
        let mut used = BTreeSet::new();
        for (name, value) in &mut predefined {
            if let Some(given) = given.get(name) {
                value.clone_from(given);
                used.insert(name.clone());
            }
        }
        GlobalScope { given, predefined, used, ..GlobalScope::default() }
    }

    /// Declares an ARG before the first FROM; its default is already expanded.
    pub fn declare(&mut self, name: &str, default: Option<String>) {
        self.used.insert(name.to_owned());
        if let Some(value) = self.given.get(name).cloned().or(default) {
            self.before_first_from.insert(name.to_owned(), value);
        }
    }

    /// A variable in a FROM line or in the default of a global ARG.
    pub fn value(&self, name: &str) -> Option<String> {
        self.before_first_from.get(name).or_else(|| self.predefined.get(name)).cloned()
    }

    /// Proxy arguments that were given and that the stage did not declare itself.
    pub fn proxies<'a>(&'a self, stage: &'a StageScope) -> impl Iterator<Item = (&'a str, &'a str)> {
        PROXY_ARGS
            .into_iter()
            .filter(|name| !stage.declared.iter().any(|declared| declared == name))
            .filter_map(|name| Some((name, self.given.get(name)?.as_str())))
    }

    /// Names from the command line that no ARG took: most often a misspelling.
    pub fn unused(&self) -> Vec<&str> {
        let known =
            |name: &str| self.used.contains(name) || PROXY_ARGS.contains(&name) || BUILDKIT_ARGS.contains(&name);
        self.given.keys().map(String::as_str).filter(|name| !known(name)).collect()
    }
}

impl StageScope {
    /// What a stage starts with: the environment of its base image.
    pub fn from_environment(environment: &[String]) -> StageScope {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text.clone(), String::new()),
        };
        let in_force: Vec<_> = environment.iter().map(pair).collect();
        // of a name that an image has twice, the first one counts
        let places = in_force.iter().enumerate().rev().map(|(place, (name, _))| (name.clone(), place)).collect();
        StageScope { in_force, places, ..StageScope::default() }
    }

    /// What a stage starts with whose base image is only named.
    pub fn unseen() -> StageScope {
        StageScope { is_partial: true, ..StageScope::default() }
    }

    /// ARG: the command line wins over the default, which wins over a global ARG and over a platform argument. An ARG that has no
    /// value at all changes nothing. Gives the text for the history.
    pub fn declare(&mut self, name: &str, default: Option<String>, global: &mut GlobalScope) -> String {
        global.used.insert(name.to_owned());
        self.declared.push(name.to_owned());
        match global.given.get(name).cloned().or(default).or_else(|| global.value(name)) {
            None => name.to_owned(),
            Some(value) => {
                let text = format!("{name}={value}");
                self.set(name, value);
                text
            }
        }
    }

    /// ENV, or an ARG that has a value.
    pub fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(place) => self.in_force[*place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.in_force.len());
                self.in_force.push((name.to_owned(), value));
            }
        }
    }

    /// The value of a variable at this line.
    pub fn value(&self, name: &str) -> Option<String> {
        let value = self.places.get(name).map(|place| self.in_force[*place].1.clone());
        if value.is_none() && self.is_partial {
            self.guessed.set(true);
        }
        value
    }

    /// Has a variable, since this was last asked, passed for unset that the base image may well set?
    pub fn take_guess(&self) -> bool {
        self.guessed.take()
    }

    /// All variables with a value, in order of definition: what RUN sees.
    pub fn in_force(&self) -> &[(String, String)] {
        &self.in_force
    }

    /// The `|2 A=1 B=2 ` that docker's history puts before a RUN; empty without ARGs.
    pub fn history_prefix(&self) -> String {
        if self.declared.is_empty() {
            return String::new();
        }
        let pairs: Vec<String> =
            self.declared.iter().map(|name| format!("{name}={}", self.value(name).unwrap_or_default())).collect();
        format!("|{} {} ", pairs.len(), pairs.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(given: &[(&str, &str)]) -> GlobalScope {
        let given: Vec<_> = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        GlobalScope::new(&given, &"linux/arm64".parse().expect("a platform"), "default")
    }

    #[test]
    fn who_wins() {
        let mut global = global(&[("A", "given")]);
        global.declare("G", Some("global".into()));
        let mut stage = StageScope::from_environment(&["PATH=/bin".into(), "E=base".into()]);
        assert_eq!(stage.value("A"), None);
        assert_eq!(stage.value("G"), None, "a global ARG is unknown until the stage declares it");
        assert_eq!(stage.declare("A", Some("default".into()), &mut global), "A=given");
        stage.set("A", "env".into());
        assert_eq!(stage.value("A").as_deref(), Some("env"), "ENV after ARG");
        stage.declare("E", Some("arg".into()), &mut global);
        assert_eq!(stage.value("E").as_deref(), Some("arg"), "ARG after ENV");
        assert_eq!(stage.declare("G", None, &mut global), "G=global");
        assert_eq!(stage.declare("G", Some("local".into()), &mut global), "G=local");
        assert_eq!(stage.declare("N", None, &mut global), "N");
        assert_eq!(stage.value("N"), None);
        assert_eq!(stage.declare("TARGETARCH", None, &mut global), "TARGETARCH=arm64");
        assert_eq!(stage.history_prefix(), "|6 A=env E=arg G=local G=local N= TARGETARCH=arm64 ");
    }

    #[test]
    fn the_command_line_wins_over_platform_arguments() {
        let mut global = global(&[("TARGETARCH", "riscv64"), ("TARGETSTAGE", "other")]);
        assert_eq!(global.value("TARGETARCH").as_deref(), Some("riscv64"));
        assert_eq!(global.value("TARGETOS").as_deref(), Some("linux"));
        assert_eq!(StageScope::default().declare("TARGETSTAGE", None, &mut global), "TARGETSTAGE=other");
        assert!(global.unused().is_empty());
    }

    #[test]
    fn what_an_unseen_base_may_set_is_a_guess() {
        let mut stage = StageScope::unseen();
        stage.set("A", "1".into());
        stage.value("A");
        assert!(!stage.take_guess());
        stage.value("B");
        assert!(stage.take_guess());
        assert!(!stage.take_guess(), "told once");
        let known = StageScope::from_environment(&[]);
        known.value("B");
        assert!(!known.take_guess());
    }

    #[test]
    fn proxies_leave_no_trace() {
        let mut global = global(&[("HTTP_PROXY", "p"), ("NO_PROXY", "n"), ("TYPO", "x")]);
        let mut stage = StageScope::default();
        stage.declare("NO_PROXY", None, &mut global);
        assert_eq!(global.proxies(&stage).collect::<Vec<_>>(), [("HTTP_PROXY", "p")]);
        assert_eq!(global.unused(), ["TYPO"]);
        assert_eq!(StageScope::default().history_prefix(), "");
    }
}
