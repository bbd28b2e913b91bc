//! [`Builder`]: a command template that builds an image and pushes it.

use std::path::Path;

use super::Error;
use super::engine::{DOCKER_CAPABILITIES, EXECUTOR_IMAGE, Engine};

/// Builders that are known by name: the process whose memory counts, and the template.
const KNOWN: [(&str, &str); 8] = [
    ("kanna", "executor={container} {kanna}"),
    ("kanna-fanotify", "executor={container} --security-opt=seccomp=unconfined {kanna} --change-tracker=fanotify"),
    ("kanna-inotify", "executor={container} {kanna} --change-tracker=inotify"),
    ("kanna-walk", "executor={container} {kanna} --change-tracker=walk"),
    ("kanna-redo", "executor={container} {kanna} --snapshot-mode=redo"),
    ("kanna-time", "executor={container} {kanna} --snapshot-mode=time"),
    ("kanna-isolated", "executor={kanna}"),
    (
        "buildah",
        "buildah=sh -ec 'buildah bud --isolation chroot --layers --tls-verify=false --file \"$0\" --tag \"$1\" \"$2\"; \
         buildah push --quiet --tls-verify=false \"$1\"' {dockerfile} {destination} {context}",
    ),
];

/// Whole words that stand for several.
const CONTAINER: &str = "{container}";
const KANNA: &str = "{kanna}";
/// Parts of words.
const PARTS: [&str; 5] = ["{context}", "{dockerfile}", "{destination}", "{registry}", "{state}"];

/// Who builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Builder {
    pub(super) name: String,
    /// The name of its processes.
    pub(super) process: String,
    words: Vec<String>,
}

/// What is different in every build.
pub(super) struct Task<'a> {
    /// The folder with the Dockerfile.
    pub(super) context: &'a Path,
    /// Where to push to.
    pub(super) destination: &'a str,
    /// Address of the registry.
    pub(super) registry: &'a str,
    /// An empty folder.
    pub(super) state: &'a Path,
    /// The cgroup in which a container is to be.
    pub(super) cgroup: &'a str,
}

impl Builder {
    /// A known name, or `NAME@PROCESS=COMMAND`.
    pub(super) fn parse(text: &str) -> Result<Builder, Error> {
        let fault = |fault: &str| Error::Builder { text: text.to_owned(), fault: fault.to_owned() };
        let known = KNOWN.iter().find(|(name, _)| *name == text);
        let (name, rest) = known.copied().or_else(|| text.split_once('@')).ok_or_else(|| {
            let names = KNOWN.map(|(name, _)| name).join(", ");
            fault(&format!("it has the form NAME@PROCESS=COMMAND or is one of {names}"))
        })?;
        let (process, template) = rest.split_once('=').ok_or_else(|| fault("`=` and a command are missing"))?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(fault("its name becomes part of an image's: lower-case letters, digits and `-`"));
        }
        let words = shlex::split(template).ok_or_else(|| fault("a quote is not closed"))?;
        let more = words.get(1..).ok_or_else(|| fault("there is no command"))?;
        if more.iter().any(|word| word == CONTAINER) {
            return Err(fault("{container} is the first word"));
        }
        let parts = words.iter().filter(|word| *word != CONTAINER && *word != KANNA);
        if let Some(unknown) = parts.into_iter().find_map(|word| unknown_placeholder(word)) {
            return Err(fault(&format!("nobody knows {unknown}; there are {}", PARTS.join(", "))));
        }
        Ok(Builder { name: name.to_owned(), process: process.to_owned(), words })
    }

    /// Does it need kanna's executor?
    pub(super) fn is_kanna(&self) -> bool {
        self.words.iter().any(|word| word == KANNA)
    }

    /// Does it run in a container that we start?
    pub(super) fn is_contained(&self) -> bool {
        self.words[0] == CONTAINER
    }

    /// The words of the command.
    pub(super) fn command(&self, task: &Task<'_>, engine: &Engine) -> Vec<String> {
        let values = [
            task.context.display().to_string(),
            task.context.join("Dockerfile").display().to_string(),
            task.destination.to_owned(),
            task.registry.to_owned(),
            task.state.display().to_string(),
        ];
        let mut command = Vec::new();
        for word in &self.words {
            match word.as_str() {
                CONTAINER => command.extend(container(task, engine)),
                KANNA => {
                    command.extend(if self.is_contained() { in_place() } else { isolated(task, engine) });
                    command.push(format!("--destination={}", task.destination));
                    command.extend(["--insecure", "--insecure-pull"].map(str::to_owned));
                }
                word => command.push(fill_in(word, &values)),
            }
        }
        command
    }
}

fn container(task: &Task<'_>, engine: &Engine) -> Vec<String> {
    let mut words: Vec<String> = engine.podman_words();
    words
        .extend(["run", "--pull=never", "--network=host", "--log-driver=none", DOCKER_CAPABILITIES].map(str::to_owned));
    words.push(format!("--cgroup-parent=/{}", task.cgroup));
    words.push(format!("--volume={}:/workspace:ro", task.context.display()));
    words
}

/// The executor's image, and where the context is in its container.
fn in_place() -> Vec<String> {
    [EXECUTOR_IMAGE, "--context=dir:///workspace"].map(str::to_owned).into()
}

/// The executor on this machine, and where it finds and keeps what it needs.
fn isolated(task: &Task<'_>, engine: &Engine) -> Vec<String> {
    vec![
        engine.executor().display().to_string(),
        "--isolation=namespaces".to_owned(),
        format!("--context=dir://{}", task.context.display()),
        format!("--kaniko-dir={}", task.state.join("kanna").display()),
    ]
}

/// Puts the values in their places, in one pass: a value is not looked into.
fn fill_in(word: &str, values: &[String; PARTS.len()]) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while let Some((at, part)) = first_part(rest) {
        filled.push_str(&rest[..at]);
        filled.push_str(&values[part]);
        rest = &rest[at + PARTS[part].len()..];
    }
    filled + rest
}

/// Where the first placeholder of a word stands, and which it is.
fn first_part(word: &str) -> Option<(usize, usize)> {
    PARTS.iter().enumerate().filter_map(|(number, part)| Some((word.find(part)?, number))).min()
}

/// Something like `{name}` that is none of ours. A shell's `${name}` is left to the shell.
fn unknown_placeholder(word: &str) -> Option<&str> {
    word.match_indices('{').find_map(|(at, _)| {
        let length = word[at..].find('}')?;
        let found = &word[at..=at + length];
        let is_name = found[1..length].chars().all(|c| c.is_ascii_lowercase()) && length > 1;
        (is_name && !word[..at].ends_with('$') && !PARTS.contains(&found)).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Vec<String> {
        let builder = Builder::parse(text).expect("a good template");
        let task = Task {
            context: Path::new("/c"),
            destination: "127.0.0.1:5/x:1",
            registry: "127.0.0.1:5",
            state: Path::new("/s/{context}"),
            cgroup: "group",
        };
        builder.command(&task, &Engine::at(Path::new("/work"), Path::new("/short")))
    }

    #[test]
    fn words_are_split_and_filled_in() {
        assert_eq!(
            command("x@p=build 'a b' {context}:{dockerfile} --to={destination} {state} {registry}/${HOME} {}"),
            ["build", "a b", "/c:/c/Dockerfile", "--to=127.0.0.1:5/x:1", "/s/{context}", "127.0.0.1:5/${HOME}", "{}"]
        );
    }

    #[test]
    fn a_container_is_fresh_and_in_the_cgroup() {
        let words = command("x@p={container} --privileged image go").join(" ");
        assert!(words.contains(" podman run --pull=never "), "{words}");
        assert!(words.ends_with("--cgroup-parent=/group --volume=/c:/workspace:ro --privileged image go"), "{words}");
        let words = command("kanna-redo").join(" ");
        assert!(words.contains("--destination=127.0.0.1:5/x:1"), "{words}");
        assert!(words.ends_with(" --snapshot-mode=redo"), "{words}");
    }

    #[test]
    fn without_a_container_the_root_is_isolated() {
        assert_eq!(
            command("x@p=nice {kanna} --jobs=1"),
            [
                "nice",
                "/work/executor",
                "--isolation=namespaces",
                "--context=dir:///c",
                "--kaniko-dir=/s/{context}/kanna",
                "--destination=127.0.0.1:5/x:1",
                "--insecure",
                "--insecure-pull",
                "--jobs=1"
            ]
        );
    }

    #[test]
    fn known_builders_are_well_formed() {
        for (name, _) in KNOWN {
            let builder = Builder::parse(name).expect("known");
            assert_eq!((builder.name.as_str(), builder.is_kanna()), (name, name.starts_with("kanna")));
            assert_eq!(builder.is_contained(), builder.is_kanna() && name != "kanna-isolated");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, wanted) in [
            ("kaniko", "one of kanna, "),
            ("x@p", "a command"),
            ("x@p=", "no command"),
            ("X@p=a", "lower-case"),
            ("x@p='a", "quote"),
            ("x@p=sh {container}", "the first word"),
            ("x@p={container} a {b} {kanna}", "nobody knows {b}"),
            ("x@p=sh --to={target}", "nobody knows {target}"),
        ] {
            let error = Builder::parse(text).expect_err(text).to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
