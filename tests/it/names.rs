//! The registry's name is found after the root was replaced as it was before, whoever brings `/etc/hosts` and
//! `/etc/resolv.conf` into the container.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::support::command::{Ended, run, run_within};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::World;
use crate::support::{layout, skip};

const LIMIT: Duration = Duration::from_secs(180);

/// A name server that answers every question for an IPv4 address with this machine, and has no other answers.
fn name_server() -> Option<Ipv4Addr> {
    // port 53 of an address that no other process is likely to have
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low.clamp(1, 254));
    let socket = UdpSocket::bind((address, 53)).map_err(|error| skip("name server", &error.to_string())).ok()?;
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut question) {
            let answer = answer(&question[..length]);
            // whoever asked may have gone
            let _ = socket.send_to(&answer, asker);
        }
    });
    Some(address)
}

/// RFC 1035, section 4.1, for one question.
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 12;
    let name_bytes = question[HEADER_BYTES..].iter().position(|&byte| byte == 0).expect("the root ends a name") + 1;
    let asked = &question[HEADER_BYTES..HEADER_BYTES + name_bytes + 4];
    let is_for_ipv4 = asked[name_bytes..name_bytes + 2] == [0, 1];
    let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_for_ipv4), 0, 0, 0, 0], asked].concat();
    if is_for_ipv4 {
        // the name as above, type A, class IN, a minute, four bytes
        answer.extend([0xc0, HEADER_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// How the files come into the container.
enum Files {
    /// Mounted, as engines do.
    Mounted(Vec<String>),
    /// As files of the container's own root, which the base's replace.
    Own { resolv_conf: Option<String>, hosts: Option<String> },
}

/// Builds on a base whose files lead nowhere, and pushes to `host`.
fn push(world: &World, name: &str, files: &Files, host: &str) -> Ended {
    let registry = world.registry.host();
    let port = registry.rsplit(':').next().expect("a port");
    let context = world.context(name, &format!("FROM {registry}/library/elsewhere:1\nRUN true\n"));
    let container = format!("kanna-{name}-{}", std::process::id());
    let podman = |arguments: &[&str]| run(world.podman.command().args(arguments));
    let options = match files {
        Files::Mounted(options) => options.clone(),
        Files::Own { .. } => vec!["--dns=none".to_owned(), "--no-hosts".to_owned()],
    };
    let mut create = world.podman.command();
    create
        .args(["create", "--name", &container, "--pull=never", "--network=host", "--log-driver=none"])
        .arg(DOCKER_CAPABILITIES)
        .args(options)
        .arg(format!("--volume={}:/workspace:ro", context.display()))
        .arg(world.podman.executor_image())
        .args(["--context=/workspace", "--insecure", "--insecure-pull", "--skip-push-permission-check"])
        .arg(format!("--destination={host}:{port}/pushed/{name}:1"));
    run(&mut create);
    if let Files::Own { resolv_conf, hosts } = files {
        for (path, content) in [("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)] {
            let Some(content) = content else { continue };
            let file = world.scratch.path().join("file");
            fs::write(&file, content).expect("written");
            podman(&["cp", file.to_str().expect("text"), &format!("{container}:{path}")]);
        }
    }
    let ended = run_within(world.podman.command().args(["start", "--attach", &container]), LIMIT);
    podman(&["rm", "--force", "--time=0", &container]);
    ended
}

/// `library/elsewhere:1`: a program for RUN, and files that speak of another network.
fn base(world: &World) -> PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, content).expect("a Vec takes all");
    };
    append("bin/sh", 0o755, &fs::read("/bin/busybox").expect("the engine's probe has read it"));
    append("etc/hosts", 0o644, b"127.0.0.1 localhost\n192.0.2.1 registry.test\n");
    append("etc/resolv.conf", 0o644, b"nameserver 192.0.2.2\noptions timeout:1 attempts:1\n");
    append("etc/nsswitch.conf", 0o644, b"hosts: nowhere\n");
    let layout = world.scratch.path().join("elsewhere");
    let config = serde_json::json!({"architecture": "amd64", "os": "linux"});
    layout::write(&layout, &tar.into_inner().expect("a Vec takes all"), config);
    layout
}

#[test]
fn names_are_found_after_the_root_was_replaced() {
    let Some(world) = World::new() else { return };
    let Some(server) = name_server() else { return };
    layout::push(&base(&world), &world.registry, "library/elsewhere:1");
    let hosts = || Some("127.0.0.1 localhost registry.test\n".to_owned());
    let resolv_conf = || Some(format!("nameserver {server}\n"));
    let mounted = |options: &[String]| Files::Mounted(options.to_vec());
    for (name, files, host) in [
        ("mounted-hosts", mounted(&["--add-host=registry.test:127.0.0.1".into()]), "registry.test"),
        ("mounted-dns", mounted(&[format!("--dns={server}"), "--no-hosts".into()]), "asked.test"),
        ("own-hosts", Files::Own { resolv_conf: None, hosts: hosts() }, "registry.test"),
        ("own-dns", Files::Own { resolv_conf: resolv_conf(), hosts: None }, "registry.test"),
        ("own-both", Files::Own { resolv_conf: resolv_conf(), hosts: hosts() }, "asked.test"),
    ] {
        let ended = push(&world, name, &files, host).success(name);
        assert!(ended.stderr.contains(&format!("Pushed {host}:")), "{name}: {}", ended.stderr);
    }
    // nobody knows the name, and nobody else is asked
    let nothing = Files::Own { resolv_conf: Some("options timeout:1 attempts:1\n".to_owned()), hosts: None };
    let ended = push(&world, "nothing", &nothing, "registry.test");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("registry.test"), "{}", ended.stderr);
}
