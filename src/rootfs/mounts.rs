//! What is mounted where, as `/proc/self/mountinfo` tells it (man 5 proc).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Error, Ignored};
use crate::sys::event::{self, PollFd, PollFlags, Timespec};
use crate::sys::nix::mount::{MntFlags, umount2};
use crate::tree::ImagePath;

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// What the kernel appends to a mount point whose directory was removed: nothing can be reached there.
const REMOVED: &[u8] = b"//deleted";

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number for it.
    pub id: u32,
    /// Where it is mounted; not always a directory.
    pub point: ImagePath,
    /// Which part of the file system is seen there: `/` for all of it.
    pub part: Vec<u8>,
    /// Kind of file system: `ext4`, `overlay`, …
    pub file_system: Vec<u8>,
    /// Device or other source.
    pub source: Vec<u8>,
}

/// The kernel's table of the mounts that this process sees.
pub fn read() -> io::Result<Vec<u8>> {
    fs::read(MOUNTINFO)
}

/// The mounts of a mountinfo text, in its order: later ones cover earlier ones. Lines of another shape are passed over.
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /part /point rw,noatime master:1 - ext3 /dev/root rw`: optional fields before the dash.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let part = fields.nth(2)?;
    let point = fields.next()?;
    let _dash = fields.find(|&field| field == b"-")?;
    let (file_system, source) = (fields.next()?, fields.next()?);
    let point = unescape(point);
    if !point.starts_with(b"/") || point.ends_with(REMOVED) {
        return None;
    }
    Some(Mount {
        id,
        point: ImagePath::clean(point),
        part: unescape(part),
        file_system: unescape(file_system),
        source: unescape(source),
    })
}

/// Blank, tab, newline, backslash and `#` are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

/// The mount points inside the root at `place` on this machine, as places inside the image; sorted, the root itself
/// left out.
pub fn mounts_below(mountinfo: &[u8], place: &Path) -> Vec<ImagePath> {
    let place = ImagePath::clean(place.as_os_str().as_bytes());
    let mut points: Vec<ImagePath> = parse(mountinfo)
        .iter()
        .filter_map(|mount| mount.point.strip_prefix(&place))
        .filter(|below| !below.is_empty())
        .map(ImagePath::clean)
        .collect();
    points.sort();
    points.dedup();
    points
}

/// Makes every mount point inside the root at `place` untouchable.
pub fn ignore_mounts(ignored: &mut Ignored, mountinfo: &[u8], place: &Path) {
    for point in mounts_below(mountinfo, place) {
        ignored.add_untouchable(point);
    }
}

/// The mounts at one moment, and whether the kernel has changed any since.
#[derive(Debug)]
pub struct MountWatch {
    /// The kernel raises `PRI` on it once its table is no longer what it was at the opening.
    table: File,
    before: Vec<Mount>,
}

/// What became of the mounts in the meantime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountsSince {
    /// They are the same, and were all the time.
    Same,
    /// Some came or went; none is left that hides files of the root.
    Changed,
}

impl MountWatch {
    /// Looks at the mounts.
    pub fn begin() -> io::Result<MountWatch> {
        let mut table = File::open(MOUNTINFO)?;
        let mut text = Vec::new();
        table.read_to_end(&mut text)?;
        Ok(MountWatch { table, before: parse(&text) })
    }

    /// Unmounts what was mounted since and hides files of the root at `/`; what is mounted below an untouchable path
    /// hides none. Refused where a mount that must not be touched went away with its directory: neither can it be brought
    /// back, nor is the file under it one of the image.
    pub fn end(self, ignored: &Ignored) -> Result<MountsSince, Error> {
        let failed = |action, path: &ImagePath| {
            let path = path.clone();
            move |source| Error { action, path, source }
        };
        let mut polled = [PollFd::new(&self.table, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = event::poll(&mut polled, Some(&now)).map_err(io::Error::from);
        let ready = ready.map_err(failed("poll the mounts of", &ImagePath::root()))?;
        let text = read().map_err(failed("read the mounts of", &ImagePath::root()))?;
        let now = parse(&text);
        // a directory that is renamed changes no mount: the kernel tells of none
        if let Some((from, to)) = moved(&self.before, &now, ignored).first() {
            let reason = format!("the command has moved it to {to}: leave the directory above it where it is");
            return Err(failed("keep what is mounted at", from)(io::Error::other(reason)));
        }
        if ready == 0 {
            return Ok(MountsSince::Same);
        }
        for mount in left_behind(&self.before, &now, ignored).iter().rev() {
            tracing::warn!("unmounting {}, which the command left mounted", mount.point);
            umount2(mount.point.as_path(), MntFlags::UMOUNT_NOFOLLOW)
                .map_err(|errno| failed("unmount what the command left mounted at", &mount.point)(errno.into()))?;
        }
        Ok(MountsSince::Changed)
    }
}

/// The mounts of `now` that are new and not below what is untouchable, in the order in which they were made.
fn left_behind(before: &[Mount], now: &[Mount], ignored: &Ignored) -> Vec<Mount> {
    let is_new = |mount: &&Mount| before.iter().all(|old| (old.id, &old.point) != (mount.id, &mount.point));
    now.iter().filter(is_new).filter(|mount| !ignored.is_untouchable(&mount.point)).cloned().collect()
}

/// The untouchable mounts of `before` that are at another point `now`: from where, and to where.
fn moved(before: &[Mount], now: &[Mount], ignored: &Ignored) -> Vec<(ImagePath, ImagePath)> {
    // a number is given again, but not with all the rest
    let is_same = |old: &Mount, mount: &Mount| Mount { point: old.point.clone(), ..mount.clone() } == *old;
    let untouchable = before.iter().filter(|old| ignored.is_untouchable(&old.point) && !now.contains(old));
    let moved = untouchable.filter_map(|old| {
        now.iter().find(|mount| is_same(old, mount)).map(|mount| (old.point.clone(), mount.point.clone()))
    });
    moved.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What `podman run` gives to a container, shortened.
    pub const CONTAINER: &[u8] = b"\
75 49 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/l/P7,upperdir=/d,workdir=/w,uuid=on\n\
76 75 0:43 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
77 75 0:44 / /dev rw,nosuid,noexec - tmpfs tmpfs rw,size=65536k,mode=755\n\
79 77 0:45 / /dev/pts rw,nosuid - devpts devpts rw,gid=5,mode=620\n\
81 75 254:0 /run/containers/e6/userdata/hosts /etc/hosts rw,relatime master:1 shared:2 - ext4 /dev/vda rw\n\
84 75 254:0 /run/containers/e6/userdata/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw\n\
85 75 254:0 /run/containers/e6/userdata/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw\n\
90 75 254:0 /srv/with\\040blank /kaniko/a\\134b\\011c ro,relatime - ext4 /dev/vda rw\n\
91 75 0:43 /null /proc/keys rw - tmpfs tmpfs rw\n\
92 75 0:50 / /gone//deleted rw - tmpfs tmpfs rw\n";

    #[test]
    fn points_of_a_container() {
        let expected = [
            "/dev",
            "/dev/pts",
            "/etc/hostname",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/kaniko/a\\b\tc",
            "/proc",
            "/proc/keys",
        ];
        assert_eq!(mounts_below(CONTAINER, Path::new("/")), expected.map(ImagePath::clean));
        let below_dev = mounts_below(CONTAINER, Path::new("/dev/"));
        assert_eq!(below_dev, [ImagePath::clean("/pts")]);
        assert_eq!(mounts_below(CONTAINER, Path::new("/de")), []);
    }

    #[test]
    fn fields() {
        let mounts = parse(CONTAINER);
        assert_eq!(mounts[0].file_system, b"overlay");
        assert_eq!(
            (&mounts[4].part[..], &mounts[4].source[..]),
            (&b"/run/containers/e6/userdata/hosts"[..], &b"/dev/vda"[..])
        );
        assert_eq!(mounts[7].part, b"/srv/with blank");
        for odd in
            ["", "1 2 3", "1 2 3:4 / /a rw ext4 x rw", "1 2 3:4 / relative rw - ext4 x rw", "1 2 3:4 / /a rw - ext4"]
        {
            assert_eq!(parse(odd.as_bytes()), [], "{odd:?}");
        }
        assert_eq!(unescape(b"\\040\\99\\0"), b" \\99\\0");
    }

    #[test]
    fn every_mount_is_untouchable() {
        let mut ignored = Ignored::new();
        ignore_mounts(&mut ignored, CONTAINER, Path::new("/"));
        assert!(ignored.is_untouchable(&ImagePath::clean("/etc/hosts")));
        assert!(ignored.is_untouchable(&ImagePath::clean("/dev/null")));
        assert!(!ignored.is_untouchable(&ImagePath::root()));
        assert!(!ignored.is_untouchable(&ImagePath::clean("/etc")));
    }

    #[test]
    fn what_a_command_left_mounted() {
        let before = parse(CONTAINER);
        let mut ignored = Ignored::new();
        ignore_mounts(&mut ignored, CONTAINER, Path::new("/"));
        let added = b"\
93 75 0:51 / /mnt rw - tmpfs tmpfs rw\n\
94 93 0:51 / /mnt/deep rw - tmpfs tmpfs rw\n\
95 76 0:52 / /proc/host rw - tmpfs tmpfs rw\n\
77 75 0:53 / /other rw - tmpfs tmpfs rw\n";
        let now = parse(&[CONTAINER, added].concat());
        let left = left_behind(&before, &now, &ignored);
        let points: Vec<String> = left.iter().map(|mount| mount.point.to_string()).collect();
        assert_eq!(points, ["/mnt", "/mnt/deep", "/other"], "a number is used again");
        assert_eq!(left_behind(&now, &before, &ignored), []);
    }

    #[test]
    fn what_a_command_has_moved() {
        let before = parse(CONTAINER);
        let mut ignored = Ignored::new();
        ignore_mounts(&mut ignored, CONTAINER, Path::new("/"));
        let text = String::from_utf8(CONTAINER.to_vec()).expect("UTF-8");
        let now = parse(text.replace("/etc/hosts ", "/moved/hosts ").as_bytes());
        let found = moved(&before, &now, &ignored);
        assert_eq!(found, [(ImagePath::clean("/etc/hosts"), ImagePath::clean("/moved/hosts"))]);
        // unmounted, and the number given to another
        let other = parse(text.replace("/userdata/hosts /etc/hosts", "/other /moved/hosts").as_bytes());
        assert_eq!(moved(&before, &other, &ignored), []);
        assert_eq!(moved(&before, &before, &ignored), []);
        assert_eq!(moved(&before, &now, &Ignored::new()), []);
    }

    #[test]
    fn nothing_is_mounted_meanwhile() {
        let watch = MountWatch::begin().expect("a proc file system");
        assert!(!watch.before.is_empty());
        // Another process of this machine may mount something, but nothing that this test would have to undo.
        let mut ignored = Ignored::new();
        ignored.add_untouchable(ImagePath::root());
        watch.end(&ignored).expect("looked");
    }

    #[test]
    fn the_real_table_can_be_read() {
        let mounts = parse(&read().expect("a proc file system"));
        assert!(mounts.iter().any(|mount| mount.point.is_root()), "{mounts:?}");
    }
}
