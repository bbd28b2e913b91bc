//! Builders in turn, workload by workload: first the images are compared, then the figures are told.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Error;
use super::builder::{Builder, Task};
use super::cgroup::{Cgroup, Controller};
use super::command::run as run_command;
use super::engine::{Engine, State};
use super::flags::{Builds, Format};
use super::image::Image;
use super::interrupt::Interrupts;
use super::measure::{Cost, measure};
use super::registry::Registry;
use super::report::{Comparison, Figures, Outcome};
use super::workload::{WORKLOADS, Workload};

/// Differences of images that an error shows.
const MOST_DIFFERENCES: usize = 5;
/// The base in the registry.
const BASE: &str = "harness/base:1";

/// Compares as it was asked to.
pub(super) fn run(wanted: &Builds, out: &mut impl Write) -> Result<(), Error> {
    let builders = builders(wanted)?;
    let is_wanted =
        |workload: &&Workload| wanted.workloads.is_empty() || wanted.workloads.iter().any(|name| name == workload.name);
    let place = Place::prepare(wanted, &builders)?;
    let mut comparison = Comparison::new(wanted, &builders);
    let is_table = wanted.format == Format::Table;
    let mut print = |text: String| out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Print);
    if is_table {
        print(comparison.head())?;
    }
    for workload in WORKLOADS.iter().filter(is_wanted) {
        let outcome = place.compare(workload, wanted, &builders)?;
        if is_table {
            print(comparison.rows(&outcome))?;
        }
        comparison.outcomes.push(outcome);
    }
    let json = comparison.json();
    if let Some(path) = &wanted.json {
        fs::write(path, &json).map_err(|source| Error::file("write", path, source))?;
    }
    if is_table { Ok(()) } else { print(json) }
}

/// The builders, the one that ratios are taken to last.
fn builders(wanted: &Builds) -> Result<Vec<Builder>, Error> {
    let mut builders = wanted.builders.iter().map(|text| Builder::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let fault = |text: &str, fault: &str| Error::Builder { text: text.to_owned(), fault: fault.to_owned() };
    for (number, builder) in builders.iter().enumerate() {
        if builders[..number].iter().any(|other| other.name == builder.name) {
            return Err(fault(&builder.name, "it is named twice"));
        }
        if builder.is_kanna() && wanted.executor.is_none() {
            return Err(fault(&builder.name, "--executor says which program to measure"));
        }
    }
    if let Some(name) = &wanted.baseline {
        let found = builders.iter().position(|builder| builder.name == *name);
        let found = found.ok_or_else(|| fault(name, "--baseline names none of the builders"))?;
        let baseline = builders.remove(found);
        builders.push(baseline);
    }
    Ok(builders)
}

/// Where builders build.
struct Place {
    engine: Engine,
    interrupts: Interrupts,
    work: TempDir,
    _short: TempDir,
}

/// One builder on one workload.
struct Measured {
    costs: Vec<Cost>,
    image: Image,
}

impl Place {
    fn prepare(wanted: &Builds, builders: &[Builder]) -> Result<Place, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Needs { what: "containers with storage and a cgroup of their own need root".into() });
        }
        let top = fs::create_dir_all(&wanted.work).and_then(|()| fs::canonicalize(&wanted.work));
        let top = top.map_err(|source| Error::file("make", &wanted.work, source))?;
        let fault = |source| Error::file("make a folder in", &top, source);
        let work = tempfile::Builder::new().prefix("harness-").tempdir_in(&top).map_err(fault)?;
        let short = tempfile::Builder::new().prefix("kanna-").tempdir().map_err(fault)?;
        let interrupts = Interrupts::catch()?;
        let engine = Engine::at(work.path(), short.path());
        engine.configure()?;
        for archive in &wanted.archives {
            engine.load(archive)?;
        }
        if let Some(executor) = wanted.executor.as_ref().filter(|_| builders.iter().any(Builder::is_kanna)) {
            engine.import_executor(executor)?;
        }
        Ok(Place { engine, interrupts, work, _short: short })
    }

    fn compare(&self, workload: &Workload, wanted: &Builds, builders: &[Builder]) -> Result<Outcome, Error> {
        let fault = |source| Error::file("make a folder in", self.work.path(), source);
        let folder = tempfile::tempdir_in(self.work.path()).map_err(fault)?;
        let registry = Registry::start(folder.path())?;
        let base = format!("{}/{BASE}", registry.address);
        let layout = folder.path().join("base");
        workload.write_base(&layout, &wanted.sizes)?;
        registry.push(&layout, &base)?;
        fs::remove_dir_all(&layout).map_err(|source| Error::file("remove", &layout, source))?;
        let context = folder.path().join("context");
        workload.write_context(&context, &base, &wanted.sizes)?;
        // what was written above would otherwise be written back while somebody's time is taken
        run_command(&mut Command::new("sync"))?;
        let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
        let mut images = BTreeMap::new();
        // removed together at the end: after many files were removed, a file system is slow for a while
        let mut states = Vec::new();
        for round in 0..wanted.repeat {
            // each begins once, the one that ratios are taken to first: what a build leaves to the machine, the next one pays for
            let turn = builders.iter().rev().cycle().skip(round as usize % builders.len()).take(builders.len());
            for builder in turn {
                // a repository of its own each time: what a build pushes is pushed by every build
                let destination = format!("{}/harness/{}-{round}:1", registry.address, builder.name);
                let build = Build { builder, context: &context, destination: &destination, registry: &registry };
                tracing::debug!("{}: {} builds {destination}", workload.name, builder.name);
                let state = State::within(folder.path())?;
                let cost = self.build(&build, wanted, &state)?;
                states.push(state);
                costs.entry(&builder.name).or_default().push(cost);
                images.insert(&builder.name, destination);
            }
        }
        drop(states);
        self.engine.remove_containers()?;
        let blobs_of_base = Image::read(&registry.pull(&base)?.1)?.blobs;
        let mut measured = Vec::new();
        for builder in builders {
            let (folder, layout) = registry.pull(&images[&builder.name])?;
            let image = Image::read(&layout)?;
            drop(folder);
            measured.push(Measured { costs: costs.remove(builder.name.as_str()).unwrap_or_default(), image });
        }
        agree(workload, builders, &measured)?;
        let figures = builders.iter().zip(&measured);
        let figures = figures.map(|(builder, one)| Figures::new(builder, &one.costs, &one.image, &blobs_of_base));
        let paths = measured.first().map_or(0, |one| one.image.paths());
        Ok(Outcome { name: workload.name, about: workload.about(&wanted.sizes), paths, figures: figures.collect() })
    }

    fn build(&self, build: &Build<'_>, wanted: &Builds, state: &State) -> Result<Cost, Error> {
        let label = state.path().file_name().expect("it has a name of its own").to_string_lossy();
        let cgroup = Cgroup::create(Controller::Cpu, &label)?;
        let task = Task {
            context: build.context,
            destination: build.destination,
            registry: &build.registry.address,
            state: state.path(),
            cgroup: &cgroup.name,
        };
        let mut words = build.builder.command(&task, &self.engine);
        if !build.builder.is_contained() {
            words = cgroup.entered_by(words);
        }
        let command = self.engine.command(&words, state)?;
        let limit = Duration::from_secs(wanted.limit);
        measure(command, &cgroup, &build.builder.process, state.path(), limit, &self.interrupts)
    }
}

struct Build<'a> {
    builder: &'a Builder,
    context: &'a Path,
    destination: &'a str,
    registry: &'a Registry,
}

/// Figures of builders that did not do the same work mean nothing.
fn agree(workload: &Workload, builders: &[Builder], measured: &[Measured]) -> Result<(), Error> {
    for (builder, one) in builders.iter().zip(measured).skip(1) {
        let differences = measured[0].image.differences(&one.image);
        if !differences.is_empty() {
            return Err(Error::Differ {
                workload: workload.name,
                one: builders[0].name.clone(),
                other: builder.name.clone(),
                count: differences.len(),
                paths: differences[..differences.len().min(MOST_DIFFERENCES)].join("\n"),
            });
        }
    }
    Ok(())
}
