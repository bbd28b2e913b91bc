//! One tar member's header: ustar where it suffices, PAX records only where it does not.
//!
//! The bytes are a function of name and node alone: no user names, no atime or ctime, no GNU extensions.

use tar::{EntryType, Header};

use crate::tree::{ImagePath, Kind, Node, Timestamp};

/// Tar's unit: headers are one block, contents are padded to whole blocks.
pub(super) const BLOCK_BYTES: usize = 512;

/// What a file name begins with that stands for a removal (image spec: layer, whiteouts).
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// PAX keys of extended attributes begin with this.
pub(super) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Longest name in the first field of a ustar header; what is longer is split at a slash.
const NAME_BYTES: usize = 100;
/// Longest text in the prefix field of a ustar header.
const PREFIX_BYTES: usize = 155;
/// Largest number in a field of seven octal digits.
const SEVEN_DIGITS: u64 = 0o777_7777;
/// Largest number in a field of eleven octal digits.
const ELEVEN_DIGITS: u64 = 0o777_7777_7777;

/// What a member is, as far as its header goes.
pub(super) enum Member<'a> {
    /// The node itself.
    Node(&'a Node),
    /// Another name of the file at `first`.
    Link { first: &'a ImagePath, node: &'a Node },
    /// The removal of the path.
    Whiteout,
}

/// The header blocks of `node` itself at `path` with the modification time `mtime`; `None` for what no tar can hold, sockets.
pub fn tar_header(path: &ImagePath, node: &Node, mtime: Timestamp) -> Option<Vec<u8>> {
    encode(path, &Member::Node(node), mtime)
}

/// The header blocks of `member` at `path` with the modification time `mtime`; `None` for what no tar can hold, sockets.
pub(super) fn encode(path: &ImagePath, member: &Member<'_>, mtime: Timestamp) -> Option<Vec<u8>> {
    let mut pax = Pax::default();
    let mut header = Header::new_ustar();
    let whiteout;
    let (node, target) = match member {
        Member::Node(node) => (*node, None),
        Member::Link { first, node } => (*node, Some(first.relative())),
        Member::Whiteout => {
            whiteout = Node {
                kind: Kind::File { size: 0, content: None },
                mode: 0,
                uid: 0,
                gid: 0,
                mtime,
                xattrs: Vec::new(),
            };
            (&whiteout, None)
        }
    };
    let (entry_type, size) = match (&node.kind, target) {
        (_, Some(_)) => (EntryType::Link, 0),
        (Kind::File { size, .. }, None) => (EntryType::Regular, *size),
        (Kind::Directory, None) => (EntryType::Directory, 0),
        (Kind::Symlink { .. }, None) => (EntryType::Symlink, 0),
        (Kind::CharDevice { .. }, None) => (EntryType::Char, 0),
        (Kind::BlockDevice { .. }, None) => (EntryType::Block, 0),
        (Kind::Fifo, None) => (EntryType::Fifo, 0),
        (Kind::Socket, None) => return None,
    };
    header.set_entry_type(entry_type);
    header.set_mode(node.mode);
    set_name(&mut header, &mut pax, &member_name(path, member));
    let link = match &node.kind {
        Kind::Symlink { target } if entry_type == EntryType::Symlink => Some(&**target),
        _ => target,
    };
    if let Some(link) = link {
        set_text(&mut header.as_old_mut().linkname, &mut pax, b"linkpath", link);
    }
    match node.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } if target.is_none() => {
            // 8 octal digits hold what Linux can number: 12 bits of major, 20 of minor
            header.set_device_major(major).and_then(|()| header.set_device_minor(minor)).ok()?;
        }
        _ => header.set_device_major(0).and_then(|()| header.set_device_minor(0)).ok()?,
    }
    header.set_uid(pax.number(b"uid", node.uid.into(), SEVEN_DIGITS));
    header.set_gid(pax.number(b"gid", node.gid.into(), SEVEN_DIGITS));
    header.set_size(pax.number(b"size", size, ELEVEN_DIGITS));
    header.set_mtime(pax.time(mtime));
    for (name, value) in &node.xattrs {
        pax.record(&[XATTR_PREFIX, name].concat(), value);
    }
    header.set_cksum();
    Some(pax.before(&header))
}

/// The member's name as the tar spells it.
fn member_name(path: &ImagePath, member: &Member<'_>) -> Vec<u8> {
    match member {
        Member::Whiteout => {
            let parent = path.parent().unwrap_or_else(ImagePath::root);
            parent.join([WHITEOUT_PREFIX, path.file_name()].concat()).relative().to_vec()
        }
        Member::Node(node) if node.is_directory() => [path.relative(), b"/"].concat(),
        Member::Node(_) | Member::Link { .. } => path.relative().to_vec(),
    }
}

fn set_name(header: &mut Header, pax: &mut Pax, name: &[u8]) {
    if name.is_ascii() && name.len() > NAME_BYTES && name.len() <= NAME_BYTES + PREFIX_BYTES + 1 {
        // the last byte stays out: a directory's final slash must not leave an empty name
        let from = name.len() - NAME_BYTES - 1;
        let split = (from..name.len() - 1).find(|&at| name[at] == b'/').filter(|&at| at <= PREFIX_BYTES && at > 0);
        if let (Some(split), Some(ustar)) = (split, header.as_ustar_mut()) {
            ustar.prefix[..split].copy_from_slice(&name[..split]);
            ustar.name[..name.len() - split - 1].copy_from_slice(&name[split + 1..]);
            return;
        }
    }
    set_text(&mut header.as_old_mut().name, pax, b"path", name);
}

/// Puts `text` into a field of the header; where it is too long or not ASCII, into a PAX record too.
fn set_text(field: &mut [u8; NAME_BYTES], pax: &mut Pax, key: &[u8], text: &[u8]) {
    if text.len() > NAME_BYTES || !text.is_ascii() {
        pax.record(key, text);
    }
    let fits = text.len().min(NAME_BYTES);
    field[..fits].copy_from_slice(&text[..fits]);
}

/// PAX records of one member, in the order in which they were added, which is fixed.
#[derive(Default)]
struct Pax {
    records: Vec<u8>,
}

impl Pax {
    fn record(&mut self, key: &[u8], value: &[u8]) {
        // the length counts its own digits
        let rest = 1 + key.len() + 1 + value.len() + 1;
        let mut length = rest + 1;
        while rest + decimal_digits(length) != length {
            length = rest + decimal_digits(length);
        }
        self.records.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.records.extend_from_slice(part);
        }
    }

    /// What the header's field says of `value`: itself, or 0 where only a record can hold it.
    fn number(&mut self, key: &[u8], value: u64, most: u64) -> u64 {
        if value <= most {
            return value;
        }
        self.record(key, value.to_string().as_bytes());
        0
    }

    fn time(&mut self, time: Timestamp) -> u64 {
        let whole = u64::try_from(time.seconds).ok().filter(|&seconds| seconds <= ELEVEN_DIGITS);
        if whole.is_none() || time.nanoseconds != 0 {
            self.record(b"mtime", decimal_time(time).as_bytes());
        }
        whole.unwrap_or(0)
    }

    /// All blocks of the member's header: the records, if there are any, and `header`.
    fn before(self, header: &Header) -> Vec<u8> {
        if self.records.is_empty() {
            return header.as_bytes().to_vec();
        }
        let mut extension = Header::new_ustar();
        extension.set_entry_type(EntryType::XHeader);
        extension.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
        extension.set_size(self.records.len() as u64);
        extension.set_mode(0);
        extension.set_uid(0);
        extension.set_gid(0);
        extension.set_mtime(0);
        extension.set_cksum();
        let mut blocks = extension.as_bytes().to_vec();
        blocks.extend_from_slice(&self.records);
        blocks.resize(blocks.len().next_multiple_of(BLOCK_BYTES), 0);
        blocks.extend_from_slice(header.as_bytes());
        blocks
    }
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Seconds with as many decimals as needed. Nanoseconds count upwards also before 1970, decimals away from zero.
fn decimal_time(time: Timestamp) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    let text = if time.seconds < 0 {
        let whole = (time.seconds + 1).unsigned_abs();
        format!("-{whole}.{:09}", 1_000_000_000 - time.nanoseconds)
    } else {
        format!("{}.{:09}", time.seconds, time.nanoseconds)
    };
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_text() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (5, 500_000_000, "5.5"),
            (5, 1, "5.000000001"),
            (-1, 500_000_000, "-0.5"),
            (-2, 750_000_000, "-1.25"),
            (-3, 0, "-3"),
        ] {
            assert_eq!(decimal_time(Timestamp { seconds, nanoseconds }), text);
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        for length in [1, 85, 86, 87, 88, 89, 90, 91, 984, 985, 986, 987, 988, 989, 990, 991] {
            let mut pax = Pax::default();
            pax.record(b"path", &vec![b'x'; length]);
            let digits = pax.records.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let said: usize = String::from_utf8_lossy(&pax.records[..digits]).parse().expect("a number");
            assert_eq!(said, pax.records.len(), "{length}");
        }
    }

    #[test]
    fn pax_only_where_ustar_cannot_say_it() {
        let node = |uid, kind| Node { kind, mode: 0o644, uid, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() };
        let file = || Kind::File { size: 1, content: None };
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        for (path, node, mtime, blocks) in [
            ("a", node(0, file()), Timestamp::from_seconds(7), 1),
            ("a", node(0o777_7777, file()), Timestamp::EPOCH, 1),
            (&*long, node(0, file()), Timestamp::EPOCH, 1),
            (&*"f".repeat(100), node(0, file()), Timestamp::EPOCH, 1),
            (&*"f".repeat(101), node(0, file()), Timestamp::EPOCH, 3),
            ("\u{e4}", node(0, file()), Timestamp::EPOCH, 3),
            ("a", node(0o1000_0000, file()), Timestamp::EPOCH, 3),
            ("a", node(0, Kind::File { size: 1 << 33, content: None }), Timestamp::EPOCH, 3),
            ("a", node(0, file()), Timestamp { seconds: 1, nanoseconds: 1 }, 3),
            ("a", node(0, file()), Timestamp::from_seconds(-1), 3),
            ("a", node(0, Kind::Symlink { target: vec![b't'; 101].into() }), Timestamp::EPOCH, 3),
        ] {
            let bytes = encode(&ImagePath::clean(path), &Member::Node(&node), mtime).expect("a header");
            assert_eq!(bytes.len(), blocks * BLOCK_BYTES, "{path}");
        }
        let socket = node(0, Kind::Socket);
        assert_eq!(encode(&ImagePath::clean("s"), &Member::Node(&socket), Timestamp::EPOCH), None);
    }
}
