//! Builds and pushes that end in the middle, by a signal or because a disk is full: whatever the point was, nothing is left
//! that is half of something, and the next build in the same place makes the right image.
//!
//! What `make test-long` does at a hundred points, the usual run does at some.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kanna::oci::Digest;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{Ended, run_within};
use crate::support::flat;
use crate::support::http::Request;
use crate::support::machine::{LIMIT, assert_nothing_left};
use crate::support::proxy::{Fault, Harm, Proxy};
use crate::support::workshop::Workshop;

/// Builds at the same time.
const AT_ONCE: usize = 2;
/// How many points are tried where there is time.
const ALL: usize = 100;
/// How many of them when there is not.
const SOME: usize = 8;
const SIGNALS: [Signal; 2] = [Signal::KILL, Signal::TERM];

/// Stages beside and on each other, many files and a large one, removals, commands that fail where they cannot write, and
/// nothing that depends on when or where.
const DOCKERFILE: &str = "\
FROM busybox:base AS many
RUN mkdir /many && cd /many && for number in $(seq 300); do echo $number > $number || exit 1; done
FROM busybox:base AS large
COPY large /
RUN cp /large /copied
FROM many AS fewer
RUN rm -r /many/1* && ln /many/2 /many/again
FROM busybox:base
COPY --from=fewer /many /many
COPY --from=large /copied /copied
RUN mv /copied /moved && chown -R 7:8 /many
";

/// What does not become small in a layer.
const LARGE_BYTES: usize = 600_000;

fn large() -> Vec<u8> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(1), next).map(|state| state.to_be_bytes()[0]).take(LARGE_BYTES).collect()
}

fn context(workshop: &Workshop) -> PathBuf {
    let context = workshop.machine.context("context", DOCKERFILE);
    fs::write(context.join("large"), large()).expect("written");
    context
}

/// Everything that a build leaves where it ends well.
struct Site<'a> {
    workshop: &'a Workshop,
    context: &'a Path,
    name: String,
    home: PathBuf,
}

impl<'a> Site<'a> {
    fn new(workshop: &'a Workshop, context: &'a Path, name: &str) -> Site<'a> {
        Site { workshop, context, name: name.to_owned(), home: workshop.machine.own(name) }
    }

    /// The build, which pushes by way of `host`.
    fn command(&self, host: &str) -> Command {
        let destination = format!("{host}/result/{}:1", self.name);
        let mut command = self.workshop.command(&self.home, self.context, self.workshop.registry.host(), &destination);
        command
            .arg(format!("--tar-path={}", self.output("image.tar").display()))
            .arg(format!("--oci-layout-path={}", self.output("layout").display()));
        command
    }

    fn output(&self, name: &str) -> PathBuf {
        self.home.join("outputs").join(name)
    }

    /// Starts the build, ends it with `signal` once `is_time`, and waits for it and for all that it had started.
    fn interrupt(&self, host: &str, signal: Signal, is_time: impl Fn(Instant) -> bool) -> ExitStatus {
        let mut command = self.command(host);
        let log = fs::File::create(self.home.join("log")).expect("created");
        let [out, err] = [&log; 2].map(|log| log.try_clone().expect("a second handle"));
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("started");
        while !is_time(begun) {
            if let Some(ended) = child.try_wait().expect("a child of ours") {
                return ended;
            }
            assert!(begun.elapsed() < LIMIT, "{}: its time does not come: {}", self.name, self.log());
            thread::sleep(Duration::from_millis(1));
        }
        let started = descendants(child.id());
        kill_process(Pid::from_child(&child), signal).expect("a child of ours that was not waited for");
        let ended = child.wait().expect("a child of ours");
        while let Some(living) = started.iter().find(|process| process.lives()) {
            assert!(begun.elapsed() < LIMIT, "{}: {living:?} is still there: {}", self.name, self.log());
            thread::sleep(Duration::from_millis(1));
        }
        ended
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Runs the build to its end.
    fn build(&self) -> Digest {
        run_within(&mut self.command(self.workshop.registry.host()), LIMIT).success(&self.name);
        assert_nothing_left(&self.home);
        let digest = fs::read_to_string(self.home.join("digest")).expect("written");
        let digest = digest.parse().expect("a digest");
        assert_eq!(self.workshop.tag(&format!("result/{}:1", self.name)), Some(digest), "{}", self.name);
        digest
    }

    /// What is there after an interruption is whole.
    fn assert_whole(&self, right: &Right) {
        let own = self.home.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a proc file system");
        assert!(!mounts.contains(&own), "{}: {mounts}", self.name);
        let pushed = self.workshop.tag(&format!("result/{}:1", self.name));
        assert!(pushed.is_none_or(|digest| digest == right.image), "{}: {pushed:?}", self.name);
        right.outputs_are_whole(&self.home.join("outputs"), &self.name);
        if let Ok(digest) = fs::read_to_string(self.home.join("digest")) {
            assert_eq!(digest, right.image.to_string(), "{}", self.name);
        }
    }

    /// The next build is as good as any, and leaves nothing of the one before.
    fn assert_next_is_right(&self, right: &Right) {
        assert_eq!(self.build(), right.image, "{}", self.name);
        assert_eq!(left_in(&self.home), [".cache", "digest", "log", "outputs"], "{}", self.name);
        assert_eq!(left_in(&self.home.join("outputs")), ["image.tar", "layout"], "{}", self.name);
        assert_eq!(left_in(&self.output("layout")), ["blobs", "index.json", "oci-layout"], "{}", self.name);
        right.outputs_are_whole(&self.home.join("outputs"), &self.name);
        fs::remove_dir_all(&self.home).expect("removed");
    }
}

/// A process, known again by the time of its start.
#[derive(Debug)]
struct Process {
    number: u32,
    parent: u32,
    began: u64,
    is_dead: bool,
}

impl Process {
    /// `None` for one that is no more.
    fn read(number: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // behind the name, which may hold anything (proc(5))
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let [state, parent, began] = [0, 1, 19].map(|at| fields[at]);
        Some(Process {
            number,
            parent: parent.parse().ok()?,
            began: began.parse().ok()?,
            is_dead: matches!(state, "Z" | "X"),
        })
    }

    fn lives(&self) -> bool {
        Process::read(self.number).is_some_and(|now| now.began == self.began && !now.is_dead)
    }
}

/// What a process has started, and what that has.
fn descendants(of: u32) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").expect("a proc file system").flatten();
    let all = numbers.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?));
    let mut all: Vec<Process> = all.collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        let (children, others) = all.into_iter().partition(|process| process.parent == parent);
        all = others;
        let children: Vec<Process> = children;
        parents.extend(children.iter().map(|child| child.number));
        found.extend(children);
    }
    found
}

fn left_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a build makes that nobody disturbs.
struct Right {
    image: Digest,
    /// Of the layout's `index.json`.
    index: Digest,
    took: Duration,
}

impl Right {
    fn of(workshop: &Workshop, context: &Path) -> Right {
        let site = Site::new(workshop, context, "undisturbed");
        let begun = Instant::now();
        let image = site.build();
        let took = begun.elapsed();
        let index = Digest::of(&fs::read(site.output("layout/index.json")).expect("read"));
        Right { image, index, took }
    }

    /// Files that have their names are what they shall be.
    fn outputs_are_whole(&self, outputs: &Path, name: &str) {
        let is_right = |file: &str, right: &Digest| match fs::read(outputs.join(file)) {
            Ok(bytes) => assert_eq!(Digest::of(&bytes), *right, "{name}: {file}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}: {file}"),
        };
        let tarball = outputs.join("image.tar");
        if tarball.exists() {
            let image = flat::read_tarball(&tarball).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!(image.has("/moved") && image.has("/many/again"), "{name}");
        }
        is_right("layout/index.json", &self.index);
        is_right("layout/oci-layout", &Digest::of(br#"{"imageLayoutVersion":"1.0.0"}"#));
        let blobs = outputs.join("layout/blobs/sha256");
        for blob in left_in(&blobs).iter().filter(|blob| !blob.starts_with('.')) {
            assert_eq!(Digest::of(&fs::read(blobs.join(blob)).expect("read")).hex(), *blob, "{name}");
        }
    }
}

/// Does `point` for each number below `count`, some at the same time.
fn for_each(count: usize, point: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                for number in
                    std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|at| *at < count)
                {
                    point(number);
                }
            });
        }
    });
}

fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal.as_raw()) || status.code() == Some(128 + signal.as_raw())
}

/// Some of all points with one signal each, by turns.
fn some() -> Vec<(usize, Signal)> {
    (0..SOME).map(|number| (number * (ALL / SOME - 1), SIGNALS[number % 2])).collect()
}

/// All points, each with either signal.
fn all() -> Vec<(usize, Signal)> {
    (0..ALL).flat_map(|point| SIGNALS.map(|signal| (point, signal))).collect()
}

/// How often a build may be done before it is to be ended; the next try is the last.
const TOO_LATE: usize = 4;

/// Ends builds at points of time from their beginning to their end.
fn end_builds(points: &[(usize, Signal)]) {
    let Some(workshop) = Workshop::new() else { return };
    let context = context(&workshop);
    let right = Right::of(&workshop, &context);
    // the least that a build took so far
    let took = Mutex::new(right.took);
    let interrupted = AtomicUsize::new(0);
    for_each(points.len(), |number| {
        let (point, signal) = points[number];
        let end_at_point = |attempt: usize| {
            let site = Site::new(&workshop, &context, &format!("build-{number}-{attempt}"));
            let part = |whole: Duration| whole * u32::try_from(point).expect("small") / ALL as u32;
            let at = part(*took.lock().expect("not poisoned"));
            let start = Instant::now();
            let ended = site.interrupt(workshop.registry.host(), signal, |begun| begun.elapsed() >= at);
            if ended.success() {
                let mut took = took.lock().expect("not poisoned");
                *took = start.elapsed().min(*took);
            }
            (site, ended)
        };
        let mut attempts = (0..TOO_LATE).map(end_at_point);
        let (site, ended) = attempts.find(|(_, ended)| !ended.success()).unwrap_or_else(|| end_at_point(TOO_LATE));
        assert!(ended.success() || ended_by(ended, signal), "{number}: {ended}: {}", site.log());
        interrupted.fetch_add(usize::from(!ended.success()), Ordering::Relaxed);
        if signal == Signal::TERM && ended.code().is_some() {
            assert_nothing_left(&site.home);
            let outputs = left_in(&site.home.join("outputs"));
            assert!(!outputs.iter().any(|name| name.starts_with('.')), "{number}: {outputs:?}");
        }
        site.assert_whole(&right);
        site.assert_next_is_right(&right);
    });
    let interrupted = interrupted.into_inner();
    println!("{interrupted} of {} builds ended early", points.len());
    assert!(interrupted * 4 >= points.len() * 3, "only {interrupted} of {} were interrupted", points.len());
}

#[test]
fn a_build_may_end_at_any_point() {
    end_builds(&some());
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_build_may_end_at_any_of_a_hundred_points() {
    end_builds(&all());
}

/// Moments of a request at which its client is ended: before it, within its body, before its answer.
const MOMENTS: usize = 5;

/// What happens to the request of this number, from which on the client waits.
fn held(moment: usize, request: &Request) -> Fault {
    let length: u64 = request.header("content-length").map_or(0, |length| length.parse().expect("a number"));
    match moment {
        0 => Fault::Held,
        within if within < MOMENTS - 1 => Fault::Request(Harm::HeldAfter(length * within as u64 / 4)),
        _ => Fault::Response(Harm::HeldAfter(0)),
    }
}

/// Ends pushes at moments of the requests that they consist of.
fn end_pushes(points: &[(usize, Signal)]) {
    let Some(workshop) = Workshop::new() else { return };
    let context = context(&workshop);
    let right = Right::of(&workshop, &context);
    let moments = Mutex::new(BTreeSet::new());
    let interrupted = AtomicUsize::new(0);
    for_each(points.len(), |number| {
        let (point, signal) = points[number];
        let proxy = Proxy::start(workshop.registry.host(), move |request, before| {
            (before == point / MOMENTS).then(|| held(point % MOMENTS, request))
        });
        let site = Site::new(&workshop, &context, &format!("push-{number}"));
        let ended = site.interrupt(proxy.host(), signal, |_| proxy.holds());
        assert!(ended.success() || ended_by(ended, signal), "{point}: {ended}: {}", site.log());
        if !ended.success() {
            interrupted.fetch_add(1, Ordering::Relaxed);
            let seen = proxy.seen();
            let request = seen.get(point / MOMENTS).expect("the one that was held");
            moments.lock().expect("not poisoned").insert(request.method.clone());
        }
        site.assert_whole(&right);
        site.assert_next_is_right(&right);
    });
    println!("{} of {} pushes ended early", interrupted.into_inner(), points.len());
    let moments = moments.into_inner().expect("not poisoned");
    for method in ["GET", "HEAD", "POST", "PUT"] {
        assert!(moments.contains(method), "no push ended at a {method}: {moments:?}");
    }
}

#[test]
fn a_push_may_end_at_any_point() {
    // eleven and five have no divisor in common: each moment of some request
    end_pushes(&some());
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_push_may_end_at_any_of_a_hundred_points() {
    end_pushes(&all());
}

/// A build whose work directory and outputs are in `place`.
fn command_in(site: &Site<'_>, place: &Path) -> Command {
    let host = site.workshop.registry.host();
    let destination = format!("{host}/result/{}:1", site.name);
    let mut command = site.workshop.command(&site.home, site.context, host, &destination);
    command
        .arg(format!("--kaniko-dir={}", place.join("work").display()))
        .arg(format!("--tar-path={}", place.join("image.tar").display()))
        .arg(format!("--oci-layout-path={}", place.join("layout").display()));
    command
}

/// A build in a disk of `kibibytes`. What it leaves there is copied to `found`.
fn build_on_small_disk(site: &Site<'_>, kibibytes: u64, found: &Path) -> Ended {
    let script = "\
        disk=$1 found=$2; shift 2
        mount -t tmpfs -o size=${kib}k,mode=755 none \"$disk\" || exit 99
        \"$@\"
        code=$?
        cp -a \"$disk\" \"$found\" || exit 99
        exit $code";
    let disk = site.home.join("disk");
    fs::create_dir(&disk).expect("created");
    let build = command_in(site, &disk);
    let mut command = Command::new("unshare");
    command.current_dir("/").env("kib", kibibytes.to_string()).env("HOME", &site.home);
    command.args(["--mount", "sh", "-c", script, "sh"]).args([&*disk, found]);
    run_within(command.arg(build.get_program()).args(build.get_args()), LIMIT)
}

/// Builds on disks of more and more room, until it is enough. Where it is not, the next build finds more room and what the
/// one before left.
fn fill_disks(points: usize) {
    let Some(workshop) = Workshop::new() else { return };
    let context = context(&workshop);
    let right = Right::of(&workshop, &context);
    let is_enough = |name: &str, kibibytes: u64| {
        let site = Site::new(&workshop, &context, &format!("disk-{name}"));
        let found = site.home.join("found");
        let ended = build_on_small_disk(&site, kibibytes, &found);
        let told = format!("{kibibytes} KiB: {}", ended.stderr);
        let is_whole = || {
            assert_eq!(left_in(&found.join("work")), [""; 0], "{told}");
            assert!(!left_in(&found).iter().any(|name| name.starts_with('.')), "{told}");
            right.outputs_are_whole(&found, &site.name);
        };
        let pushed = || workshop.tag(&format!("result/{}:1", site.name));
        is_whole();
        if ended.code != Some(0) {
            assert_eq!((ended.code, pushed()), (Some(1), None), "{told}");
            let words = ["No space left on device", "the disk has room for"];
            assert!(words.iter().any(|word| ended.stderr.contains(word)), "{told}");
            assert!(!site.home.join("digest").exists(), "{told}");
            run_within(&mut command_in(&site, &found), LIMIT).success(&site.name);
            is_whole();
        }
        assert_eq!(pushed(), Some(right.image), "{told}");
        assert_eq!(left_in(&found), ["image.tar", "layout", "work"], "{told}");
        fs::remove_dir_all(&site.home).expect("removed");
        ended.code == Some(0)
    };
    let sizes = (3..20).map(|power| 1024 << power);
    let enough = { sizes }.find(|kibibytes| is_enough(&format!("of-{kibibytes}"), *kibibytes));
    let enough = enough.expect("half a gibibyte is enough");
    let failures = AtomicUsize::new(0);
    // what is just enough lies between the half of that and all of it
    for_each(points, |point| {
        let kibibytes = enough * (point as u64 + 1) / (points as u64 + 1);
        failures.fetch_add(usize::from(!is_enough(&point.to_string(), kibibytes)), Ordering::Relaxed);
    });
    let failures = failures.into_inner();
    println!("{failures} of {points} disks were too small; {enough} KiB were enough");
    assert!(failures * 3 >= points, "only {failures} of {points} disks were too small");
}

#[test]
fn a_disk_may_be_full_at_any_point() {
    fill_disks(SOME);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_disk_may_be_full_at_any_of_a_hundred_points() {
    fill_disks(ALL);
}
