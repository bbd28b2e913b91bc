//! What is gained by building independent stages at the same time: stages of equal work in the isolated root, with `--jobs=1`
//! and with more, in turn.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::UsageWho;

use super::Error;
use super::command::run as run_command;
use super::flags::Stages as Wanted;
use super::report::median;
use super::snapshots::cpu_milliseconds_of;

/// What the stages run; static, so that it needs nothing else.
const BUSYBOX: &str = "/bin/busybox";

/// What one build cost.
struct Cost {
    wall_seconds: f64,
    cpu_seconds: f64,
}

/// Builds in turn, sees that the image is the same each time, and prints what it cost.
pub(super) fn run(wanted: &Wanted, out: &mut impl Write) -> Result<(), Error> {
    let fault = |source| Error::file("make a folder in", &wanted.work, source);
    fs::create_dir_all(&wanted.work).map_err(fault)?;
    let place = tempfile::Builder::new().prefix("harness-").tempdir_in(&wanted.work).map_err(fault)?;
    let trial = Trial::prepare(wanted, place.path())?;
    let jobs = [1, wanted.jobs];
    let mut costs = [Vec::new(), Vec::new()];
    let mut first = None;
    for round in 0..wanted.repeat as usize {
        // each round begins with the other one
        for turn in [round % 2, (round + 1) % 2] {
            let (cost, digest) = trial.build(jobs[turn])?;
            if *first.get_or_insert_with(|| digest.clone()) != digest {
                return Err(Error::OtherImage { jobs: jobs[turn] });
            }
            costs[turn].push(cost);
        }
    }
    out.write_all(table(wanted, jobs, &costs).as_bytes()).and_then(|()| out.flush()).map_err(Error::Print)
}

/// A context, and who builds it.
struct Trial<'a> {
    executor: &'a Path,
    context: PathBuf,
    work: PathBuf,
    digest: PathBuf,
}

impl Trial<'_> {
    fn prepare<'a>(wanted: &'a Wanted, place: &Path) -> Result<Trial<'a>, Error> {
        let (context, busybox) = (place.join("context"), Path::new(BUSYBOX));
        fs::create_dir(&context).map_err(|source| Error::file("make", &context, source))?;
        fs::copy(busybox, context.join("busybox")).map_err(|source| Error::file("copy the static", busybox, source))?;
        let file = context.join("Dockerfile");
        fs::write(&file, dockerfile(wanted)).map_err(|source| Error::file("write", &file, source))?;
        Ok(Trial { executor: &wanted.executor, context, work: place.join("work"), digest: place.join("digest") })
    }

    fn build(&self, jobs: u32) -> Result<(Cost, String), Error> {
        let mut command = Command::new(self.executor);
        command
            .arg(format!("--context={}", self.context.display()))
            .arg(format!("--dockerfile={}", self.context.join("Dockerfile").display()))
            .arg(format!("--kaniko-dir={}", self.work.display()))
            .arg(format!("--digest-file={}", self.digest.display()))
            .arg(format!("--jobs={jobs}"))
            .args(["--isolation=namespaces", "--no-push", "--reproducible"]);
        let (began, used) = (Instant::now(), cpu_milliseconds_of(UsageWho::RUSAGE_CHILDREN));
        run_command(&mut command)?;
        let cost = Cost {
            wall_seconds: began.elapsed().as_secs_f64(),
            cpu_seconds: (cpu_milliseconds_of(UsageWho::RUSAGE_CHILDREN) - used) / 1000.0,
        };
        let digest = fs::read_to_string(&self.digest);
        Ok((cost, digest.map_err(|source| Error::file("read", &self.digest, source))?))
    }
}

/// Stages that count, and one that takes what they counted.
fn dockerfile(wanted: &Wanted) -> String {
    let count = format!("i=0; while [ $i -lt {} ]; do i=$((i+1)); done; echo $i >/counted", wanted.iterations);
    let stage = |number: u32| {
        format!(
            "FROM scratch AS stage{number}\nCOPY busybox {BUSYBOX}\nRUN [\"{BUSYBOX}\", \"sh\", \"-c\", \"{count}\"]\n"
        )
    };
    let copy = |number: u32| format!("COPY --from=stage{number} /counted /{number}\n");
    let stages: String = (0..wanted.stages).map(stage).collect();
    stages + "FROM scratch\n" + &(0..wanted.stages).map(copy).collect::<String>()
}

fn table(wanted: &Wanted, jobs: [u32; 2], costs: &[Vec<Cost>; 2]) -> String {
    let of = |turn: usize, value: fn(&Cost) -> f64| median(costs[turn].iter().map(value).collect());
    let single = of(0, |cost| cost.wall_seconds);
    let mut text = format!(
        "{} stages that count to {}; medians of {}\n\n| jobs | wall s | CPU s | wall / one job |\n{}|\n",
        wanted.stages,
        wanted.iterations,
        wanted.repeat,
        "|---".repeat(4)
    );
    for (turn, jobs) in jobs.iter().enumerate() {
        let (wall, cpu) = (of(turn, |cost| cost.wall_seconds), of(turn, |cost| cost.cpu_seconds));
        text += &format!("| {jobs} | {wall:.2} | {cpu:.2} | {:.2} |\n", wall / single);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_do_not_wait_for_each_other() {
        let wanted =
            Wanted { executor: "executor".into(), stages: 2, jobs: 2, iterations: 7, repeat: 1, work: "target".into() };
        let text = dockerfile(&wanted);
        assert_eq!(text.matches("FROM scratch").count(), 3);
        assert!(text.contains("\"i=0; while [ $i -lt 7 ]; do") && text.ends_with("COPY --from=stage1 /counted /1\n"));
        let cost = |wall_seconds| Cost { wall_seconds, cpu_seconds: 4.0 };
        let told = table(&wanted, [1, 2], &[vec![cost(4.0)], vec![cost(2.0)]]);
        assert!(told.ends_with("| 1 | 4.00 | 4.00 | 1.00 |\n| 2 | 2.00 | 4.00 | 0.50 |\n"), "{told}");
    }
}
