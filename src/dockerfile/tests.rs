use std::time::Duration;

use super::*;

fn instruction(line: &str) -> Instruction {
    parse_trigger(line).unwrap_or_else(|error| panic!("{line}: {:?}", error.fault)).value
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

/// The texts of the instructions after FROM.
fn texts(file: &str) -> Vec<String> {
    let parsed = parse(file.as_bytes()).unwrap_or_else(|error| panic!("{file:?}: {:?}", error.fault));
    parsed.stages.iter().flat_map(|stage| &stage.instructions).map(|instruction| instruction.text.clone()).collect()
}

#[test]
fn lines_become_instructions() {
    for (file, expected) in [
        ("FROM a\nRUN b\n", vec!["RUN b"]),
        ("FROM a\nRUN b", vec!["RUN b"]),
        ("\u{feff}FROM a\r\nRUN b\r\n", vec!["RUN b"]),
        ("# c\n\n  FROM a\n\t run b  \n", vec!["run b"]),
        ("FROM a\nRUN b \\\n  c\n", vec!["RUN b   c"]),
        ("FROM a\nRUN b \\  \t\n  c\n", vec!["RUN b   c"]),
        ("FROM a\nRUN b\\\nc\n", vec!["RUN bc"]),
        ("FROM a\nRUN b \\\n# comment \\\n\n  # other\n c\nUSER d", vec!["RUN b  c", "USER d"]),
        ("FROM a\nRUN b \\\n", vec!["RUN b"]),
        ("FROM a\nENV b c\\\\\nUSER d", vec!["ENV b c\\\\", "USER d"]),
        ("FROM a\n\\\nRUN b", vec!["RUN b"]),
        ("# escape=`\nFROM a\nRUN b `\nc \\\nUSER d", vec!["RUN b c \\", "USER d"]),
        ("# escape = `\n# syntax=x\nFROM a\nRUN b`\nc", vec!["RUN bc"]),
        ("# comment\n# escape=`\nFROM a\nRUN b \\\nc", vec!["RUN b c"]),
        ("\n# escape=`\nFROM a\nRUN b \\\nc", vec!["RUN b c"]),
        ("# other=x\n# escape=`\nFROM a\nRUN b \\\nc", vec!["RUN b c"]),
        ("FROM a\nRUN <<E\n# kept \\\nE\nUSER d", vec!["RUN <<E", "USER d"]),
    ] {
        assert_eq!(texts(file), expected, "{file:?}");
    }
    let latin1_comment = b"# caf\xe9\nFROM a\n";
    assert!(parse(latin1_comment).is_ok());
}

#[test]
fn directives_are_kept() {
    let file = parse(b"#Syntax=docker/dockerfile:1\n# check = skip=all\n#escape=\\\nARG A\nFROM a").expect("parses");
    assert_eq!(file.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.check.map(|check| check.skip), Some(strings(&["all"])));
    assert_eq!(file.escape, '\\');
}

#[test]
fn places_are_exact() {
    let text = "\u{feff}ARG A\n  FROM a AS B\nRUN b \\\n# c\n\n d\nCOPY <<E /x\n1\nE\nUSER u";
    let file = parse(text.as_bytes()).expect("parses");
    let stage = &file.stages[0];
    let place = |span: Span, line, end_line| (&text[span.start..span.end], line, end_line);
    let of = |at: &Located<Instruction>| place(at.span, at.line, at.end_line);
    assert_eq!(file.global_args[0].line, 1);
    assert_eq!(place(stage.from.span, stage.from.line, stage.from.end_line), ("FROM a AS B", 2, 2));
    assert_eq!(stage.from.value.name.as_deref(), Some("b"));
    assert_eq!(of(&stage.instructions[0]), ("RUN b \\\n# c\n\n d", 3, 6));
    assert_eq!(of(&stage.instructions[1]), ("COPY <<E /x\n1\nE", 7, 9));
    assert_eq!(of(&stage.instructions[2]), ("USER u", 10, 10));
    assert_eq!(file.empty_continuation_lines, [5]);
}

#[test]
fn arguments_are_divided_as_each_instruction_wants() {
    use Instruction as I;
    use ShellOrExec::{Exec, Shell};
    let arg = |name: &str, default: Option<&str>| Arg { name: name.into(), default: default.map(str::to_owned) };
    for (line, expected) in [
        (
            "ENV a=1 b='x y' c=\"$d\\\" e\" f=",
            I::Env(pairs(&[("a", "1"), ("b", "'x y'"), ("c", "\"$d\\\" e\""), ("f", "")])),
        ),
        ("ENV a  b c=d ", I::Env(pairs(&[("a", "b c=d")]))),
        ("env a=x=y", I::Env(pairs(&[("a", "x=y")]))),
        ("LABEL \"a b\"=c d.e=f", I::Label(pairs(&[("\"a b\"", "c"), ("d.e", "f")]))),
        ("LABEL a b c", I::Label(pairs(&[("a", "b c")]))),
        ("ARG a b=1 c=", I::Arg(vec![arg("a", None), arg("b", Some("1")), arg("c", Some(""))])),
        ("CMD", I::Cmd(Shell(String::new()))),
        ("CMD a  b", I::Cmd(Shell("a  b".into()))),
        ("CMD [\"a\", \"b\"]", I::Cmd(Exec(strings(&["a", "b"])))),
        ("CMD ['a']", I::Cmd(Shell("['a']".into()))),
        ("CMD [\"a\"] b", I::Cmd(Shell("[\"a\"] b".into()))),
        ("ENTRYPOINT []", I::Entrypoint(Exec(vec![]))),
        ("SHELL [\"/bin/x\", \"-c\"]", I::Shell(strings(&["/bin/x", "-c"]))),
        ("EXPOSE 80 443/tcp $P", I::Expose(strings(&["$P", "443/tcp", "80"]))),
        ("VOLUME /a\t/b", I::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\" /a b \"]", I::Volume(strings(&["/a b"]))),
        ("WORKDIR a b", I::Workdir("a b".into())),
        ("USER a:b", I::User("a:b".into())),
        ("STOPSIGNAL $S", I::StopSignal("$S".into())),
        ("MAINTAINER A <b@c>", I::Maintainer("A <b@c>".into())),
        ("ONBUILD  run x  y", I::OnBuild("run x  y".into())),
        ("ONBUILD COPY <<E /x\n$v\nE", I::OnBuild("COPY <<E /x\n$v\nE".into())),
        ("HEALTHCHECK none", I::Healthcheck(Box::new(Healthcheck::None))),
    ] {
        assert_eq!(instruction(line), expected, "{line}");
    }
}

#[test]
fn flags_are_typed() {
    let Instruction::Copy(copy) = instruction(
        "COPY --from=b --chown=a:$b --chmod=u+x --link --parents=false --exclude=x --exclude='y z' a b /c/",
    ) else {
        panic!("COPY")
    };
    assert_eq!(copy.destination, "/c/");
    assert_eq!(copy.sources, ["a", "b"].map(|path| CopySource::Path(path.into())));
    let expected = CopyFlags {
        from: Some("b".into()),
        chown: Some("a:$b".into()),
        chmod: Some("u+x".into()),
        link: true,
        exclude: strings(&["x", "y z"]),
        ..CopyFlags::default()
    };
    assert_eq!(copy.flags, expected);
    let Instruction::Add(add) = instruction("ADD --checksum=sha256:1 --keep-git-dir --unpack=FALSE a b") else {
        panic!("ADD")
    };
    let expected = CopyFlags {
        checksum: Some("sha256:1".into()),
        keep_git_dir: Some(true),
        unpack: Some(false),
        ..CopyFlags::default()
    };
    assert_eq!(add.flags, expected);
    let Instruction::Healthcheck(check) = instruction(
        "HEALTHCHECK --interval=1m30s --timeout=0 --start-period=10s --start-interval=2s --retries=4 cmd [\"a\"]",
    ) else {
        panic!("HEALTHCHECK")
    };
    let Healthcheck::Cmd { command, flags } = *check else { panic!("CMD") };
    assert_eq!(command, ShellOrExec::Exec(strings(&["a"])));
    let second = 1_000_000_000;
    let expected = HealthcheckFlags {
        interval: 90 * second,
        timeout: 0,
        start_period: 10 * second,
        start_interval: 2 * second,
        retries: 4,
    };
    assert_eq!(flags, expected);
    let Instruction::Run(run) =
        instruction("RUN --network=none --security=insecure --device=vendor.com/gpu=all,required -- --x")
    else {
        panic!("RUN")
    };
    assert_eq!(run.command, ShellOrExec::Shell("--x".into()));
    assert_eq!((run.flags.network, run.flags.security), (Some(Network::None), Some(Security::Insecure)));
    assert_eq!(run.flags.devices, [Device { name: "vendor.com/gpu=all".into(), required: true }]);
}

#[test]
fn heredocs_are_worked_in() {
    for (text, expected) in [
        ("RUN <<E\na\nE", Script::Shell("a\n".into())),
        ("RUN <<-E\n\ta\n\tE", Script::Shell("a\n".into())),
        ("RUN <<E sh\na\nE", Script::Shell("<<E sh\na\nE".into())),
        ("RUN cat <<-A && cat <<B\n\t1\nA\n2\nB", Script::Shell("cat <<-A && cat <<B\n\t1\nA\n2\nB".into())),
        ("RUN [\"<<E\"]", Script::Exec(strings(&["<<E"]))),
        ("RUN", Script::Shell(String::new())),
    ] {
        let Instruction::Run(run) = instruction(text) else { panic!("{text}") };
        assert_eq!(run.script(), expected, "{text}");
    }
    let Instruction::Run(run) = instruction("RUN <<E\n#!/bin/x\nE") else { panic!("RUN") };
    assert!(matches!(run.script(), Script::Program(file) if file.name == "E" && file.content == "#!/bin/x\n"));

    let Instruction::Copy(copy) = instruction("COPY <<a.txt b <<-'c' /d/\n1\r\nc\na.txt\n\t$2\nc") else {
        panic!("COPY")
    };
    let heredoc = |name: &str, expand, content: &str, raw: &str| {
        CopySource::Heredoc(Heredoc { name: name.into(), expand, content: content.into(), raw: raw.into() })
    };
    let expected = [
        heredoc("a.txt", true, "1\r\nc\n", "1\r\nc\n"),
        CopySource::Path("b".into()),
        heredoc("c", false, "$2\n", "\t$2\n"),
    ];
    assert_eq!(copy.sources, expected);
}

#[test]
fn wrong_files_are_refused_with_their_line_and_what_to_do() {
    for (file, line, expected) in [
        ("", 1, "the Dockerfile is empty: begin with FROM and the image to build on"),
        ("# a\n\n", 1, "the Dockerfile has only comments and blank lines: begin with FROM and the image to build on"),
        ("ARG A", 1, "the Dockerfile has no stage to build: add a FROM"),
        (
            "ARG A\nENV a=b\nFROM a",
            2,
            "only ARG may stand before the first FROM: begin with FROM and the image to build on",
        ),
        ("# escape=x\nFROM a", 1, "the escape directive takes \\ or `, not \"x\""),
        ("# escape=`\n# escape=`\nFROM a", 2, "the escape directive can be given only once"),
        ("FROM a\nRUNN x", 2, "unknown instruction \"RUNN\" (did you mean RUN?)"),
        (
            "FROM a\n\nINSTALL x",
            3,
            "unknown instruction \"INSTALL\": a command stands after RUN, and a line that goes on has the escape character at its end",
        ),
        ("FROM", 1, "FROM takes an image, or an image AS name"),
        ("FROM a # b", 1, "# begins a comment only at the start of a line: put the comment on a line of its own"),
        ("FROM=a", 1, "unknown instruction \"FROM=a\" (did you mean FROM?)"),
        ("FROM a b", 1, "FROM takes an image, or an image AS name"),
        ("FROM a IS b", 1, "FROM takes an image, or an image AS name"),
        (
            "FROM a AS 1b",
            1,
            "\"1b\" cannot name a stage: a name begins with a letter and has letters, digits, -, _ and . only",
        ),
        ("FROM --platfrom=x a", 1, "FROM has no flag --platfrom (did you mean --platform?)"),
        ("FROM a\nCOPY a", 2, "COPY needs a source and a destination, such as COPY . /app"),
        (
            "FROM a\nADD --from=x a b",
            2,
            "ADD has no flag --from; it has --chown, --chmod, --link, --exclude, --checksum, --keep-git-dir, --unpack",
        ),
        ("FROM a\nCOPY --chmd=1 a b", 2, "COPY has no flag --chmd (did you mean --chmod?)"),
        ("FROM a\nCOPY --chown a b", 2, "flag --chown needs a value: --chown=value"),
        ("FROM a\nCOPY --link --link a b", 2, "flag --link is given twice"),
        ("FROM a\nCOPY --link=x a b", 2, "flag --link takes true or false, not \"x\""),
        (
            "FROM a\nCOPY --from=$x a b",
            2,
            "variables are not replaced in --from: add a stage FROM $x AS name and copy from that name",
        ),
        ("FROM a\nCOPY b <<E\nx\nE", 2, "COPY cannot write to a heredoc: its last argument is the destination"),
        (
            "FROM a\nRUN <<E\nx",
            2,
            "the heredoc has no line \"E\" that ends it: that word stands alone, with nothing before it",
        ),
        ("FROM a\nRUN --network=x y", 2, "flag --network takes default, none or host, not \"x\""),
        (
            "FROM a\nRUN --mount=type=cahce,target=/x y",
            2,
            "--mount=type=cahce,target=/x: \"cahce\" is no mount type; bind, cache, tmpfs, secret and ssh are",
        ),
        ("FROM a\nENV", 2, "ENV needs at least one argument, such as ENV name=value"),
        ("FROM a\nENV a", 2, "ENV a has no value: write ENV a=value"),
        ("FROM a\nENV a=1 b", 2, "\"b\" has no =: write name=value, and quote values with spaces"),
        ("FROM a\nENV =1", 2, "ENV has a value without a name: write ENV name=value, without spaces around ="),
        ("FROM a\nENV --a=b c=d", 2, "ENV has no flag --a; it has none"),
        ("FROM a\nUSER", 2, "USER needs exactly one argument, such as USER 1000"),
        (
            "FROM a\nCMD [\"a\", 1]",
            2,
            "a JSON list of arguments can hold only strings: put double quotes around the rest",
        ),
        ("FROM a\nSHELL sh", 2, "SHELL takes a JSON list, such as SHELL [\"/bin/sh\", \"-c\"]"),
        ("FROM a\nSHELL []", 2, "SHELL needs at least one argument, such as SHELL [\"/bin/sh\", \"-c\"]"),
        ("FROM a\nVOLUME [\"\"]", 2, "a volume cannot be an empty string"),
        ("FROM a\nHEALTHCHECK FOO x", 2, "HEALTHCHECK takes CMD or NONE, not \"FOO\": write CMD before the command"),
        ("FROM a\nHEALTHCHECK NONE x", 2, "HEALTHCHECK NONE takes no arguments"),
        ("FROM a\nHEALTHCHECK CMD", 2, "HEALTHCHECK CMD has no command"),
        (
            "FROM a\nHEALTHCHECK --interval=5 CMD x",
            2,
            "flag --interval takes a duration such as 30s or 1m30s, not \"5\"",
        ),
        ("FROM a\nHEALTHCHECK --interval=5us CMD x", 2, "flag --interval cannot be less than 1ms"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", 2, "flag --retries takes a number from 0, not \"-1\""),
        ("FROM a\nONBUILD", 2, "ONBUILD needs at least one argument, such as ONBUILD RUN make"),
        ("FROM a\nONBUILD FROM b", 2, "FROM is not allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD onbuild RUN x", 2, "ONBUILD is not allowed as an ONBUILD trigger"),
    ] {
        let error = parse(file.as_bytes()).expect_err(file);
        assert_eq!((error.line, error.fault.to_string().as_str()), (line, expected), "{file}");
    }
    assert!(matches!(*parse(b"FROM a\nRUN \xe9").expect_err("Latin-1").fault, Fault::NotUtf8));
    let error = parse_trigger("RUN a\nRUN b").expect_err("two");
    assert_eq!(*error.fault, Fault::NotOneInstruction);
}

#[test]
fn a_line_has_65535_bytes_at_most() {
    for (length, fits) in [(65_535, true), (65_536, false)] {
        for end in ["", "\n"] {
            let file = format!("FROM a\nENV A={}{end}", "x".repeat(length - "ENV A=".len()));
            assert_eq!(parse(file.as_bytes()).is_ok(), fits, "{length}");
        }
    }
}

#[test]
fn an_error_has_lines_that_can_be_shown() {
    let text = b"FROM a\nUSER u\nRUN b \\\n  c\nCOPY --chmd=1 \\\n\tx y\nCMD z\nCMD last\nCMD unseen\n";
    let error = parse(text).expect_err("no such flag");
    assert_eq!(error.fault.to_string(), "COPY has no flag --chmd (did you mean --chmod?)");
    assert_eq!(error.suggestion().as_deref(), Some("--chmod"));
    let expected = "  3 | RUN b \\
  4 |   c
> 5 | COPY --chmd=1 \\
> 6 |  x y
  7 | CMD z
  8 | CMD last
";
    assert_eq!(excerpt(text, error.line..=error.end_line), expected);
    assert_eq!(excerpt(b"FROM a\nCMD \x1b[31m\n", 1..=1), "> 1 | FROM a\n  2 | CMD \u{fffd}[31m\n  3 |\n");
    assert_eq!(excerpt(text, 9..=9), "   7 | CMD z\n   8 | CMD last\n>  9 | CMD unseen\n  10 |\n");
    let heredoc = "x\n".repeat(30);
    assert_eq!(excerpt(heredoc.as_bytes(), 2..=20).matches('>').count(), 6, "a long heredoc is not shown whole");
}

/// How a shape of `bytes` bytes is made of a part that repeats.
type Shape = (&'static str, fn(&dyn Fn(&str) -> String) -> String);

/// What could make a parser walk back or look twice: many of a thing, long ones, open ones.
const SHAPES: &[Shape] = &[
    ("blank lines", |filled| filled("\n")),
    ("comments", |filled| filled("# x\n")),
    ("short instructions", |filled| filled("USER u\n")),
    ("stages", |filled| filled("FROM a AS b\n")),
    ("long lines", |filled| filled(&format!("RUN {}\n", "x".repeat(20_000)))),
    ("long blanks", |filled| filled(&format!("RUN {}x\n", " ".repeat(20_000)))),
    ("line ends", |filled| filled("\r")),
    ("continuations", |filled| format!("RUN x {}", filled("\\\n y"))),
    ("blank continuations", |filled| format!("RUN x \\\n{}", filled("\n"))),
    ("escapes", |filled| format!("ENV a=b {}", filled("c=\\\\ \\\n"))),
    ("words", |filled| format!("ENV a=b {}", filled("c='d e' \\\n"))),
    ("open quotes", |filled| format!("ENV a=b {}", filled("c='d \\\n"))),
    ("flags", |filled| format!("COPY \\\n{} a b", filled("--exclude=x \\\n"))),
    ("unknown flags", |filled| format!("RUN \\\n{} a", filled("--x \\\n"))),
    ("mounts", |filled| format!("RUN \\\n{} a", filled("--mount=type=tmpfs,target=/x \\\n"))),
    ("mount options", |filled| format!("RUN --mount=type=tmpfs,target=/x{} a", filled(",ro\\\n"))),
    ("mount quotes", |filled| format!("RUN --mount={} a", filled("\\\"\\\"\\\n"))),
    ("heredocs", |filled| filled("RUN <<E\nx\nE\n")),
    ("files", |filled| filled("COPY <<'E' /x\nx\nE\n")),
    ("triggers", |filled| filled("ONBUILD RUN <<E\nx\nE\n")),
    ("one heredoc", |filled| format!("RUN <<E\n{}E", filled("E x\n"))),
    ("one file", |filled| format!("COPY <<-E /x\n{}E", filled("\tE $x\n"))),
    ("heredoc openings", |filled| format!("COPY \\\n{}", filled("<<E \\\n"))),
    ("heredocs of one line", |filled| format!("COPY \\\n{}/x\n{}", filled("<<E \\\n"), filled("E\nE\nE\n"))),
    ("unterminated heredoc", |filled| format!("RUN <<E\n{}", filled("x\n"))),
    ("operators", |filled| format!("RUN {}", filled("<<<<< <\\\n"))),
    ("a JSON list", |filled| format!("CMD [\\\n{}\"\"]", filled("\"a\", \\\n"))),
    ("deep JSON", |filled| format!("CMD {}", filled("[[[[\\\n"))),
    ("variables", |filled| format!("RUN <<E {}\nE", filled("${a} \\\n"))),
    ("patterns", |filled| format!("RUN <<E {}\nE", filled("${a/x*y/z} \\\n"))),
    ("open braces", |filled| format!("RUN <<E {}", filled("${a:-\\\n"))),
    ("dollars", |filled| format!("COPY --from={} a b", filled("$$$$\\\n"))),
];

/// CPU time of this thread for one parse, the shortest of two: other threads and a busy machine count little.
fn parse_time(file: &str) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
    };
    let timed = || {
        let start = now();
        // accepted or refused: both must be quick
        let _ = parse(file.as_bytes());
        now() - start
    };
    timed().min(timed())
}

/// Sixteen times the text may take 64 times as long, which leaves room for caches that it no longer fits in; a quadratic
/// parser takes 256 times.
#[test]
fn time_grows_with_the_text_only() {
    const BYTES: usize = 32 * 1024;
    const MORE: usize = 16;
    // below this the time is that of caches and of the clock, not of the parser
    const FLOOR: Duration = Duration::from_millis(1);
    for (what, shape) in SHAPES {
        let file = |bytes: usize| format!("FROM a\n{}", shape(&|unit| unit.repeat(bytes / unit.len())));
        let (short, long) = (parse_time(&file(BYTES)), parse_time(&file(BYTES * MORE)));
        assert!(
            long < short.max(FLOOR) * MORE as u32 * 4,
            "{what}: {short:?} for {BYTES} bytes, {long:?} for {MORE} times"
        );
    }
}

/// Ten megabytes of any shape in less than a second, in release mode on an idle machine: `make test-long`.
#[test]
#[ignore = "its result depends on the machine"]
fn ten_megabytes() {
    const BYTES: usize = 10_000_000;
    let mut slowest = ("", Duration::ZERO);
    for (what, shape) in SHAPES {
        let time = parse_time(&format!("FROM a\n{}", shape(&|unit| unit.repeat(BYTES / unit.len()))));
        slowest = if time > slowest.1 { (what, time) } else { slowest };
    }
    assert!(slowest.1 < Duration::from_secs(1), "{slowest:?}");
}
