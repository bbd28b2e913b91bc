//! Real commands under `--verify-snapshots`: whatever the tracker lists, a walk that reads every file finds the same. What
//! each command cost is told as a table, so that a hand-over that nobody expected is seen.
//!
//! CI runs what needs no more than Debian; `make test-real` runs everything and prints the whole table.

use std::fmt::Write as _;

use crate::end_to_end::proxies;
use crate::real_world::world_with;
use crate::support::podman::DOCKER_CAPABILITIES;

/// A line of a Dockerfile. A RUN has a title, by which the table calls it; what is not asked about has none.
type Line = (&'static str, &'static str);

/// Lines on a base.
struct Commands {
    /// A stage of `tests/real_world/bases`, and its name in a registry; no stage means Debian.
    base: (&'static str, &'static str),
    lines: &'static [Line],
    /// The title of a RUN that changes at least so many paths: it would prove nothing if there were few.
    at_least: (&'static str, u64),
}

const DEBIAN: (&str, &str) = ("", "debian:stable-slim");

/// Tools that move, link, replace and remove many files.
const TOOLS: Commands = Commands {
    base: DEBIAN,
    lines: &[
        ("apt-get install git rsync", "apt-get update && apt-get install -y --no-install-recommends git rsync"),
        (
            "git init, add, commit",
            "git init -q /repo && cd /repo && git config user.email a@b && git config user.name a && \
             for i in $(seq 400); do mkdir -p $((i % 20)) && seq $i >$((i % 20))/$i; done && git add . && \
             git commit -qm one && git checkout -qb other && git mv 3 moved && git rm -qr 4 && seq 9 >5/5 && \
             git commit -qam two",
        ),
        ("git clone", "git clone -q /repo /clone && cd /clone && git checkout -q master"),
        ("git checkout", "cd /clone && git checkout -q other"),
        ("tar, new files", "tar -C / -cf /all.tar usr/share etc && mkdir /copy && tar -C /copy -xf /all.tar"),
        ("tar, over the same files", "tar -C /copy -xf /all.tar"),
        ("rsync --delete", "rsync -a /copy/etc/ /synced/ && rsync -a --delete /clone/ /synced/"),
        ("chown -R", "chown -R nobody /copy"),
        ("sed -i of many files", "find /copy -name '*.conf' -exec sed -i s/a/b/ {} +"),
        ("rm -rf", "rm -rf /copy"),
        ("a daemon left running", "(while :; do date >>/daemon.log; sleep 0.01; done) & sleep 0.3"),
        ("dpkg --verify, which only reads", "dpkg --verify || true"),
    ],
    at_least: ("tar, new files", 1000),
};

const BUILD_ESSENTIAL: Commands = Commands {
    base: DEBIAN,
    lines: &[
        ("apt-get update", "apt-get update"),
        ("apt-get install build-essential", "apt-get install -y build-essential"),
        ("gcc", "echo 'int main(void) { return 0; }' >/a.c && gcc -o /a /a.c && /a"),
        (
            "apt-get purge, autoremove, clean",
            "apt-get purge -y build-essential && apt-get autoremove -y && apt-get clean",
        ),
    ],
    at_least: ("apt-get install build-essential", 5000),
};

const PIP: Commands = Commands {
    base: ("python", "python:3-slim"),
    lines: &[
        ("python -m venv", "python -m venv /venv"),
        ("pip install scipy, pandas", "/venv/bin/pip install --no-cache-dir scipy==1.14.1 pandas==2.2.3"),
        ("pip install jupyterlab", "/venv/bin/pip install jupyterlab==4.2.5"),
        ("import of all of it", "/venv/bin/python -c 'import scipy.stats, pandas, jupyterlab'"),
        ("pip uninstall", "/venv/bin/pip uninstall -y scipy jupyterlab"),
    ],
    at_least: ("pip install jupyterlab", 5000),
};

const NPM: Commands = Commands {
    base: ("node", "node:lts-slim"),
    lines: &[
        (
            "",
            r#"COPY <<EOF /app/package.json
{
  "dependencies": {
    "@emotion/react": "11.13.3", "@emotion/styled": "11.13.0", "@mui/icons-material": "5.16.7",
    "@mui/material": "5.16.7", "next": "14.2.15", "react": "18.3.1", "react-dom": "18.3.1", "typescript": "5.6.3"
  }
}
EOF
WORKDIR /app"#,
        ),
        ("npm install --package-lock-only", "npm install --package-lock-only --no-audit --no-fund"),
        ("npm ci", "npm ci --no-audit --no-fund"),
        ("npm ci again", "npm ci --no-audit --no-fund"),
        ("npm uninstall", "npm uninstall --no-audit --no-fund @mui/icons-material"),
        ("rm -rf node_modules", "rm -rf node_modules ~/.npm"),
    ],
    at_least: ("npm ci", 20_000),
};

/// With the crates that the distribution has as packages.
const CARGO: Commands = Commands {
    base: ("rust", "rust:slim"),
    lines: &[
        (
            "apt-get install of crates",
            "apt-get update && apt-get install -y --no-install-recommends librust-syn-dev librust-serde-json-dev",
        ),
        (
            "",
            r#"COPY <<EOF /root/.cargo/config.toml
[source.crates-io]
replace-with = "distribution"
[source.distribution]
directory = "/usr/share/cargo/registry"
EOF
WORKDIR /app"#,
        ),
        ("cargo new", "cargo init --name app && printf 'syn = \"1\"\\nserde_json = \"1\"\\n' >>Cargo.toml"),
        ("cargo build", "cargo build --offline"),
        ("cargo build of one change", "echo '// changed' >>src/main.rs && cargo build --offline"),
        ("cargo build --release", "cargo build --release --offline"),
        ("cargo clean", "cargo clean"),
    ],
    at_least: ("cargo build", 100),
};

/// The names that a tracker lists in a root of fewer than 262,144 files.
const MOST_NAMES: u64 = 32_768;

/// What the snapshot after one command cost.
struct Row {
    title: &'static str,
    changed: u64,
    events: u64,
    looked_at: u64,
    known: u64,
    read: u64,
    handed_over: String,
    cpu_ms: u64,
}

/// Builds the lines in a container; every snapshot is judged there. Nothing where that is not possible.
fn judged(commands: &Commands) -> Option<Vec<Row>> {
    let (stage, base) = commands.base;
    let world = world_with(&[stage])?;
    let mut dockerfile = format!("FROM {base}\nARG DEBIAN_FRONTEND=noninteractive\n");
    for (title, text) in commands.lines {
        let instruction = if title.is_empty() { "" } else { "RUN " };
        writeln!(dockerfile, "{instruction}{text}").expect("a String takes all");
    }
    let context = world.context("commands", &dockerfile);
    let flags = ["--no-push", "--verify-snapshots", "--change-tracker=inotify", "--verbosity=debug"];
    let ended = world.build(&context, &[DOCKER_CAPABILITIES], &proxies(&flags)).success(base);
    let log = ended.stderr;
    assert!(log.contains("Changes are tracked by inotify") && !log.contains("tracked by walk"), "{log}");
    let titles = commands.lines.iter().map(|(title, _)| *title).filter(|title| !title.is_empty());
    let costs = log.lines().filter(|line| line.contains("snapshot taken"));
    let summaries = log.lines().filter(|line| line.contains("paths looked at"));
    let rows: Vec<Row> = titles.zip(costs).zip(summaries).map(|((title, cost), told)| row(title, cost, told)).collect();
    assert_eq!(
        rows.len(),
        log.lines().filter(|line| line.contains("paths looked at")).count(),
        "one for each RUN: {log}"
    );
    for Row { title, events, handed_over, .. } in &rows {
        // a machine that has no time for the reader loses events, and no list has more names than this; there is no other reason
        let is_due = handed_over.contains("the kernel's queue overflowed")
            || (handed_over.contains("names were used") && *events > MOST_NAMES);
        assert!(is_due || !handed_over.starts_with("walked"), "{title}: {handed_over}");
    }
    let (title, least) = commands.at_least;
    let changed = rows.iter().find(|row| row.title == title).map(|row| row.changed);
    assert!(changed >= Some(least), "{title} changes {changed:?} paths, fewer than {least}");
    Some(rows)
}

/// Reads the summary and the debug line of one snapshot.
fn row(title: &'static str, cost: &str, told: &str) -> Row {
    let (numbers, why) = told.split_once(" read").unwrap_or_else(|| panic!("{told}"));
    // the last five numbers: a time of day may come before them
    let numbers: Vec<u64> = numbers.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [.., changed, events, looked_at, known, read] = numbers[..] else { panic!("{told}") };
    let cpu = cost.split("cpu_ms=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let cpu_ms = cpu.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{cost}"));
    let handed_over = why.trim_start_matches("; ").trim_end_matches('"').to_owned();
    Row { title, changed, events, looked_at, known, read, handed_over, cpu_ms }
}

fn print_table(rows: &[Row]) {
    println!("| command | paths changed | events | paths looked at | files read | CPU ms | handed over |");
    println!("|---|---|---|---|---|---|---|");
    for Row { title, changed, events, looked_at, known, read, handed_over, cpu_ms } in rows {
        println!("| {title} | {changed} | {events} | {looked_at} of {known} | {read} | {cpu_ms} | {handed_over} |");
    }
}

#[test]
fn tools_are_tracked() {
    let Some(rows) = judged(&TOOLS) else { return };
    print_table(&rows);
}

#[test]
#[ignore = "takes minutes: `make test-real`"]
fn everything_is_tracked() {
    let mut table = Vec::new();
    for commands in [&TOOLS, &BUILD_ESSENTIAL, &PIP, &NPM, &CARGO] {
        let Some(rows) = judged(commands) else { return };
        table.extend(rows);
    }
    print_table(&table);
}
