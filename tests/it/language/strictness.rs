//! All that the language has: each item is shown to work by a case, or is refused before any work. Nothing is parsed and
//! then ignored.

use std::path::Path;

use kanna::dockerfile::{self, Fault, INSTRUCTIONS, MOUNT_OPTIONS};

use super::cases::{self, Case};
use super::corpus::outcome;

/// What becomes of an item.
enum Verdict {
    /// It works; a case of `tests/conformance/cases`, or `theme/name` of the corpus, shows how.
    Shown(&'static str),
    /// It is refused with words that contain these.
    Refused(&'static str),
}

use Verdict::{Refused, Shown};

/// An item, a Dockerfile that has it, its verdict.
type Row = (&'static str, &'static str, Verdict);

const NO_MOUNT: &str = "RUN --mount is not supported yet";

const DIRECTIVES: &[Row] = &[
    ("# escape=", "# escape=`\nFROM scratch\nLABEL a=b`\n c=d", Shown("syntax-escape-directive")),
    ("# escape= wrong", "# escape=x\nFROM scratch", Refused("the escape directive takes")),
    ("# syntax=", "# syntax=docker/dockerfile:1\nFROM scratch", Shown("lines/a syntax directive changes nothing")),
    ("# check=", "# check=skip=all;error=true\nFROM scratch", Shown("lines/options of the linter")),
    ("# check= wrong", "# check=fast\nFROM scratch", Refused("the check directive takes")),
    ("an unknown directive", "# colour=red\nFROM scratch", Shown("syntax-unknown-directive")),
];

const INSTRUCTION_ROWS: &[Row] = &[
    ("ADD", "FROM scratch\nADD a /b", Shown("add-file")),
    ("ADD JSON", "FROM scratch\nADD [\"a b\", \"/c\"]", Shown("copies/add takes a list")),
    (
        "ADD --checksum",
        "FROM scratch\nADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 http://h/a /b",
        Shown("copies/a URL with its checksum"),
    ),
    ("ADD --checksum of a path", "FROM scratch\nADD --checksum=sha256:1 a /b", Refused("--checksum")),
    ("ADD URL", "FROM scratch\nADD https://example.com/a /b", Shown("copies/a URL")),
    ("COPY URL", "FROM scratch\nCOPY https://example.com/a /b", Refused("COPY does not fetch")),
    ("ADD --chmod", "FROM scratch\nADD --chmod=644 a /b", Shown("add-file-chown-chmod")),
    ("ADD --chown", "FROM scratch\nADD --chown=1:2 a /b", Shown("add-file-chown-chmod")),
    ("ADD --exclude", "FROM scratch\nADD --exclude=*.o a /b/", Shown("copies/add has excludes")),
    (
        "ADD --keep-git-dir",
        "FROM scratch\nADD --keep-git-dir https://example.com/a.git /b",
        Shown("copies/a repository and its directory of git"),
    ),
    ("ADD git", "FROM scratch\nADD https://example.com/a.git#main:docs /b", Shown("copies/a repository")),
    ("ADD git by ssh", "FROM scratch\nADD git@example.com:a.git /b", Refused("not by ssh")),
    ("ADD git query", "FROM scratch\nADD https://example.com/a.git?colour=red /b", Refused("has no \"colour\"")),
    (
        "ADD --checksum of git",
        "FROM scratch\nADD --checksum=05d2d74403d23d99daf70f4eb4fc0ff16cae7f1a https://example.com/a.git /b",
        Shown("copies/a repository with its commit"),
    ),
    (
        "ADD --checksum of git wrong",
        "FROM scratch\nADD --checksum=sha256:1 https://example.com/a.git /b",
        Refused("is no commit"),
    ),
    ("ADD --link", "FROM scratch\nADD --link a /b", Shown("add-link-tar")),
    ("ADD --unpack", "FROM scratch\nADD --unpack=false a.tar /b", Shown("add-tar-unpack-false")),
    ("ARG", "FROM scratch\nARG A=1", Shown("arg-default")),
    ("ARG several", "FROM scratch\nARG A=1 B C=3", Shown("arg-several")),
    ("ARG before FROM", "ARG A=scratch\nFROM $A", Shown("arg-global")),
    ("CMD", "FROM scratch\nCMD a b", Shown("cmd-forms")),
    ("CMD JSON", "FROM scratch\nCMD [\"a\"]", Shown("cmd-forms")),
    ("COPY", "FROM scratch\nCOPY a /b", Shown("copy-file-to-file")),
    ("COPY JSON", "FROM scratch\nCOPY [\"a b\", \"/c\"]", Shown("copy-json")),
    ("COPY --chmod", "FROM scratch\nCOPY --chmod=u=rwX a /b", Shown("copy-chmod-symbolic")),
    ("COPY --chmod wrong", "FROM scratch\nCOPY --chmod=rwx a /b", Refused("\"rwx\" is no mode for --chmod")),
    ("COPY --chown", "FROM scratch\nCOPY --chown=u:g a /b", Shown("copy-chown-name-group")),
    ("COPY --exclude", "FROM scratch\nCOPY --exclude=*.o a /b/", Shown("copy-exclude")),
    ("COPY --exclude wrong", "FROM scratch\nCOPY --exclude=[a a /b/", Refused("--exclude: \"[a\" is no pattern")),
    ("COPY --from", "FROM scratch AS a\nFROM scratch\nCOPY --from=a a /b", Shown("copy-from-stage-name")),
    ("COPY --link", "FROM scratch\nCOPY --link a /b", Shown("copy-link")),
    ("COPY --link --chown name", "FROM scratch\nCOPY --link --chown=u a /b", Refused("only numbers are possible")),
    ("COPY --parents", "FROM scratch\nCOPY --parents ./a/./b /c/", Shown("copy-parents-pivot")),
    ("ENTRYPOINT", "FROM scratch\nENTRYPOINT a b", Shown("entrypoint-then-cmd")),
    ("ENTRYPOINT JSON", "FROM scratch\nENTRYPOINT [\"a\"]", Shown("entrypoint-resets-cmd")),
    ("ENV", "FROM scratch\nENV A=1 B='2 3'", Shown("env-quotes")),
    ("ENV old form", "FROM scratch\nENV A 1 2", Shown("env-space")),
    ("ENV forms mixed", "FROM scratch\nENV A=1 B", Refused("\"B\" has no =")),
    ("EXPOSE", "FROM scratch\nEXPOSE 80 53/udp", Shown("expose-forms")),
    ("EXPOSE range", "FROM scratch\nEXPOSE 8000-8002", Shown("expose-range")),
    ("EXPOSE host port", "FROM scratch\nEXPOSE 8080:80", Shown("expose-host-port")),
    ("EXPOSE wrong", "FROM scratch\nEXPOSE http", Refused("\"http\" is not a port")),
    ("FROM", "FROM image:tag", Shown("from-tag")),
    ("FROM AS", "FROM image AS stage\nFROM stage", Shown("from-stage")),
    ("FROM scratch", "FROM scratch", Shown("from-scratch")),
    ("FROM --platform", "FROM --platform=$BUILDPLATFORM image", Shown("from-platform")),
    ("FROM --platform wrong", "FROM --platform=a/b/c/d image", Refused("platform")),
    ("HEALTHCHECK", "FROM scratch\nHEALTHCHECK CMD a b", Shown("healthcheck-shell")),
    ("HEALTHCHECK JSON", "FROM scratch\nHEALTHCHECK CMD [\"a\"]", Shown("healthcheck-all")),
    ("HEALTHCHECK NONE", "FROM scratch\nHEALTHCHECK NONE", Shown("healthcheck-none")),
    ("HEALTHCHECK --interval", "FROM scratch\nHEALTHCHECK --interval=1m CMD a", Shown("healthcheck-all")),
    ("HEALTHCHECK --retries", "FROM scratch\nHEALTHCHECK --retries=3 CMD a", Shown("healthcheck-all")),
    ("HEALTHCHECK --start-interval", "FROM scratch\nHEALTHCHECK --start-interval=5s CMD a", Shown("healthcheck-all")),
    ("HEALTHCHECK --start-period", "FROM scratch\nHEALTHCHECK --start-period=5s CMD a", Shown("healthcheck-all")),
    ("HEALTHCHECK --timeout", "FROM scratch\nHEALTHCHECK --timeout=5s CMD a", Shown("healthcheck-all")),
    (
        "HEALTHCHECK NONE with flags",
        "FROM scratch\nHEALTHCHECK --timeout=5s NONE",
        Shown("metadata/options and no check"),
    ),
    ("LABEL", "FROM scratch\nLABEL a=b \"c d\"=e", Shown("label-forms")),
    ("LABEL old form", "FROM scratch\nLABEL a b c", Shown("label-space-form")),
    ("MAINTAINER", "FROM scratch\nMAINTAINER A <a@b>", Shown("maintainer")),
    ("ONBUILD", "FROM scratch\nONBUILD RUN a", Shown("onbuild-stored")),
    ("ONBUILD FROM", "FROM scratch\nONBUILD FROM a", Refused("FROM is not allowed as an ONBUILD trigger")),
    ("ONBUILD MAINTAINER", "FROM scratch\nONBUILD MAINTAINER a", Refused("MAINTAINER is not allowed as an ONBUILD")),
    ("ONBUILD ONBUILD", "FROM scratch\nONBUILD ONBUILD RUN a", Refused("ONBUILD is not allowed as an ONBUILD trigger")),
    ("ONBUILD unknown", "FROM scratch\nONBUILD RUUN a", Shown("metadata/an unknown trigger")),
    ("RUN", "FROM image\nRUN a | b", Shown("run-shell")),
    ("RUN JSON", "FROM image\nRUN [\"a\", \"b\"]", Shown("run-exec")),
    ("RUN --device", "FROM image\nRUN --device=vendor.com/gpu=all a", Refused("RUN --device is not supported yet")),
    ("RUN --mount", "FROM image\nRUN --mount=type=bind,target=/x a", Refused(NO_MOUNT)),
    ("RUN --network", "FROM image\nRUN --network=none a", Refused("RUN --network is not supported yet")),
    ("RUN --network=host", "FROM image\nRUN --network=host a", Refused("RUN --network is not supported yet")),
    ("RUN --network=default", "FROM image\nRUN --network=default a", Shown("runs/the default network and sandbox")),
    (
        "RUN --security",
        "FROM image\nRUN --security=insecure a",
        Refused("RUN --security=insecure is not supported yet"),
    ),
    ("RUN --security=sandbox", "FROM image\nRUN --security=sandbox a", Shown("runs/the default network and sandbox")),
    ("SHELL", "FROM scratch\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a", Shown("cmd-shell-change")),
    ("SHELL no list", "FROM scratch\nSHELL /bin/bash -c", Refused("SHELL takes a JSON list")),
    ("STOPSIGNAL", "FROM scratch\nSTOPSIGNAL SIGQUIT", Shown("stopsignal-name")),
    ("STOPSIGNAL number", "FROM scratch\nSTOPSIGNAL 9", Shown("stopsignal-number")),
    ("STOPSIGNAL wrong", "FROM scratch\nSTOPSIGNAL SIGSTOPP", Refused("\"SIGSTOPP\" is not a signal")),
    ("USER", "FROM scratch\nUSER u:g", Shown("user-forms")),
    ("VOLUME", "FROM scratch\nVOLUME /a /b", Shown("volume-forms")),
    ("VOLUME JSON", "FROM scratch\nVOLUME [\"/a b\"]", Shown("volume-forms")),
    ("WORKDIR", "FROM scratch\nWORKDIR a", Shown("workdir-relative")),
];

const HEREDOCS: &[Row] = &[
    ("RUN <<E", "FROM image\nRUN <<E\na\nE", Shown("run-heredoc")),
    ("RUN <<E command", "FROM image\nRUN cat <<E >/a\nb\nE", Shown("run-heredoc-program")),
    ("RUN <<A <<B", "FROM image\nRUN cat <<A <<B\na\nA\nb\nB", Shown("run-heredoc-several")),
    ("RUN <<-E", "FROM image\nRUN <<-E\n\ta\n\tE", Shown("run-heredoc-dash")),
    ("RUN <<'E'", "FROM image\nRUN <<'E'\n$a\nE", Shown("runs/a quoted here-document")),
    ("RUN <<E #!", "FROM image\nRUN <<E\n#!/bin/x\nE", Shown("run-heredoc-shebang")),
    ("COPY <<E", "FROM scratch\nCOPY <<E /a\n$b\nE", Shown("copy-heredoc")),
    ("COPY <<'E'", "FROM scratch\nCOPY <<'E' /a\n$b\nE", Shown("copy-heredoc-quoted")),
    ("COPY <<-E", "FROM scratch\nCOPY <<-E /a\n\tb\n\tE", Shown("copy-heredoc-dash")),
    ("COPY <<A <<B", "FROM scratch\nCOPY <<A <<B /d/\na\nA\nb\nB", Shown("copy-heredoc-several")),
    ("ADD <<E", "FROM scratch\nADD <<E /a\nb\nE", Shown("add-heredoc")),
    ("ONBUILD RUN <<E", "FROM scratch\nONBUILD RUN <<E\na\nE", Shown("metadata/a trigger with a here-document")),
    ("ONBUILD COPY <<E", "FROM scratch\nONBUILD COPY <<E /a\na\nE", Shown("metadata/a trigger with a here-document")),
    ("CMD <<E", "FROM scratch\nCMD <<E\na\nE", Refused("unknown instruction \"a\"")),
    ("to a heredoc", "FROM scratch\nCOPY a <<E\nb\nE", Refused("cannot write to a heredoc")),
    ("without an end", "FROM image\nRUN <<E\na", Refused("has no line \"E\" that ends it")),
];

const EXPANSIONS: &[Row] = &[
    ("$V", "FROM scratch\nENV V=1 W=$V", Shown("env-same-line")),
    ("${V}", "FROM scratch\nENV V=1\nENV W=${V}x", Shown("env-name-boundary")),
    ("${V:-w} ${V-w}", "FROM scratch\nENV W=${V:-w}${V-w}", Shown("env-forms")),
    ("${V:+w} ${V+w}", "FROM scratch\nENV W=${V:+w}${V+w}", Shown("env-forms")),
    ("${V:?w}", "FROM scratch\nENV W=${V:?say-it}", Refused("V: say-it")),
    ("${V?w}", "FROM scratch\nENV W=${V?}", Refused("V: is not allowed to be unset")),
    ("${V#p} ${V##p}", "FROM scratch\nENV V=a.b\nENV W=${V#*.}${V##*.}", Shown("env-forms-pattern")),
    ("${V%p} ${V%%p}", "FROM scratch\nENV V=a.b\nENV W=${V%.*}${V%%.*}", Shown("env-forms-pattern")),
    ("${V/p/r} ${V//p/r}", "FROM scratch\nENV V=a.b\nENV W=${V/./-}${V//./-}", Shown("env-forms-replace")),
    ("${V!}", "FROM scratch\nENV W=${V!x}", Refused("is not supported")),
    ("${V", "FROM scratch\nENV W=${V", Refused("no closing brace")),
    ("${}", "FROM scratch\nENV W=${}", Refused("no variable name")),
    ("\\$V", "FROM scratch\nENV W=\\$V", Shown("env-escapes")),
    ("'$V'", "FROM scratch\nENV W='$V'", Shown("env-quotes")),
    ("an open quote", "FROM scratch\nENV W='a", Refused("has no closing")),
];

const MOUNTS: &[Row] = &[
    ("mount type", "FROM image\nRUN --mount=type=cache,target=/x a", Refused(NO_MOUNT)),
    ("mount type wrong", "FROM image\nRUN --mount=type=volume,target=/x a", Refused("\"volume\" is no mount type")),
    ("mount from", "FROM image\nRUN --mount=from=image,target=/x a", Refused(NO_MOUNT)),
    ("mount source", "FROM image\nRUN --mount=source=a,target=/x a", Refused(NO_MOUNT)),
    ("mount src", "FROM image\nRUN --mount=src=a,target=/x a", Refused(NO_MOUNT)),
    ("mount target", "FROM image\nRUN --mount=target=/x a", Refused(NO_MOUNT)),
    ("mount dst", "FROM image\nRUN --mount=dst=/x a", Refused(NO_MOUNT)),
    ("mount destination", "FROM image\nRUN --mount=destination=/x a", Refused(NO_MOUNT)),
    ("mount readonly", "FROM image\nRUN --mount=target=/x,readonly a", Refused(NO_MOUNT)),
    ("mount ro", "FROM image\nRUN --mount=target=/x,ro=false a", Refused(NO_MOUNT)),
    ("mount readwrite", "FROM image\nRUN --mount=target=/x,readwrite a", Refused(NO_MOUNT)),
    ("mount rw", "FROM image\nRUN --mount=target=/x,rw a", Refused(NO_MOUNT)),
    ("mount id", "FROM image\nRUN --mount=type=secret,id=x a", Refused(NO_MOUNT)),
    ("mount sharing", "FROM image\nRUN --mount=type=cache,target=/x,sharing=locked a", Refused(NO_MOUNT)),
    ("mount required", "FROM image\nRUN --mount=type=ssh,required a", Refused(NO_MOUNT)),
    ("mount mode", "FROM image\nRUN --mount=type=cache,target=/x,mode=0700 a", Refused(NO_MOUNT)),
    ("mount uid", "FROM image\nRUN --mount=type=cache,target=/x,uid=1 a", Refused(NO_MOUNT)),
    ("mount gid", "FROM image\nRUN --mount=type=cache,target=/x,gid=1 a", Refused(NO_MOUNT)),
    ("mount size", "FROM image\nRUN --mount=type=tmpfs,target=/x,size=1m a", Refused(NO_MOUNT)),
    ("mount env", "FROM image\nRUN --mount=type=secret,id=x,env=X a", Refused(NO_MOUNT)),
    ("mount unknown", "FROM image\nRUN --mount=target=/x,raedonly a", Refused("(did you mean readonly?)")),
    ("mount misplaced", "FROM image\nRUN --mount=target=/x,size=1m a", Refused("a bind mount has no option \"size\"")),
];

const TABLES: &[&[Row]] = &[DIRECTIVES, INSTRUCTION_ROWS, HEREDOCS, EXPANSIONS, MOUNTS];

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().copied().flatten()
}

#[test]
fn nothing_is_parsed_and_then_ignored() {
    let corpus = names_of_the_corpus();
    let wrong: Vec<String> = rows().filter_map(|row| objection(row, &corpus)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn objection((item, dockerfile, verdict): &Row, corpus: &[String]) -> Option<String> {
    let came = outcome(&Case { dockerfile: (*dockerfile).to_owned(), ..Case::default() });
    match verdict {
        Shown(_) if came.verdict != "planned" => Some(format!("{item}: {}: {}", came.verdict, came.text)),
        Shown(case) => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases").join(case);
            (!folder.is_dir() && !corpus.iter().any(|name| name == case)).then(|| format!("{item}: no case {case}"))
        }
        Refused(words) if came.verdict != "refused" || !came.text.contains(words) => {
            Some(format!("{item}: {}: {}, not {words}", came.verdict, came.text))
        }
        Refused(_) => None,
    }
}

fn names_of_the_corpus() -> Vec<String> {
    let named = |file: std::path::PathBuf| {
        let theme = file.file_stem().expect("a name").to_string_lossy().into_owned();
        cases::read(&file).into_iter().map(move |case| format!("{theme}/{}", case.name))
    };
    cases::files("corpus").into_iter().flat_map(named).collect()
}

/// What the parser knows is in the table.
#[test]
fn the_table_has_all_that_the_parser_knows() {
    let mut missing = Vec::new();
    let mut want = |item: String| {
        if !rows().any(|(known, ..)| *known == item) {
            missing.push(item);
        }
    };
    for instruction in INSTRUCTIONS {
        want(instruction.to_owned());
        for flag in flags_of(instruction) {
            want(format!("{instruction} --{flag}"));
        }
    }
    MOUNT_OPTIONS.into_iter().for_each(|option| want(format!("mount {option}")));
    assert!(missing.is_empty(), "{missing:?}");
}

/// The flags that an instruction takes, by what it says about one that no instruction has.
fn flags_of(instruction: &str) -> Vec<&'static str> {
    let text = format!("FROM scratch\n{instruction} --no-instruction-has-this a b");
    let error = dockerfile::parse(text.as_bytes()).expect_err("no such flag");
    match *error.fault {
        Fault::UnknownFlag { known, .. } => known,
        other => panic!("{instruction}: {other}"),
    }
}
