//! `make demo` as it is typed, with the executor of this build: by root, by a plain user, in a privileged container.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::command::{Ended, run, run_within};
use crate::support::machine::Machine;
use crate::support::podman::Podman;
use crate::support::skip;

/// It takes some seconds.
const LIMIT: Duration = Duration::from_secs(180);

#[track_caller]
fn assert_page(ended: &Ended, result: &Path) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    for part in ["\nweb\n", "<p>Hello, everybody.</p>", "site, an OCI layout"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let left: Vec<_> = fs::read_dir(result).expect("read").map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(left, ["site"]);
    assert!(result.join("site/index.json").exists());
}

/// The demo where every user can read it.
fn demo(machine: &Machine) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    run(Command::new("cp").arg("-r").arg(source).arg(machine.path("examples")));
    machine.path("examples/demo/run.sh").to_str().expect("UTF-8").to_owned()
}

#[test]
fn the_demo_ends_with_a_page() {
    let Some(machine) = Machine::new() else { return };
    let script = demo(&machine);
    let (of_root, of_user) = (machine.path("of-root"), machine.own("of-user"));
    let call = |command: &mut Command, result: &Path| {
        run_within(command.arg(&script).env("EXECUTOR", machine.path("executor")).env("RESULT", result), LIMIT)
    };
    assert_page(&call(&mut Command::new("env"), &of_root), &of_root);
    assert_page(&call(&mut Machine::user(&of_user, Some(&machine.path("ids"))), &of_user), &of_user);
}

/// The container has this machine's programs, and nothing that an engine would need.
#[test]
fn the_demo_in_a_privileged_container() {
    let podman = match Podman::probe() {
        Ok(podman) => podman,
        Err(reason) => return skip("containers", &reason),
    };
    let Some(machine) = Machine::new() else { return };
    let script = demo(&machine);
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["bin", "lib", "lib64", "sbin"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, name, format!("usr/{name}")).expect("a Vec takes all");
    }
    let image = "localhost/programs:1";
    podman.import(&tar.into_inner().expect("a Vec takes all"), &[], image).expect("imported");
    let place = machine.path("");
    let mut command = podman.run_container(LIMIT);
    command
        .args([
            "--privileged",
            "--tmpfs=/tmp",
            "--volume=/usr:/usr:ro",
            "--volume=/etc/alternatives:/etc/alternatives:ro",
        ])
        .arg(format!("--volume={0}:{0}", place.display()))
        .arg(format!("--env=EXECUTOR={}", machine.path("executor").display()))
        .arg(format!("--env=RESULT={}", machine.path("result").display()))
        .args([image, &script]);
    assert_page(&run_within(&mut command, LIMIT), &machine.path("result"));
}
