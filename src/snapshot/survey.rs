//! What is in the root before a base is unpacked.

use super::Error;
use crate::rootfs::{Ignored, Root};
use crate::sys::fs::FileType;
use crate::tree::{RootIndex, Standing};

/// Notes everything that is in the root as foreign: the container's own files, mount targets' parents, a debug shell.
/// Reads no contents. What must not be touched, and what is mounted, is left out.
pub fn survey(root: &Root, index: &mut RootIndex, ignored: &Ignored) -> Result<(), Error> {
    if let Some((node, observed)) = root.top().node(b".")? {
        index.insert(root.top().path(), &node, Some(observed), Standing::Foreign);
    }
    let mut directories = vec![root.top().path().clone()];
    while let Some(path) = directories.pop() {
        let directory = root.directory(&path)?;
        for (name, _) in directory.entries()? {
            let path = path.join(&name);
            if ignored.is_untouchable(&path) {
                continue;
            }
            let Some(stat) = directory.stat(&name)?.filter(|stat| !stat.is_mount_point) else { continue };
            let node = directory.complete(&name, &stat)?;
            index.insert(&path, &node, Some(stat.observed), Standing::Foreign);
            if stat.file_type == FileType::Directory {
                directories.push(path);
            }
        }
    }
    Ok(())
}
