//! Medians and ratios, as a table and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::thread;

use serde_json::{Value, json};

use super::builder::Builder;
use super::flags::{Builds, Sizes};
use super::image::Image;
use super::measure::Cost;
use crate::oci::Digest;

const MIB: f64 = 1024.0 * 1024.0;

/// All that was compared.
pub(super) struct Comparison {
    sizes: Sizes,
    repeat: u32,
    baseline: String,
    pub(super) outcomes: Vec<Outcome>,
}

/// One workload.
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) about: String,
    /// Paths in which the images agree.
    pub(super) paths: usize,
    /// By builder; ratios are taken to the last one.
    pub(super) figures: Vec<Figures>,
}

/// One builder on one workload.
pub(super) struct Figures {
    builder: String,
    costs: Vec<Cost>,
    /// What the image has beyond its base.
    pushed_bytes: u64,
    layers: usize,
}

/// What is told of a builder: medians of its builds.
const COLUMNS: [&str; 7] = ["wall s", "CPU s", "user s", "system s", "peak MiB", "pushed MiB", "layers"];

impl Figures {
    pub(super) fn new(builder: &Builder, costs: &[Cost], image: &Image, base: &[(Digest, u64)]) -> Figures {
        let is_new = |blob: &&(Digest, u64)| !base.iter().any(|(digest, _)| *digest == blob.0);
        let new = || image.blobs.iter().filter(is_new);
        Figures {
            builder: builder.name.clone(),
            costs: costs.to_vec(),
            pushed_bytes: new().map(|(_, size)| size).sum(),
            // the config comes first
            layers: image.blobs.iter().skip(1).filter(is_new).count(),
        }
    }

    /// In the order of [`COLUMNS`].
    fn values(&self) -> [f64; COLUMNS.len()] {
        let of = |value: fn(&Cost) -> f64| median(self.costs.iter().map(value).collect());
        [
            of(|cost| cost.wall_seconds),
            of(|cost| cost.cpu.user + cost.cpu.system),
            of(|cost| cost.cpu.user),
            of(|cost| cost.cpu.system),
            of(|cost| cost.peak_bytes as f64 / MIB),
            self.pushed_bytes as f64 / MIB,
            self.layers as f64,
        ]
    }

    fn json(&self) -> Value {
        let cost = |cost: &Cost| {
            json!({
                "wall_seconds": cost.wall_seconds,
                "user_seconds": cost.cpu.user,
                "system_seconds": cost.cpu.system,
                "peak_bytes": cost.peak_bytes,
            })
        };
        let [wall, cpu, user, system, peak, ..] = self.values();
        json!({
            "builder": self.builder,
            "median": {
                "wall_seconds": wall,
                "cpu_seconds": cpu,
                "user_seconds": user,
                "system_seconds": system,
                "peak_bytes": (peak * MIB).round(),
            },
            "pushed_bytes": self.pushed_bytes,
            "layers": self.layers,
            "builds": self.costs.iter().map(cost).collect::<Vec<_>>(),
        })
    }
}

impl Outcome {
    /// Each builder but the last, with its values divided by those of the last.
    fn ratios(&self) -> Vec<(&Figures, [f64; COLUMNS.len()])> {
        let Some((baseline, others)) = self.figures.split_last() else { return Vec::new() };
        let below = baseline.values();
        let ratio = |figures: &Figures| {
            let mut values = figures.values();
            values.iter_mut().zip(below).for_each(|(value, below)| *value /= below);
            values
        };
        others.iter().map(|figures| (figures, ratio(figures))).collect()
    }
}

impl Comparison {
    pub(super) fn new(wanted: &Builds, builders: &[Builder]) -> Comparison {
        let baseline = builders.last().map(|builder| builder.name.clone()).unwrap_or_default();
        Comparison { sizes: wanted.sizes.clone(), repeat: wanted.repeat, baseline, outcomes: Vec::new() }
    }

    /// What stands above the rows.
    pub(super) fn head(&self) -> String {
        let rule = "|---".repeat(COLUMNS.len() + 2);
        format!(
            "{} CPUs, Linux {}; medians of {}; files of {} bytes; ratios to {}\n\n| workload | builder | {} |\n{rule}|\n",
            cpus(),
            kernel(),
            self.repeat,
            self.sizes.file_bytes,
            self.baseline,
            COLUMNS.join(" | ")
        )
    }

    /// The rows of a workload.
    pub(super) fn rows(&self, outcome: &Outcome) -> String {
        let mut rows = String::new();
        let mut row = |builder: &str, values: [f64; COLUMNS.len()], digits: [usize; COLUMNS.len()]| {
            write!(rows, "| {} | {builder} |", outcome.about).expect("a String takes all");
            for (value, digits) in values.into_iter().zip(digits) {
                // nothing pushed by both is no ratio
                let text = if value.is_finite() { format!("{value:.digits$}") } else { "-".to_owned() };
                write!(rows, " {text} |").expect("a String takes all");
            }
            rows.push('\n');
        };
        for figures in &outcome.figures {
            row(&figures.builder, figures.values(), [2, 2, 2, 2, 0, 2, 0]);
        }
        for (figures, ratios) in outcome.ratios() {
            row(&format!("**{} / {}**", figures.builder, self.baseline), ratios, [2; COLUMNS.len()]);
        }
        rows
    }

    /// Everything, each build by itself too.
    pub(super) fn json(&self) -> String {
        let ratio = |(figures, ratios): (&Figures, [f64; COLUMNS.len()])| {
            let [wall, cpu, user, system, peak, pushed, layers] = ratios;
            json!({
                "builder": figures.builder,
                "wall": wall, "cpu": cpu, "user": user, "system": system, "peak": peak, "pushed": pushed, "layers": layers,
            })
        };
        let outcome = |outcome: &Outcome| {
            json!({
                "workload": outcome.name,
                "about": outcome.about,
                "agreeing_paths": outcome.paths,
                "builders": outcome.figures.iter().map(Figures::json).collect::<Vec<_>>(),
                "ratios": outcome.ratios().into_iter().map(ratio).collect::<Vec<_>>(),
            })
        };
        let sizes = &self.sizes;
        let all = json!({
            "cpus": cpus(),
            "linux": kernel(),
            "repeat": self.repeat,
            "baseline": self.baseline,
            "sizes": {
                "files": sizes.files,
                "new_files": sizes.new_files,
                "file_bytes": sizes.file_bytes,
                "data_mib": sizes.data_mib,
                "runs": sizes.runs,
                "changes": sizes.changes,
            },
            "workloads": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        });
        format!("{all:#}\n")
    }
}

/// The middle value; of an even number of values, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::cgroup::Cpu;

    fn figures(builder: &str, wall: &[f64], pushed_bytes: u64) -> Figures {
        let cost = |&wall_seconds: &f64| Cost {
            wall_seconds,
            cpu: Cpu { user: wall_seconds / 2.0, system: 0.25 },
            peak_bytes: 3 << 20,
        };
        Figures { builder: builder.to_owned(), costs: wall.iter().map(cost).collect(), pushed_bytes, layers: 1 }
    }

    fn comparison(pushed: u64) -> Comparison {
        let sizes = Sizes { files: 1, new_files: 2, file_bytes: 3, data_mib: 4, runs: 5, changes: 6 };
        let figures = vec![figures("kanna", &[9.0, 1.0, 2.0], pushed), figures("buildah", &[4.0, 8.0], pushed)];
        let outcome = Outcome { name: "copy", about: "COPY of 1 files".to_owned(), paths: 7, figures };
        Comparison { sizes, repeat: 3, baseline: "buildah".to_owned(), outcomes: vec![outcome] }
    }

    #[test]
    fn the_table_has_medians_and_ratios() {
        let comparison = comparison(1 << 19);
        assert_eq!(
            comparison.rows(&comparison.outcomes[0]),
            "| COPY of 1 files | kanna | 2.00 | 1.25 | 1.00 | 0.25 | 3 | 0.50 | 1 |\n\
             | COPY of 1 files | buildah | 6.00 | 3.25 | 3.00 | 0.25 | 3 | 0.50 | 1 |\n\
             | COPY of 1 files | **kanna / buildah** | 0.33 | 0.38 | 0.33 | 1.00 | 1.00 | 1.00 | 1.00 |\n"
        );
        let empty = self::comparison(0);
        assert!(empty.rows(&empty.outcomes[0]).contains("| 1.00 | - | 1.00 |\n"));
    }

    #[test]
    fn the_json_has_every_build() {
        let json: Value = serde_json::from_str(&comparison(10).json()).expect("JSON");
        let workload = &json["workloads"][0];
        assert_eq!(workload["agreeing_paths"], 7);
        assert_eq!(workload["builders"][0]["builds"][1]["wall_seconds"], 1.0);
        assert_eq!(workload["builders"][1]["median"]["wall_seconds"], 6.0);
        assert_eq!(workload["ratios"][0]["pushed"], 1.0);
        assert_eq!(json["sizes"]["changes"], 6);
        let empty: Value = serde_json::from_str(&comparison(0).json()).expect("JSON");
        assert_eq!(empty["workloads"][0]["ratios"][0]["pushed"], Value::Null);
    }
}
