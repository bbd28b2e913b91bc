//! Where do build files come from, and which of them may an instruction see?
//!
//! A [`Context`] is a directory, given as such or unpacked from a tar; every access goes beneath its [`Root`], so no
//! symlink in it leads to other files of the machine. [`IgnoreFile`] holds moby's rules for `.dockerignore`, and
//! [`pattern`] its wildcards.
//!
//! [`git`] fetches repositories into directories.
//!
//! Not here: copying (`build::copy`); contexts from buckets.

pub mod git;
mod ignore;
pub mod pattern;
mod unpack;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use ignore::{IgnoreFile, Inherited, PatternList, Verdict};
pub use unpack::decompress;

use crate::rootfs::{self, Root};
use crate::sys::{Stop, UntilStopped, open_regular};
use crate::tree::ImagePath;

/// Where the build files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A tar file, plain or compressed with gzip, bzip2, xz or zstd.
    Tar(PathBuf),
    /// The same, read from standard input.
    TarStdin,
}

/// What went wrong with the context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not there or cannot be opened.
    #[error("open the build context {place:?}")]
    Open {
        /// The directory.
        place: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tar cannot be unpacked.
    #[error("unpack the build context {from}")]
    Unpack {
        /// The file, or `standard input`.
        from: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the context cannot be read.
    #[error("read {path} of the build context")]
    Read {
        /// The file, relative to the context.
        path: ImagePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line of the ignore file is no pattern.
    #[error("read {file:?}")]
    IgnoreFile {
        /// The file.
        file: PathBuf,
        /// Which pattern.
        #[source]
        source: pattern::BadPattern,
    },
}

/// The build files, as a directory.
#[derive(Debug)]
pub struct Context {
    root: Root,
}

/// Name of the directory below `scratch` into which a tar is unpacked.
const UNPACKED: &str = "context";

/// Opens `source`; `sub_path` picks a directory of it. A tar is unpacked below `scratch`, unless `stop` is asked meanwhile.
pub fn open(source: &Source, sub_path: Option<&Path>, scratch: &Path, stop: &Stop) -> Result<Context, Error> {
    let place = match source {
        Source::Directory(place) => place.clone(),
        Source::Tar(file) => {
            let place = scratch.join(UNPACKED);
            let failed = |source| Error::Unpack { from: format!("{file:?}"), source };
            let opened = UntilStopped::open(file, stop).map_err(failed)?;
            unpack::unpack(opened, &place).map_err(failed)?;
            place
        }
        Source::TarStdin => {
            let place = scratch.join(UNPACKED);
            UntilStopped::stdin(stop)
                .and_then(|stdin| unpack::unpack(stdin, &place))
                .map_err(|source| Error::Unpack { from: "standard input".to_owned(), source })?;
            place
        }
    };
    let root = open_root(&place, stop)?;
    let Some(sub_path) = sub_path else { return Ok(Context { root }) };
    let below = ImagePath::clean(sub_path.as_os_str().as_bytes());
    let below = root
        .resolve(&below, true)
        .map_err(|error| Error::Open { place: place.join(sub_path), source: error.source })?;
    Ok(Context { root: open_root(&below.below(&place), stop)? })
}

fn open_root(place: &Path, stop: &Stop) -> Result<Root, Error> {
    let failed = |source| Error::Open { place: place.to_path_buf(), source };
    if !std::fs::metadata(place).map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let root = Root::open(place).map_err(|error: rootfs::Error| failed(error.source))?;
    Ok(root.until(stop.clone()))
}

impl Context {
    /// The context directory, as a root: nothing outside of it can be reached.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The bytes of a file of the context; symlinks are followed beneath it. `None` if it is not there.
    pub fn read_file(&self, relative: &Path) -> Result<Option<Vec<u8>>, Error> {
        let written = ImagePath::clean(relative.as_os_str().as_bytes());
        let failed = |source| Error::Read { path: written.clone(), source };
        let path = self.root.resolve(&written, true).map_err(|error| failed(error.source))?;
        if self.root.stat(&path).map_err(|error| failed(error.source))?.is_none() {
            return Ok(None);
        }
        let mut file = self.root.open_file(&path).map_err(|error| failed(error.source))?;
        // a fifo that nobody writes to would pass for an empty file
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }
}

/// The context's `.dockerignore`.
pub fn ignore_file(context: &Context) -> Result<Option<IgnoreFile>, Error> {
    let file = PathBuf::from(".dockerignore");
    match context.read_file(&file)? {
        Some(text) => parse_ignore_file(file, &text).map(Some),
        None => Ok(None),
    }
}

/// The ignore file that holds for a build with this Dockerfile: `<Dockerfile>.dockerignore` beside it, even an empty
/// one, wins over the context's `.dockerignore`. A relative `dockerfile` is relative to the context.
pub fn ignore_file_for(context: &Context, dockerfile: &Path) -> Result<Option<IgnoreFile>, Error> {
    let mut beside: OsString = context.root.place().join(dockerfile).into_os_string();
    beside.push(".dockerignore");
    let beside = PathBuf::from(beside);
    let mut text = Vec::new();
    match open_regular(&beside).and_then(|mut file| file.read_to_end(&mut text)) {
        Ok(_) => parse_ignore_file(beside, &text).map(Some),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            ignore_file(context)
        }
        Err(source) => Err(Error::Open { place: beside, source }),
    }
}

fn parse_ignore_file(file: PathBuf, text: &[u8]) -> Result<IgnoreFile, Error> {
    IgnoreFile::parse(text).map_err(|source| Error::IgnoreFile { file, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::sys::fs::{CWD, Mode, mkfifoat};

    #[test]
    fn files_come_from_beneath_the_context() {
        let place = tempfile::tempdir().expect("a directory");
        let context = place.path().join("context");
        fs::create_dir_all(context.join("sub")).expect("made");
        fs::write(place.path().join("secret"), "outside").expect("written");
        fs::write(context.join("sub/file"), "inside").expect("written");
        symlink("sub/file", context.join("link")).expect("linked");
        symlink("../secret", context.join("escape")).expect("linked");
        let opened = open(&Source::Directory(context.clone()), None, place.path(), &Stop::new()).expect("opened");
        let read = |path: &str| opened.read_file(Path::new(path)).expect("read");
        assert_eq!(read("sub/file").as_deref(), Some(&b"inside"[..]));
        assert_eq!(read("link").as_deref(), Some(&b"inside"[..]));
        assert_eq!(read("escape"), None);
        assert_eq!(read("../secret"), None);
        let sub =
            open(&Source::Directory(context), Some(Path::new("sub")), place.path(), &Stop::new()).expect("opened");
        assert!(sub.read_file(Path::new("file")).expect("read").is_some());
        let missing = Source::Directory(place.path().join("none"));
        assert!(matches!(open(&missing, None, place.path(), &Stop::new()), Err(Error::Open { .. })));
    }

    #[test]
    fn an_empty_tar_is_told_and_leaves_nothing() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("empty.tar");
        fs::write(&file, "").expect("written");
        let error =
            open(&Source::Tar(file), None, &place.path().join("scratch"), &Stop::new()).expect_err("no context");
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(reason.as_deref(), Some("there is nothing in it"));
        assert!(!place.path().join("scratch").exists());
    }

    #[test]
    fn the_ignore_file_beside_the_dockerfile_wins() {
        let place = tempfile::tempdir().expect("a directory");
        let context =
            open(&Source::Directory(place.path().to_path_buf()), None, place.path(), &Stop::new()).expect("opened");
        let matches = |dockerfile: &str| {
            ignore_file_for(&context, Path::new(dockerfile))
                .expect("read")
                .map(|file| (file.matches(b"a"), file.matches(b"b")))
        };
        assert_eq!(matches("Dockerfile"), None);
        fs::write(place.path().join(".dockerignore"), "a").expect("written");
        assert_eq!(matches("Dockerfile"), Some((true, false)));
        fs::write(place.path().join("Dockerfile.dockerignore"), "b").expect("written");
        assert_eq!(matches("Dockerfile"), Some((false, true)));
        fs::write(place.path().join("Dockerfile.dockerignore"), "").expect("written");
        assert_eq!(matches("Dockerfile"), Some((false, false)));
        assert_eq!(matches("Other"), Some((true, false)));
    }

    #[test]
    fn nobody_waits_for_a_fifo() {
        let place = tempfile::tempdir().expect("a directory");
        let context =
            open(&Source::Directory(place.path().to_path_buf()), None, place.path(), &Stop::new()).expect("opened");
        let told = |dockerfile: &str| {
            let error = ignore_file_for(&context, Path::new(dockerfile)).err()?;
            std::error::Error::source(&error).map(ToString::to_string)
        };
        for (fifo, dockerfile) in [("Dockerfile.dockerignore", "Dockerfile"), (".dockerignore", "Other")] {
            assert_eq!(told(dockerfile), None, "{fifo} is not there");
            mkfifoat(CWD, place.path().join(fifo), Mode::RWXU).expect("created");
            assert_eq!(told(dockerfile).as_deref(), Some("it is no regular file"), "{fifo}");
        }
    }

    #[test]
    fn a_tar_of_any_compression() {
        let place = tempfile::tempdir().expect("a directory");
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o750);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, "d/f", &b"hi"[..]).expect("appended");
        let tar = builder.into_inner().expect("finished");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).expect("compressed");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&tar).expect("compressed");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).expect("compressed");
        let zstd = zstd::encode_all(&tar[..], 1).expect("compressed");
        let forms = [
            tar,
            gzip.finish().expect("finished"),
            bzip2.finish().expect("finished"),
            xz.finish().expect("finished"),
            zstd,
        ];
        for (number, form) in forms.into_iter().enumerate() {
            let file = place.path().join(format!("{number}.tar"));
            fs::write(&file, form).expect("written");
            let scratch = place.path().join(format!("{number}"));
            let context = open(&Source::Tar(file), None, &scratch, &Stop::new()).expect("opened");
            assert_eq!(context.read_file(Path::new("d/f")).expect("read").as_deref(), Some(&b"hi"[..]));
            let metadata = fs::metadata(scratch.join("context/d/f")).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o750);
        }
        let silent = place.path().join("silent");
        mkfifoat(CWD, &silent, Mode::RWXU).expect("created");
        let stop = Stop::new();
        stop.ask();
        let given_up = open(&Source::Tar(silent), None, &place.path().join("quiet"), &stop);
        assert!(matches!(given_up, Err(Error::Unpack { .. })));
        let garbage = place.path().join("garbage");
        fs::write(&garbage, [7_u8; 700]).expect("written");
        assert!(matches!(
            open(&Source::Tar(garbage), None, &place.path().join("g"), &Stop::new()),
            Err(Error::Unpack { .. })
        ));
    }
}
