//! The harness on builds so small that their figures mean nothing: what is tested is that they are taken, told, and
//! refused where the builders did not do the same work.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{Ended, run_within};
use crate::support::podman::Podman;
use crate::support::{folder, skip};

/// Eight workloads with three builders take half a minute on two idle cores.
const LIMIT: Duration = Duration::from_secs(900);

fn harness(arguments: &[&str]) -> Ended {
    run_within(Command::new(env!("CARGO_BIN_EXE_harness")).args(arguments), LIMIT)
}

/// Compares with tiny sizes; nothing where containers cannot be started.
fn compare(name: &str, arguments: &[&str]) -> Option<Ended> {
    Podman::probe().map_err(|reason| skip("containers", &reason)).ok()?;
    let work = folder("harness").join(name);
    fs::create_dir_all(&work).expect("created");
    let work = work.to_str().expect("cargo's folder is text");
    let fixed = ["builds", "--executor", env!("CARGO_BIN_EXE_executor"), "--work", work, "--repeat=1"];
    let sizes = ["--files=120", "--new-files=130", "--file-bytes=50", "--data-mib=2", "--runs=3", "--changes=2"];
    let arguments: Vec<&str> = fixed.iter().chain(&sizes).chain(arguments).copied().collect();
    let ended = harness(&arguments);
    let left: Vec<_> =
        fs::read_dir(work).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(left.is_empty(), "left behind: {left:?}\n{}", ended.stderr);
    Some(ended)
}

#[test]
fn every_workload_is_built_compared_and_told() {
    let json = folder("harness").join("figures.json");
    let json_path = json.to_str().expect("cargo's folder is text");
    let builders = ["kanna", "kanna-isolated", "buildah"];
    let named = builders.map(|name| format!("--builder={name}"));
    let arguments: Vec<&str> = named.iter().map(String::as_str).chain(["--json", json_path]).collect();
    let Some(ended) = compare("every", &arguments) else { return };
    let ended = ended.success("harness builds");
    let told: Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    let workloads = told["workloads"].as_array().expect("an array");
    let names: Vec<&str> = workloads.iter().filter_map(|workload| workload["workload"].as_str()).collect();
    let all = ["few-changes", "new-files", "chown", "remove", "untar-over", "copy", "data", "copy-from"];
    assert_eq!(names, all);
    for (name, workload) in names.iter().zip(workloads) {
        for (builder, wanted) in builders.iter().enumerate() {
            let figures = &workload["builders"][builder];
            assert_eq!(figures["builder"], *wanted, "{name}");
            assert_eq!(figures["layers"], if *name == "few-changes" { 3 } else { 1 }, "{name}: {figures}");
            for what in ["wall_seconds", "cpu_seconds", "user_seconds", "system_seconds", "peak_bytes"] {
                assert!(figures["median"][what].as_f64() > Some(0.0), "{name}: {what}: {figures}");
            }
            assert!(figures["pushed_bytes"].as_u64() > Some(500), "{name}: {figures}");
        }
        let cpu = |builder: usize| workload["builders"][builder]["median"]["cpu_seconds"].as_f64().expect("a number");
        for (builder, measured) in builders[..2].iter().enumerate() {
            let ratio = workload["ratios"][builder]["cpu"].as_f64().expect("a number");
            assert!((ratio - cpu(builder) / cpu(2)).abs() < 1e-9, "{name}");
            let row = format!("| {} | **{measured} / buildah** |", workload["about"].as_str().expect("a text"));
            assert!(ended.stdout.contains(&row), "{row}\n{}", ended.stdout);
        }
    }
    let paths =
        |name: &str| workloads.iter().find(|one| one["workload"] == name).map(|one| one["agreeing_paths"].as_u64());
    assert!(paths("chown").flatten() > Some(120) && paths("remove").flatten() < Some(20), "{told:#}");
}

#[test]
fn builders_that_differ_get_no_figures() {
    let wrong = "wrong@executor={container} {kanna} --ignore-path=/new/rest";
    let Some(ended) = compare("differ", &["--workload=new-files", "--builder=kanna", "--builder", wrong]) else {
        return;
    };
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("new-files: the images of kanna and wrong differ in 31 paths"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\n  /new/rest: Some"), "{}", ended.stderr);
    assert!(!ended.stdout.contains("a RUN that makes"), "{}", ended.stdout);
}

#[test]
fn a_build_that_takes_too_long_is_ended() {
    let slow = ["--workload=new-files", "--builder", "slow@sleep=sh -c 'sleep 1000 & wait'", "--limit=1"];
    let Some(ended) = compare("slow", &slow) else { return };
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("ended after 1 seconds"), "{}", ended.stderr);
}

#[test]
fn a_signal_ends_the_build_and_leaves_nothing() {
    if let Err(reason) = Podman::probe() {
        return skip("containers", &reason);
    }
    let work = folder("harness").join("signal");
    fs::create_dir_all(&work).expect("created");
    let started = work.join("../signal-started");
    let _ = fs::remove_file(&started);
    let builder = format!("slow@sleep=sh -c 'echo >{} && sleep 1000'", started.display());
    let mut harness = Command::new(env!("CARGO_BIN_EXE_harness"));
    harness.args(["builds", "--workload=new-files", "--builder", &builder, "--work"]).arg(&work);
    let mut harness = harness.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started");
    let deadline = Instant::now() + LIMIT;
    while !started.exists() && harness.try_wait().expect("a child of ours").is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let id = Pid::from_child(&harness);
    kill_process(id, Signal::TERM).expect("it runs");
    let output = harness.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + Signal::TERM.as_raw()), "{said}");
    assert!(said.contains("ended by signal 15"), "{said}");
    assert_eq!(fs::read_dir(&work).expect("a folder").count(), 0, "left behind");
}

#[test]
fn a_snapshot_of_a_few_changes_tells_what_it_cost() {
    let work = folder("harness").join("snapshot");
    let arguments = ["snapshot", "--files=500,1500", "--changes=3", "--repeat=2", "--work"];
    let work_path = work.to_str().expect("cargo's folder is text");
    let told = harness(&[&arguments[..], &[work_path]].concat()).success("harness snapshot").stdout;
    let rows: Vec<Vec<&str>> = told.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let counts = |files: &str, tracker: &str| -> Vec<u64> {
        let row = rows.iter().find(|row| row.get(1..3) == Some(&[files, tracker])).unwrap_or_else(|| panic!("{told}"));
        row[6..11].iter().map(|count| count.parse().expect("a count")).collect()
    };
    // every path is looked at: files, their folders (25 files each, four of them in a package), and the root
    assert_eq!(counts("500", "walk"), [0, 1 + 500 + 20 + 5, 0, 1 + 20 + 5, 3], "{told}");
    assert_eq!(counts("1500", "walk"), [0, 1 + 1500 + 60 + 15, 0, 1 + 60 + 15, 3], "{told}");
    for tracker in ["inotify", "fanotify for each directory", "fanotify for the file system"] {
        let (few, many) = (counts("500", tracker), counts("1500", tracker));
        if few[0] == 0 {
            skip(tracker.split(' ').next().unwrap_or(tracker), "the kernel refuses to watch");
            continue;
        }
        assert_eq!(few[1..], many[1..], "as many changes, as much work: {told}");
        assert!(many[1] < 20 && many[3] == 0, "{told}");
    }
    assert_eq!(fs::read_dir(&work).expect("a folder").count(), 0, "left behind");
}

#[test]
fn what_being_watched_costs_a_command() {
    let work = folder("harness").join("tracking");
    let work_path = work.to_str().expect("cargo's folder is text");
    let told =
        harness(&["tracking", "--files=100", "--repeat=1", "--work", work_path]).success("harness tracking").stdout;
    for command in ["tar into a new directory", "tar over what is there", "append", "touch -m", "chown -R", "rm -rf"] {
        let rows = told.lines().filter(|line| line.starts_with(&format!("| {command}")));
        assert_eq!(rows.count(), 4, "{command}: {told}");
    }
    assert!(
        told.lines().any(|line| line.starts_with("| tar into a new directory | inotify") && line.contains("swept"))
    );
    assert_eq!(fs::read_dir(&work).expect("a folder").count(), 0, "left behind");
}

#[test]
fn what_stages_at_the_same_time_gain() {
    if !rustix::process::geteuid().is_root() {
        return skip("namespaces", "only root may surely make them");
    }
    let work = folder("harness").join("stages");
    let work_path = work.to_str().expect("cargo's folder is text");
    let executor = env!("CARGO_BIN_EXE_executor");
    let small = ["stages", "--executor", executor, "--stages=3", "--iterations=10", "--repeat=1", "--work", work_path];
    let told = harness(&small).success("harness stages").stdout;
    let rows: Vec<&str> = told.lines().filter(|line| line.starts_with("| 1 |") || line.starts_with("| 2 |")).collect();
    assert!(rows.len() == 2 && rows[0].ends_with("| 1.00 |"), "{told}");
    assert_eq!(fs::read_dir(&work).expect("a folder").count(), 0, "left behind");
}

#[test]
fn a_path_of_the_index_takes_at_most_170_bytes() {
    let told = harness(&["index", "--files=20000"]).success("harness index").stdout;
    let line = told.lines().find_map(|line| line.strip_prefix("bytes a path, asked for: ")).expect("it is told");
    assert!(line.parse::<f64>().is_ok_and(|bytes| bytes > 96.0 && bytes <= 170.0), "{told}");
}

#[test]
fn help_says_how_to_add_builders() {
    let help = harness(&["builds", "--help"]).success("help").stdout;
    for wanted in ["kaniko@executor={container}", "buildkit@buildkitd={container}", "{destination}", "--baseline"] {
        assert!(help.contains(wanted), "{wanted}\n{help}");
    }
    let refused = harness(&["builds", "--builder=kaniko"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("NAME@PROCESS=COMMAND"), "{}", refused.stderr);
}
