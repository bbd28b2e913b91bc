//! Real processes, whose working directory is the machine's root or a temporary directory.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use super::super::StopReason;
use super::super::processes::{self, Leader};
use super::*;

/// A process has one supervisor at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Trial {
    place: tempfile::TempDir,
    supervisor: Supervisor,
    stopped: Mutex<mpsc::Receiver<StopReason>>,
    _alone: MutexGuard<'static, ()>,
}

fn trial() -> Trial {
    trial_within(None)
}

/// A trial whose whole time is limited.
fn trial_within(limit: Option<Duration>) -> Trial {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (tell, stopped) = mpsc::channel();
    let supervisor = Supervisor::start(limit, move |reason| tell.send(reason).unwrap_or_default()).expect("started");
    let stopped = Mutex::new(stopped);
    Trial { place: tempfile::tempdir().expect("a directory"), supervisor, stopped, _alone: alone }
}

/// Whom this test runs as.
fn ourselves() -> User {
    let mut groups: Vec<u32> = process::getgroups().expect("known").iter().map(|gid| gid.as_raw()).collect();
    groups.push(process::getgid().as_raw());
    groups.sort_unstable();
    groups.dedup();
    User { uid: process::getuid().as_raw(), gid: process::getgid().as_raw(), groups, home: b"/".to_vec(), name: None }
}

fn command(arguments: &[&str]) -> Command {
    Command {
        arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        environment: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        directory: ImagePath::root(),
        user: ourselves(),
        stdin: Stdin::Empty,
        time_limit: None,
    }
}

impl Trial {
    fn run(&self, command: &Command) -> Result<Exit, Error> {
        run(command, &Root::open(Path::new("/")).expect("opened"), &self.supervisor)
    }

    /// The reason that the supervisor told.
    fn told_to_stop(&self) -> Result<StopReason, mpsc::RecvTimeoutError> {
        self.stopped.lock().expect("not poisoned").recv_timeout(PATIENCE)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A shell in the temporary directory.
    fn shell(&self, script: &str) -> Command {
        Command {
            directory: ImagePath::clean(self.place.path().to_str().expect("UTF-8")),
            ..command(&["sh", "-c", script])
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("written by the command")
    }

    /// Runs `command` to make a copy of a file of its own in `/proc`.
    fn proc_file(&self, name: &str, like: Command) -> String {
        let copy = self.path("copy");
        drop(std::fs::remove_file(&copy)); // it may be read-only, as files in /proc are
        let program = ["cp", &format!("/proc/self/{name}"), copy.to_str().expect("UTF-8")];
        assert_eq!(self.run(&Command { arguments: command(&program).arguments, ..like }).expect("run"), Exit::Code(0));
        self.read("copy")
    }
}

fn status_line<'a>(status: &'a str, key: &str) -> Vec<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).split_ascii_whitespace().collect()
}

/// CAP_SYS_PTRACE in a set of capabilities.
const SYS_PTRACE: u64 = 1 << 19;
/// CAP_CHOWN, CAP_SETGID and CAP_SETUID.
const TO_BECOME_ANOTHER: u64 = 1 | 1 << 6 | 1 << 7;

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a proc file system");
    u64::from_str_radix(status_line(&status, "CapEff")[0], 16).expect("hexadecimal")
}

#[test]
fn exits() {
    let trial = trial();
    for (script, exit, code) in [
        ("true", Exit::Code(0), 0),
        ("exit 42", Exit::Code(42), 42),
        ("exit 255", Exit::Code(255), 255),
        ("kill -KILL $$", Exit::Signal(9), 137),
        ("kill -TERM $$", Exit::Signal(15), 143),
        ("kill -PIPE $$", Exit::Signal(13), 141),
    ] {
        let found = trial.run(&trial.shell(script)).expect("run");
        assert_eq!((found, found.code()), (exit, code), "{script}");
    }
    assert_eq!(trial.supervisor.was_stopped(), None);
}

#[test]
fn the_environment_is_what_was_given() {
    let trial = trial();
    let environment =
        vec![(b"B".to_vec(), b"x=y z\n".to_vec()), (b"A".to_vec(), Vec::new()), (b"PATH".to_vec(), b"/bin".to_vec())];
    let given = Command { environment, ..command(&[]) };
    assert_eq!(trial.proc_file("environ", given), "B=x=y z\n\0A=\0PATH=/bin\0");
}

#[test]
fn nothing_of_ours_is_inherited() {
    let trial = trial();
    let before = process::getrlimit(process::Resource::Nofile);
    let lowered = process::Rlimit { current: before.current.map(|soft| soft - 1), maximum: before.maximum };
    process::setrlimit(process::Resource::Nofile, lowered).expect("lowered");
    let status = trial.proc_file("status", command(&[]));
    let limits = trial.proc_file("limits", command(&[]));
    let sessions = trial.proc_file("stat", command(&[]));
    process::setrlimit(process::Resource::Nofile, before).expect("raised");

    assert_eq!(status_line(&status, "SigBlk"), ["0000000000000000"]);
    assert_eq!(status_line(&status, "SigIgn"), ["0000000000000000"]);
    assert_eq!(status_line(&status, "Umask"), ["0022"]);
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let soft = before.current.map_or("unlimited".to_owned(), |soft| soft.to_string());
    assert_eq!(open_files.split_ascii_whitespace().next(), Some(&*soft));
    let fields: Vec<&str> = sessions.split_ascii_whitespace().collect();
    assert_eq!((fields[4], fields[5]), (fields[0], fields[0]), "group and session are its own: {sessions}");

    let (reader, _writer) = io::pipe().expect("a pipe");
    let leaking = rustix::io::dup(&reader).expect("a descriptor that survives an exec");
    assert_eq!(trial.run(&trial.shell("ls /proc/self/fd >fds")).expect("run"), Exit::Code(0));
    assert_eq!(trial.read("fds"), "0\n1\n2\n3\n", "3 is the directory that ls reads");
    drop(leaking);
}

#[test]
#[expect(clippy::print_stdout, reason = "a skip says why")]
fn the_user_has_its_groups_and_the_directory_may_be_closed_to_it() {
    let trial = trial();
    if effective_capabilities() & TO_BECOME_ANOTHER != TO_BECOME_ANOTHER {
        println!("skipped: to become another user takes CAP_CHOWN, CAP_SETUID and CAP_SETGID");
        return;
    }
    let user = User { uid: 1234, gid: 1235, groups: vec![7, 1235], home: b"/".to_vec(), name: None };
    std::fs::write(trial.path("copy"), "").expect("written");
    std::os::unix::fs::chown(trial.path("copy"), Some(1234), None).expect("given away");
    let copy = trial.path("copy").to_str().expect("UTF-8").to_owned();
    let set_mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(trial.place.path(), mode).expect("set");
    };
    set_mode(0o700); // the directory can be entered for the user, and nothing in it be opened
    let outside = Command { user: user.clone(), ..trial.shell("echo x >copy") };
    assert_ne!(trial.run(&outside).expect("run"), Exit::Code(0), "it cannot write there");
    set_mode(0o755);
    let inside = Command { user, ..command(&["cp", "/proc/self/status", &copy]) };
    assert_eq!(trial.run(&inside).expect("run"), Exit::Code(0));
    let status = trial.read("copy");
    assert_eq!(status_line(&status, "Uid"), ["1234"; 4]);
    assert_eq!(status_line(&status, "Gid"), ["1235"; 4]);
    assert_eq!(status_line(&status, "Groups"), ["7", "1235"]);
    for capabilities in ["CapEff", "CapPrm", "CapAmb"] {
        assert_eq!(status_line(&status, capabilities), ["0000000000000000"], "{capabilities}");
    }
}

#[test]
fn working_directory() {
    let trial = trial();
    std::fs::create_dir(trial.path("real")).expect("made");
    std::os::unix::fs::symlink("real", trial.path("link")).expect("linked");
    let link = ImagePath::clean(trial.path("link").to_str().expect("UTF-8"));
    let there = Command { directory: link.clone(), ..command(&["sh", "-c", "pwd -P >out"]) };
    assert_eq!(trial.run(&there).expect("run"), Exit::Code(0));
    let real = trial.path("real").canonicalize().expect("there");
    assert_eq!(trial.read("real/out"), format!("{}\n", real.display()));
    let missing = Command { directory: link.join("missing"), ..command(&["true"]) };
    assert!(matches!(trial.run(&missing), Err(Error::Directory { .. })));
}

#[test]
fn standard_input() {
    let trial = trial();
    let count = trial.shell("wc -c >count");
    let bytes = |length| Stdin::Bytes(vec![b'x'; length]);
    // more than a pipe holds
    for (stdin, expected) in [(Stdin::Empty, "0\n"), (bytes(0), "0\n"), (bytes(1 << 20), "1048576\n")] {
        assert_eq!(trial.run(&Command { stdin, ..count.clone() }).expect("run"), Exit::Code(0));
        assert_eq!(trial.read("count").trim_start(), expected);
    }
    let deaf = Command { stdin: bytes(1 << 20), ..command(&["true"]) };
    assert_eq!(trial.run(&deaf).expect("run"), Exit::Code(0));
}

#[test]
fn programs_that_cannot_be_executed() {
    let trial = trial();
    let write = |name: &str, content: &str, mode| {
        std::fs::write(trial.path(name), content).expect("written");
        std::fs::set_permissions(trial.path(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
        trial.path(name).to_str().expect("UTF-8").to_owned()
    };
    let (plain, nonsense) = (write("plain", "#!/bin/sh\n", 0o644), write("nonsense", "no program", 0o755));
    let orphan = write("orphan", "#!/no/such/interpreter\n", 0o755);
    for (program, code, text) in [
        ("no-such-program", 127, "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/no/such/program", 127, "exec: \"/no/such/program\""),
        ("/etc/hostname/below", 127, "exec: \"/etc/hostname/below\""),
        ("", 127, "exec: \"\": executable file not found in $PATH"),
        (&orphan, 127, &format!("exec: {orphan:?}")),
        (&plain, 126, &format!("exec: {plain:?}")),
        (&nonsense, 126, &format!("exec: {nonsense:?}")),
        ("/", 126, "exec: \"/\""),
    ] {
        let error = trial.run(&command(&[program])).expect_err(program);
        assert_eq!((error.exit_code(), error.to_string()), (code, text.to_owned()), "{error:?}");
    }
    let pathless = Command { environment: Vec::new(), ..command(&["true"]) };
    assert!(matches!(trial.run(&pathless), Err(Error::NotOnPath { .. })));
    let nul = command(&["true", "a\0b"]);
    assert!(matches!(trial.run(&nul), Err(Error::Nul { .. })));
}

#[test]
fn a_program_that_is_still_being_written_is_waited_for() {
    let trial = trial();
    let program = trial.path("program");
    std::fs::copy("/bin/true", &program).expect("copied");
    // another process, for what this one has open its children have, too
    let writer = |seconds: &str| {
        let script = format!("exec 3>>program; : >open; exec sleep {seconds}");
        let mut writer = std::process::Command::new("sh");
        let writer = writer.args(["-c", &script]).current_dir(trial.place.path()).spawn().expect("started");
        while !trial.path("open").exists() {
            std::thread::yield_now();
        }
        writer
    };
    let mut other = writer("0.2");
    let program = command(&[program.to_str().expect("UTF-8")]);
    assert_eq!(trial.run(&program).expect("run"), Exit::Code(0));
    other.wait().expect("it ends");
    std::fs::remove_file(trial.path("open")).expect("removed");

    let mut other = writer("60");
    let error = trial.run(&program).expect_err("it is never closed");
    assert!(format!("{error:?}").contains("ExecutableFileBusy"), "{error:?}");
    other.kill().expect("killed");
    other.wait().expect("it ends");
}

#[test]
fn the_search_for_a_program() {
    let trial = trial();
    for (directory, mode) in [("first", 0o644), ("second", 0o755), ("third", 0o755)] {
        std::fs::create_dir(trial.path(directory)).expect("made");
        let tool = trial.path(directory).join("tool");
        std::fs::write(&tool, format!("#!/bin/sh\necho {directory} >found\n")).expect("written");
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
    }
    std::fs::copy(trial.path("third/tool"), trial.path("tool")).expect("copied");
    for (path, found) in [
        ("first:missing:second:third", "second\n"), // relative to the working directory; what is forbidden makes way
        ("third:second", "third\n"),
        (":second", "third\n"), // empty: the working directory
    ] {
        let environment = vec![(b"PATH".to_vec(), path.as_bytes().to_vec())];
        let tool = Command { arguments: command(&["tool"]).arguments, environment, ..trial.shell("") };
        assert_eq!(trial.run(&tool).expect("run"), Exit::Code(0), "{path}");
        assert_eq!(trial.read("found"), found, "{path}");
    }
    let environment = vec![(b"PATH".to_vec(), b"first:missing".to_vec())];
    let forbidden = Command { arguments: command(&["tool"]).arguments, environment, ..trial.shell("") };
    assert_eq!(trial.run(&forbidden).expect_err("not executable").exit_code(), 126);
}

#[test]
fn nothing_is_left_running_but_what_is_not_the_commands() {
    let trial = trial();
    let mut bystander =
        std::process::Command::new("sleep").arg("1000").spawn().expect("a helper that another thread of ours runs");
    let scripts = [
        "sleep 1000 & echo $! >pids",
        "setsid sleep 1000 & echo $! >pids",
        // a daemon: forked twice, in a session of its own, deaf to SIGTERM; it says itself who it is
        "(setsid sh -c 'trap \"\" TERM HUP; echo $$ >pids; sleep 1000 & sleep 1000' &) ; while ! [ -s pids ]; do :; done",
        "sh -c 'kill -STOP $$' & echo $! >pids",
    ];
    for script in scripts {
        assert_eq!(trial.run(&trial.shell(script)).expect("run"), Exit::Code(0), "{script}");
        let pid = trial.read("pids").trim().parse().expect("a pid");
        assert_eq!(processes::one(pid).expect("looked"), None, "{script}");
        std::fs::remove_file(trial.path("pids")).expect("removed");
    }
    assert!(bystander.try_wait().expect("looked").is_none(), "it runs on");
    bystander.kill().expect("killed");
    bystander.wait().expect("reaped");
    let anyone = Leader { pid: i32::MAX, started: 0, kin: Kin::AllOfOurs };
    assert_eq!(trial.supervisor.end_rest(anyone, PATIENCE).expect("nothing to do"), 0);
}

#[test]
fn a_signal_to_us_ends_the_command() {
    let trial = trial();
    let script = "trap 'exit 7' TERM; : >ready; for turn in $(seq 1000); do sleep 0.01; done";
    let ready = trial.path("ready");
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !ready.exists() {
                assert!(begun.elapsed() < PATIENCE, "the command did not start");
                std::thread::yield_now();
            }
            process::kill_process(process::getpid(), process::Signal::TERM).expect("sent");
        });
        trial.run(&trial.shell(script))
    });
    assert_eq!(exit.expect("run"), Exit::Code(7), "it could end as it wanted");
    assert_eq!(trial.supervisor.was_stopped(), Some(StopReason::Signal(15)));
    assert_eq!(trial.told_to_stop(), Ok(StopReason::Signal(15)));
    let refused = trial.run(&command(&["true"])).expect_err("no command starts any more");
    assert_eq!(refused.exit_code(), 143);
}

/// SIGTERM both times: SIGINT may be ignored where tests run (a shell's background jobs do so), and then stays so.
#[test]
fn a_second_signal_has_no_patience() {
    let trial = trial();
    let script = "trap '' TERM; : >ready; for turn in $(seq 1000); do sleep 0.01; done";
    let ready = trial.path("ready");
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !ready.exists() {
                assert!(begun.elapsed() < PATIENCE, "the command did not start");
                std::thread::yield_now();
            }
            process::kill_process(process::getpid(), process::Signal::TERM).expect("sent");
            assert_eq!(trial.told_to_stop(), Ok(StopReason::Signal(15)));
            process::kill_process(process::getpid(), process::Signal::TERM).expect("sent");
        });
        trial.run(&trial.shell(script))
    });
    assert_eq!(exit.expect("run"), Exit::Signal(9));
    assert_eq!(trial.supervisor.was_stopped(), Some(StopReason::Signal(15)));
}

#[test]
fn a_command_that_takes_too_long_is_ended() {
    let trial = trial();
    let within = |limit, script: &str| trial.run(&Command { time_limit: Some(limit), ..trial.shell(script) });
    assert_eq!(within(PATIENCE, "exit 3").expect("in time"), Exit::Code(3));
    let limit = Duration::from_secs(2);
    let error = within(limit, "trap 'echo told >told; exit 0' TERM; while :; do sleep 0.01; done");
    let error = error.expect_err("it takes too long");
    assert!(matches!(error, Error::OutOfTime { .. }), "{error}");
    assert_eq!(error.exit_code(), 124);
    assert_eq!(error.to_string(), "the command was ended after 2s, which is all that it may take");
    assert_eq!(trial.read("told"), "told\n", "it could end as it wanted");
    let begun = Instant::now();
    let deaf = within(limit, "trap '' TERM; while :; do sleep 0.01; done").expect_err("it takes too long");
    assert!(matches!(deaf, Error::OutOfTime { .. }), "{deaf}");
    assert!(begun.elapsed() > Duration::from_secs(10), "it had a while to end by itself, and was killed");
    assert_eq!(trial.supervisor.was_stopped(), None);
}

#[test]
fn the_end_of_all_time_ends_the_command() {
    let trial = trial_within(Some(Duration::from_secs(2)));
    let exit = trial.run(&trial.shell("trap 'exit 7' TERM; while :; do sleep 0.01; done"));
    assert_eq!(exit.expect("run"), Exit::Code(7), "it could end as it wanted");
    assert_eq!(trial.told_to_stop(), Ok(StopReason::OutOfTime));
    let refused = trial.run(&command(&["true"])).expect_err("no command starts any more");
    assert_eq!(refused.exit_code(), 124);
}

#[test]
fn commands_that_nobody_wants_any_longer_are_killed() {
    let trial = trial();
    let ready = trial.path("ready");
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !ready.exists() {
                assert!(begun.elapsed() < PATIENCE, "the command did not start");
                std::thread::yield_now();
            }
            trial.supervisor.give_up();
        });
        trial.run(&trial.shell("trap '' TERM; : >ready; sleep 1000 & wait"))
    });
    assert_eq!(exit.expect("run"), Exit::Signal(9));
    assert_eq!(trial.run(&command(&["sleep", "1000"])).expect("run"), Exit::Signal(9), "and those that begin later");
    assert_eq!(trial.supervisor.was_stopped(), None);
}

#[test]
fn we_hide_our_memory_and_adopt_orphans() {
    let trial = trial();
    assert_eq!(process::dumpable_behavior(), Ok(process::DumpableBehavior::NotDumpable));
    assert_eq!(process::child_subreaper(), Ok(Some(process::Pid::from_raw(1).expect("not zero"))));
    assert!(matches!(Supervisor::start(None, |_| ()), Err(Error::Supervise { .. })), "there is one already");
    assert_eq!(trial.supervisor.was_stopped(), None);
}

/// As credential helpers are started, which may leave a program behind that remembers.
#[test]
fn what_ends_after_its_parent_is_reaped() {
    let _trial = trial();
    let mut helper = std::process::Command::new("sh");
    let output = helper.args(["-c", "sleep 0.1 >&- 2>&- & echo $!"]).process_group(0).output().expect("it runs");
    let orphan = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    let begun = Instant::now();
    while let Some(left) = processes::one(orphan).expect("a proc file system") {
        assert!(begun.elapsed() < PATIENCE, "{left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As the same user, which could read all of it if we were dumpable.
#[test]
#[expect(clippy::print_stdout, reason = "a skip says why")]
fn a_command_cannot_look_into_us() {
    let trial = trial();
    if effective_capabilities() & SYS_PTRACE != 0 {
        println!("skipped: with CAP_SYS_PTRACE every process can be looked into");
        return;
    }
    for file in ["environ", "mem", "maps"] {
        let script = format!("test $PPID = {} && ! head -c 1 /proc/$PPID/{file}", std::process::id());
        assert_eq!(trial.run(&trial.shell(&script)).expect("run"), Exit::Code(0), "{file}");
    }
    let through_descriptor = trial.shell("! head -c 1 /proc/$PPID/fd/0 && ! readlink /proc/$PPID/fd/0");
    assert_eq!(trial.run(&through_descriptor).expect("run"), Exit::Code(0));
}

#[test]
fn only_the_machines_own_root_can_be_run_in() {
    let trial = trial();
    let elsewhere = Root::open(trial.place.path()).expect("opened");
    let refused = run(&command(&["true"]), &elsewhere, &trial.supervisor);
    assert!(matches!(refused, Err(Error::NotInPlace { .. })));
}

/// `kubectl exec` and many a CI start us so: our session then has the number 0.
#[test]
#[expect(clippy::print_stderr, reason = "a skip prints its reason")]
fn the_leader_of_our_session_may_be_outside_our_pid_namespace() {
    let within = |program: &std::ffi::OsStr, arguments: &[&str]| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]).arg(program).args(arguments);
        unshare.output()
    };
    if !within("true".as_ref(), &[]).is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no PID namespace may be made");
    }
    let ourselves = std::env::current_exe().expect("ourselves");
    let module = "run::command::tests::";
    let tests = ["exits", "nothing_is_left_running_but_what_is_not_the_commands", "a_signal_to_us_ends_the_command"];
    for test in tests {
        let output = within(ourselves.as_os_str(), &["--exact", &format!("{module}{test}")]).expect("it ran before");
        let told = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains("1 passed"), "{test}: {told}{errors}");
    }
}
