//! The members of a tar, one after the other: ustar, PAX, GNU long names, GNU sparse files, base-256 numbers.
//!
//! What a header may make us keep in memory has limits, which is why this is not the `tar` crate's iterator: that one
//! reads a long name of any length. Global PAX headers say nothing about files, as containerd and BuildKit see it.

mod extensions;
mod sparse;

use std::io::{self, Read};

use extensions::{Extensions, number, text};
use sparse::Sparse;
use tar::{EntryType, Header};

use crate::tree::{Kind, Node, Timestamp};

const BLOCK: u64 = 512;
/// Most bytes of a member's PAX records or long name: Go's archive/tar, which reads most layers, takes no more.
const MOST_EXTENSION_BYTES: u64 = 1024 * 1024;

/// A member's header, with all that its extensions said.
#[derive(Debug)]
pub struct Member {
    /// The name as it stands in the tar.
    pub name: Vec<u8>,
    /// What it is; of a hard link only the attributes mean something.
    pub node: Node,
    /// The target of a hard link.
    pub hard_link: Option<Vec<u8>>,
}

/// Why there is no next member.
#[derive(Debug)]
pub enum Broken {
    /// The stream ended or is no tar.
    Stream(io::Error),
    /// This member is one that cannot be.
    Member(Vec<u8>, &'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Stream(error)
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> io::Error {
        match broken {
            Broken::Stream(error) => error,
            Broken::Member(name, reason) => {
                let text = format!("entry {:?} {reason}", String::from_utf8_lossy(&name));
                io::Error::new(io::ErrorKind::InvalidData, text)
            }
        }
    }
}

fn malformed(what: &'static str) -> Broken {
    Broken::Stream(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Reads members; between two of them, `Read` gives the content of the first.
pub struct Members<R> {
    tar: R,
    /// Bytes of the current member that were not read from the tar, without padding.
    left: u64,
    padding: u64,
    sparse: Option<Sparse>,
    /// Was there a header yet?
    begun: bool,
}

impl<R: Read> Members<R> {
    /// Reads `tar`, which is not compressed.
    pub fn new(tar: R) -> Members<R> {
        Members { tar, left: 0, padding: 0, sparse: None, begun: false }
    }

    /// The next member, `None` at the end. What was not read of the one before is skipped.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be read from between two members")]
    pub fn next(&mut self) -> Result<Option<Member>, Broken> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(malformed("a tar header is missing at the end"))
                };
            };
            let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| malformed("a tar header has an impossible size"))?;
            match header.entry_type() {
                EntryType::XHeader => extensions.pax(&self.extension(size)?)?,
                EntryType::GNULongName => extensions.name = Some(text(&self.extension(size)?).to_vec()),
                EntryType::GNULongLink => extensions.link = Some(text(&self.extension(size)?).to_vec()),
                EntryType::XGlobalHeader => self.expect(size),
                _ => return self.member(&header, size, extensions).map(Some),
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member, Broken> {
        let Extensions { name, link, size: long_size, uid, gid, mtime, mut xattrs, sparse_size } = extensions;
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        let bad = |reason| Broken::Member(name.clone(), reason);
        let id = |long: Option<u32>, field: &[u8]| {
            long.or_else(|| number(field).and_then(|id| u32::try_from(id).ok()))
                .ok_or_else(|| bad("has an impossible owner"))
        };
        let uid = id(uid, &header.as_old().uid)?;
        let gid = id(gid, &header.as_old().gid)?;
        let mode = number(&header.as_old().mode).ok_or_else(|| bad("has an impossible mode"))? as u32 & 0o7777;
        let seconds = || number(&header.as_old().mtime).ok_or_else(|| bad("has an impossible time"));
        let mtime = mtime.map_or_else(|| seconds().map(Timestamp::from_seconds), Ok)?;
        let mut size = long_size.unwrap_or(size);
        let is_directory = name.ends_with(b"/") && matches!(header.entry_type(), EntryType::Regular);
        let device = || {
            let part = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
            (part(header.device_major()), part(header.device_minor()))
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular if is_directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                self.expect(size);
                if let Some(real) = sparse_size {
                    self.sparse = Some(Sparse::of_pax(self, real)?);
                    size = real;
                }
                Kind::File { size, content: None }
            }
            EntryType::GNUSparse => {
                let sparse = Sparse::of_gnu(self, header)?;
                self.expect(size);
                size = sparse.size;
                self.sparse = Some(sparse);
                Kind::File { size, content: None }
            }
            EntryType::Link => Kind::File { size: 0, content: None },
            EntryType::Symlink if link.is_empty() => return Err(bad("is a symlink without a target")),
            EntryType::Symlink => Kind::Symlink { target: link.clone().into() },
            EntryType::Char => Kind::CharDevice { major: device().0, minor: device().1 },
            EntryType::Block => Kind::BlockDevice { major: device().0, minor: device().1 },
            EntryType::Fifo => Kind::Fifo,
            _ => return Err(bad("is of a kind that is not known")),
        };
        xattrs.sort();
        xattrs.dedup_by(|later, first| later.0 == first.0);
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { mode };
        let hard_link = (header.entry_type() == EntryType::Link).then_some(link);
        Ok(Member { name, node: Node { kind, mode, uid, gid, mtime, xattrs }, hard_link })
    }

    /// The next header block; `None` at the end of the tar, marked by zeros or not.
    fn header(&mut self) -> Result<Option<Header>, Broken> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.tar.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !checksum_is_right(&header) {
            return Err(malformed(if self.begun {
                "a tar header has a wrong checksum"
            } else {
                "this is neither a tar nor the gzip, zstd, bzip2 or xz of one: it begins with no tar header"
            }));
        }
        self.begun = true;
        Ok(Some(header))
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    /// The whole content of an extension's member.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Broken> {
        if size > MOST_EXTENSION_BYTES {
            return Err(malformed("a tar header has more than 1 MiB of extensions"));
        }
        self.expect(size);
        let mut bytes = Vec::new();
        self.by_ref().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        self.sparse = None;
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.tar.by_ref().take(rest), &mut io::sink())?;
        if skipped < rest { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Reads what is stored; `0` only at the end of the member.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.tar.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the tar ends {} bytes early", self.left),
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut sparse) = self.sparse.take() else { return self.read_stored(buffer) };
        let read = sparse.read(self, buffer);
        self.sparse = Some(sparse);
        read
    }
}

/// The sum of all bytes, the checksum's own counting as spaces; old tars summed signed bytes.
pub(super) fn checksum_is_right(header: &Header) -> bool {
    let bytes =
        header.as_bytes().iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let (unsigned, signed) = bytes
        .fold((0_i64, 0_i64), |(unsigned, signed), byte| (unsigned + i64::from(byte), signed + i64::from(byte as i8)));
    number(&header.as_old().cksum).is_some_and(|stored| stored == unsigned || stored == signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// What GNU tar makes of a file with holes comes back whole, in each of its forms.
    #[test]
    #[expect(clippy::print_stdout, reason = "a test that cannot run here says why")]
    fn sparse_files_of_gnu_tar() {
        let place = tempfile::tempdir().expect("a directory");
        let mut content = vec![0; 3_000_000];
        let file = std::fs::File::create(place.path().join("holes")).expect("created");
        file.set_len(3_000_000).expect("grown");
        for start in (0..40).map(|piece| piece * 70_000) {
            content[start..start + 5000].fill(b'x');
            file.write_all_at(&content[start..start + 5000], start as u64).expect("written");
        }
        for (format, known) in
            [("gnu", true), ("posix --sparse-version=1.0", true), ("posix --sparse-version=0.1", false)]
        {
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!(
                    "cd '{}' && tar --hole-detection=raw -S -c --format={format} holes",
                    place.path().display()
                ))
                .output();
            let Ok(output) =
                output.as_ref().map_err(|_| ()).and_then(|output| output.status.success().then_some(output).ok_or(()))
            else {
                println!("skipped: no GNU tar here");
                return;
            };
            assert!(output.stdout.len() < content.len() / 2, "the tar has holes");
            let mut members = Members::new(&*output.stdout);
            if !known {
                assert!(members.next().is_err());
                continue;
            }
            let member = members.next().expect("a tar").expect("a member");
            assert_eq!(
                (member.name.as_slice(), &member.node.kind),
                (&b"holes"[..], &Kind::File { size: 3_000_000, content: None })
            );
            let mut read = Vec::new();
            members.read_to_end(&mut read).expect("read");
            assert!(read == content, "{format}");
            assert!(members.next().expect("the end").is_none());
        }
    }
}
