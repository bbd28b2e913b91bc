//! Files with holes: on disk they stay as small as they are, and in a layer they are what they would be if they were full.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::support::machine::assert_nothing_left;
use crate::support::workshop::Workshop;

const MIB: u64 = 1024 * 1024;

/// What is copied is looked at by a command: name, bytes, and blocks of 512 bytes on disk.
const DOCKERFILE: &str = "\
FROM busybox:base AS made
RUN truncate -s 512M /sparse && echo data | dd of=/sparse bs=1M seek=300 conv=notrunc 2>/dev/null
FROM busybox:base
COPY --from=made /sparse /from-stage
COPY file /from-context
RUN stat -c '%n %s %b' /from-stage /from-context && tail -c +314572801 /from-stage | head -n 1
";

const ON_THAT: &str = "\
FROM sparse:1
RUN stat -c '%n %s %b' /from-stage /from-context && tail -c +314572801 /from-stage | head -n 1
";

/// Builds `context` and pushes it as `library/NAME:1`; gives what commands printed.
#[track_caller]
fn build(workshop: &Workshop, name: &str, context: &Path) -> String {
    let (home, host) = (workshop.machine.own(name), workshop.registry.host());
    let ended = workshop.build(&home, context, host, &format!("{host}/library/{name}:1"), &[]).success(name);
    assert_nothing_left(&home);
    ended.stdout
}

/// Made by a command, copied from a stage and from the context, and unpacked from a base.
#[test]
fn files_with_holes_take_no_room() {
    let Some(workshop) = Workshop::new() else { return };
    let context = workshop.machine.context("context", DOCKERFILE);
    let file = File::create(context.join("file")).expect("created");
    file.set_len(256 * MIB).expect("grown");
    file.write_all_at(b"data\n", 100 * MIB).expect("written");
    assert!(file.metadata().expect("there").blocks() * 512 < MIB, "this file system has holes");
    let on_that = workshop.machine.context("on-that-context", ON_THAT);
    for (name, context) in [("sparse", &context), ("on-that", &on_that)] {
        let told = build(&workshop, name, context);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!((lines.len(), lines.last()), (3, Some(&"data")), "{name}: {told}");
        for (line, file, size) in [(lines[0], "/from-stage", 512 * MIB), (lines[1], "/from-context", 256 * MIB)] {
            let blocks = line.strip_prefix(&format!("{file} {size} ")).and_then(|blocks| blocks.parse::<u64>().ok());
            assert!(blocks.is_some_and(|blocks| blocks * 512 < MIB), "{name}: {line}");
        }
    }
}

#[test]
fn holes_change_no_layer() {
    let Some(workshop) = Workshop::new() else { return };
    let [holes, full] =
        [("holes", "truncate -s 3000000 /file"), ("full", "head -c 3000000 /dev/zero >/file")].map(|(name, made)| {
            let data = "echo data | dd of=/file bs=1M seek=1 conv=notrunc 2>/dev/null && stat -c %b /file";
            let dockerfile = format!("FROM busybox:base\nRUN {made} && {data}\n");
            let context = workshop.machine.context(&format!("{name}-context"), &dockerfile);
            let blocks: u64 = build(&workshop, name, &context).trim().parse().expect("a number");
            assert_eq!(blocks * 512 < 3_000_000, name == "holes", "{blocks}");
            workshop.layers(&format!("library/{name}:1"))
        });
    assert_eq!(holes.len(), 2);
    assert_eq!(holes, full);
}
