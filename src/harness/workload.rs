//! [`Workload`]: what is built.

use std::fs;
use std::io;
use std::path::Path;

use tar::EntryType;

use super::Error;
use super::flags::Sizes;
use super::written::{Both, append, append_tree, noise, path, text, write_layout, write_tree};

/// What a base has beside busybox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// Nothing.
    Small,
    /// A tree of files at `/data`.
    Files,
    /// That, and `/tree.tar`: the same tree, every second file with another content.
    FilesAndArchive,
    /// `/seed`, bytes that do not compress.
    Seed,
}

/// Something that every builder builds.
pub(super) struct Workload {
    pub(super) name: &'static str,
    about: fn(&Sizes) -> String,
    base: Base,
    /// The lines after the first `FROM base`. Another stage begins with `FROM base` as well.
    lines: fn(&Sizes) -> String,
    /// Is the tree of files in the context?
    has_context: bool,
}

/// MiB of `/seed`, written as often as needed.
const SEED_MIB: u32 = 16;
/// Files that a RUN makes in one directory.
const NEW_FILES_EACH: u32 = 100;
/// What busybox is called by.
const APPLETS: [&str; 8] = ["cat", "chown", "mkdir", "rm", "seq", "sh", "tar", "true"];
const BUSYBOX: &str = "/bin/busybox";

/// All workloads.
pub(super) const WORKLOADS: [Workload; 8] = [
    Workload {
        name: "few-changes",
        about: |sizes| format!("{} files, {} RUNs that change {} each", sizes.files, sizes.runs, sizes.changes),
        base: Base::Files,
        lines: few_changes,
        has_context: false,
    },
    Workload {
        name: "new-files",
        about: |sizes| format!("a RUN that makes {} files", sizes.new_files),
        base: Base::Small,
        lines: |sizes| make_files(sizes.new_files),
        has_context: false,
    },
    Workload {
        name: "chown",
        about: |sizes| format!("chown -R of {} files", sizes.files),
        base: Base::Files,
        lines: |_| "RUN chown -R 1000:1000 /data\n".to_owned(),
        has_context: false,
    },
    Workload {
        name: "remove",
        about: |sizes| format!("rm -rf of {} files", sizes.files),
        base: Base::Files,
        lines: |_| "RUN rm -rf /data\n".to_owned(),
        has_context: false,
    },
    Workload {
        name: "untar-over",
        about: |sizes| format!("tar of {} files over themselves, half of them changed", sizes.files),
        base: Base::FilesAndArchive,
        lines: |_| "RUN tar -x -f /tree.tar -C /\n".to_owned(),
        has_context: false,
    },
    Workload {
        name: "copy",
        about: |sizes| format!("COPY of {} files", sizes.files),
        base: Base::Small,
        lines: |_| "COPY . /src\n".to_owned(),
        has_context: true,
    },
    Workload {
        name: "data",
        about: |sizes| format!("a RUN that writes {} MiB", sizes.data_mib),
        base: Base::Seed,
        lines: |sizes| {
            let copies = sizes.data_mib.div_ceil(seed_mib(sizes));
            format!("RUN for i in $(seq {copies}); do cat /seed; done >/big\n")
        },
        has_context: false,
    },
    Workload {
        name: "copy-from",
        about: |sizes| format!("COPY --from of {} files", sizes.new_files),
        base: Base::Small,
        lines: |sizes| format!("{}FROM base\nCOPY --from=0 /new /new\n", make_files(sizes.new_files)),
        has_context: false,
    },
];

fn seed_mib(sizes: &Sizes) -> u32 {
    SEED_MIB.min(sizes.data_mib)
}

fn few_changes(sizes: &Sizes) -> String {
    // far apart, so that each RUN changes files in directories of its own
    let all = u64::from(sizes.runs) * u64::from(sizes.changes);
    let file = |number: u32| path((u64::from(number) * u64::from(sizes.files) / all) as u32);
    let run = |run: u32| {
        let files: Vec<String> =
            (0..sizes.changes).map(|i| format!("/data/{}", file(run * sizes.changes + i))).collect();
        format!("RUN for file in {}; do echo changed {run} >$file; done\n", files.join(" "))
    };
    (0..sizes.runs).map(run).collect()
}

fn make_files(files: u32) -> String {
    let (directories, rest) = (files / NEW_FILES_EACH, files % NEW_FILES_EACH);
    let directory = |name: &str, files: u32| {
        format!("mkdir -p /new/{name}; for f in $(seq {files}); do echo \"$f of {name}\" >/new/{name}/$f; done")
    };
    let all = directory("$d", NEW_FILES_EACH);
    format!("RUN for d in $(seq {directories}); do {all}; done; {}\n", directory("rest", rest))
}

impl Workload {
    /// What it is, for a reader of the figures.
    pub(super) fn about(&self, sizes: &Sizes) -> String {
        (self.about)(sizes)
    }

    /// Writes the layout of the base.
    pub(super) fn write_base(&self, layout: &Path, sizes: &Sizes) -> Result<(), Error> {
        let busybox = Path::new(BUSYBOX);
        let busybox = fs::read(busybox).map_err(|source| Error::file("read the static", busybox, source))?;
        write_layout(layout, |tar| fill_base(tar, self.base, sizes, &busybox))
    }

    /// Writes the context with its Dockerfile.
    pub(super) fn write_context(&self, context: &Path, base: &str, sizes: &Sizes) -> Result<(), Error> {
        fs::create_dir(context).map_err(|source| Error::file("make", context, source))?;
        if self.has_context {
            write_tree(context, sizes.files, |number| content(number, sizes))?;
        }
        let dockerfile = context.join("Dockerfile");
        fs::write(&dockerfile, self.dockerfile(base, sizes)).map_err(|source| Error::file("write", &dockerfile, source))
    }

    fn dockerfile(&self, base: &str, sizes: &Sizes) -> String {
        format!("FROM base\n{}", (self.lines)(sizes)).replace("FROM base\n", &format!("FROM {base}\n"))
    }
}

fn content(number: u32, sizes: &Sizes) -> Vec<u8> {
    text(number.into(), sizes.file_bytes as usize)
}

fn fill_base(tar: &mut tar::Builder<Both>, base: Base, sizes: &Sizes, busybox: &[u8]) -> io::Result<()> {
    for folder in ["bin", "etc", "tmp"] {
        append(tar, EntryType::Directory, folder, 0o755, b"")?;
    }
    append(tar, EntryType::Regular, "bin/busybox", 0o755, busybox)?;
    for applet in APPLETS {
        append(tar, EntryType::Symlink, &format!("bin/{applet}"), 0o777, b"busybox")?;
    }
    match base {
        Base::Small => {}
        Base::Seed => {
            let seed = noise(1, seed_mib(sizes) as usize * 1024 * 1024);
            append(tar, EntryType::Regular, "seed", 0o644, &seed)?;
        }
        Base::Files | Base::FilesAndArchive => append_tree(tar, "data", sizes.files, |number| content(number, sizes))?,
    }
    if base == Base::FilesAndArchive {
        let mut archive = tar::Builder::new(Vec::new());
        append_tree(&mut archive, "data", sizes.files, |number| {
            let mut content = content(number, sizes);
            if number % 2 == 1 {
                content.push(b'\n');
            }
            content
        })?;
        append(tar, EntryType::Regular, "tree.tar", 0o644, &archive.into_inner()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { files: 100, new_files: 250, file_bytes: 10, data_mib: 40, runs: 2, changes: 3 };

    fn dockerfile(name: &str) -> String {
        let workload = WORKLOADS.iter().find(|workload| workload.name == name).expect("there is one");
        workload.dockerfile("127.0.0.1:5/base:1", &SIZES)
    }

    #[test]
    fn sizes_are_in_the_dockerfiles() {
        assert_eq!(
            dockerfile("few-changes"),
            "FROM 127.0.0.1:5/base:1\n\
             RUN for file in /data/core-0/lib/index-0.js /data/core-0/lib/errors-16.js /data/core-0/src/package-8.js.map; \
             do echo changed 0 >$file; done\n\
             RUN for file in /data/core-0/test/use-context-0.js /data/core-0/test/README-16.js \
             /data/core-0/types/render-table-8.js.map; do echo changed 1 >$file; done\n"
        );
        assert!(dockerfile("data").contains("seq 3"), "40 MiB are three times 16");
        assert!(dockerfile("new-files").contains("seq 2"));
        assert!(dockerfile("new-files").contains("seq 50"));
        assert_eq!(dockerfile("copy-from").matches("FROM 127.0.0.1:5/base:1\n").count(), 2);
    }

    #[test]
    fn files_that_change_are_different_ones() {
        let sizes = Sizes { files: 6, ..SIZES };
        let lines = few_changes(&sizes);
        let all = (0..6).map(|number| lines.matches(&path(number)).count());
        assert_eq!(all.collect::<Vec<_>>(), [1; 6], "{lines}");
    }
}
