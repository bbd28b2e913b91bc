//! Where the mount points of ours are once a command has run: it can move a directory, and what is mounted in it with it.

use std::io;

use super::MOUNTED_FILES;
use crate::rootfs::mounts;
use crate::tree::ImagePath;

/// A mount point of ours that a command has moved with a directory above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedMount {
    /// Where we mount.
    pub from: ImagePath,
    /// Where the empty file is on which it was mounted.
    pub to: ImagePath,
}

/// The mounts on files of the root, by the kernel's numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountPoints(Vec<(u32, ImagePath)>);

impl MountPoints {
    /// Asks the kernel where they are.
    pub(super) fn note() -> io::Result<MountPoints> {
        mounts::read().map(|table| MountPoints::of(&table))
    }

    fn of(table: &[u8]) -> MountPoints {
        let ours = MOUNTED_FILES.map(ImagePath::clean);
        let mounts = mounts::parse(table).into_iter().filter(|mount| ours.contains(&mount.point));
        MountPoints(mounts.map(|mount| (mount.id, mount.point)).collect())
    }

    /// Asks again: which are at another place now?
    pub(super) fn moved(&self) -> io::Result<Vec<MovedMount>> {
        mounts::read().map(|table| self.moved_by(&table))
    }

    fn moved_by(&self, table: &[u8]) -> Vec<MovedMount> {
        let now = mounts::parse(table);
        let moved = self.0.iter().filter_map(|(id, from)| {
            let mount = now.iter().find(|mount| mount.id == *id)?;
            (mount.point != *from).then(|| MovedMount { from: from.clone(), to: mount.point.clone() })
        });
        moved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_move_with_directories() {
        let table = |etc: &str| {
            let line = |id: u32, point: &str| format!("{id} 1 8:1 /f {point} rw - ext4 /dev/a rw\n");
            [line(1, "/"), line(5, "/proc"), line(7, &format!("{etc}/hosts")), line(8, &format!("{etc}/hostname"))]
                .concat()
        };
        let points = MountPoints::of(table("/etc").as_bytes());
        assert_eq!(points.0.len(), 2);
        assert_eq!(points.moved_by(table("/etc").as_bytes()), []);
        let moved = points.moved_by(table("/usr/etc").as_bytes());
        let named: Vec<String> = moved.iter().map(|moved| format!("{} {}", moved.from, moved.to)).collect();
        assert_eq!(named, ["/etc/hosts /usr/etc/hosts", "/etc/hostname /usr/etc/hostname"]);
    }
}
