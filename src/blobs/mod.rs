//! The content-addressed blob store in the work directory: an OCI image layout without an index.
//!
//! Promise: a blob that is here is whole and is what its digest says; it got here under a temporary name and was
//! renamed. What was written once is never compressed or hashed again. Of a process that is killed nothing stays for
//! longer than until the next opens the store.
//!
//! Not here: what blobs mean (`layer`, `image`), where they go (`registry`).

mod partial;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::oci::{Digest, Sha256Stream};
use crate::sys::Stop;

pub use partial::{Partial, sweep};

/// Image spec, "Image Layout": the file that says what the directory is.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// What went wrong with the blob store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call on a file of the store was refused.
    #[error("{action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not those that the digest promises.
    #[error("blob {expected} has digest {found}: it was damaged or replaced on the way")]
    WrongDigest {
        /// The digest that was asked for.
        expected: Digest,
        /// That of the bytes that came.
        found: Digest,
    },
    /// There are more or fewer bytes than the descriptor says.
    #[error("blob {digest} has {found} bytes instead of {expected}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Bytes by its descriptor.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
}

/// Blobs on disk, by digest.
#[derive(Debug, Clone)]
pub struct BlobStore {
    place: PathBuf,
    stop: Stop,
}

impl BlobStore {
    /// Opens the store at `place`, making it if it is not there.
    pub fn open(place: &Path) -> Result<BlobStore, Error> {
        let failed = |source| Error::Io { action: "create", path: place.to_path_buf(), source };
        let store = BlobStore { place: place.to_path_buf(), stop: Stop::new() };
        fs::create_dir_all(store.directory()).map_err(failed)?;
        sweep(&store.directory());
        sweep(place);
        let layout = place.join("oci-layout");
        if !layout.exists() {
            let mut file = Partial::begin(place).map_err(failed)?;
            file.write_all(OCI_LAYOUT).and_then(|()| file.finish(&layout)).map_err(failed)?;
        }
        Ok(store)
    }

    /// The same store, whose blobs can be neither read nor written any further once `stop` is asked.
    pub fn until(self, stop: Stop) -> BlobStore {
        BlobStore { stop, ..self }
    }

    /// Where the store is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The file that holds, or would hold, a blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory().join(digest.hex())
    }

    fn directory(&self) -> PathBuf {
        self.place.join("blobs/sha256")
    }

    /// Is the blob here?
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a blob for reading.
    pub fn read(&self, digest: &Digest) -> Result<BlobReader, Error> {
        let path = self.path(digest);
        let file = File::open(&path).map_err(|source| Error::Io { action: "open blob", path, source })?;
        Ok(BlobReader { file, stop: self.stop.clone() })
    }

    /// Starts a blob; it appears in the store when it is finished, and leaves nothing behind when it is not.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        let directory = self.directory();
        let file = Partial::begin(&directory).map_err(|source| Error::Io {
            action: "create a blob in",
            path: directory,
            source,
        })?;
        Ok(BlobWriter { file, passed: Sha256Stream::new(), stop: self.stop.clone() })
    }

    /// Stores bytes that are at hand.
    pub fn write(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|source| writer.error("write", source))?;
        Ok(writer.finish()?.0)
    }

    /// Takes a blob out of the store.
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove blob", path, source })
            }
            _ => Ok(()),
        }
    }
}

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    stop: Stop,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.file.read(buffer)
    }
}

/// A blob that is being written. Has no digest to ask for until it is finished.
pub struct BlobWriter {
    file: Partial,
    passed: Sha256Stream,
    stop: Stop,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.passed.size_bytes()
    }

    /// Names the file in an error of the caller's.
    pub fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Io { action, path: self.file.path().to_path_buf(), source }
    }

    /// Ends the blob, whatever its digest turned out to be.
    pub fn finish(self) -> Result<(Digest, u64), Error> {
        let size = self.passed.size_bytes();
        let digest = Digest::from(self.passed.finish());
        let directory = self.file.path().parent().unwrap_or(Path::new("."));
        let path = directory.join(digest.hex());
        let failed = |source| Error::Io { action: "store blob", path: path.clone(), source };
        self.file.finish(&path).map_err(failed)?;
        Ok((digest, size))
    }

    /// Ends a blob that must be what a descriptor says; if it is not, nothing stays.
    pub fn finish_as(self, digest: Digest, size: u64) -> Result<(), Error> {
        if self.passed.size_bytes() != size {
            return Err(Error::WrongSize { digest, expected: size, found: self.passed.size_bytes() });
        }
        let found = Digest::from(self.passed.clone().finish());
        if found != digest {
            return Err(Error::WrongDigest { expected: digest, found });
        }
        self.finish().map(drop)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        let written = self.file.write(bytes)?;
        self.passed.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(place.path()).expect("opened");
        let digest = store.write(b"hello").expect("written");
        let mut text = String::new();
        store.read(&digest).expect("opened").read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");

        let mut writer = store.writer().expect("a writer");
        writer.write_all(b"half").expect("written");
        drop(writer);
        let mut writer = store.writer().expect("a writer");
        writer.write_all(b"other").expect("written");
        assert!(matches!(writer.finish_as(digest, 5), Err(Error::WrongDigest { .. })));
        let mut writer = store.writer().expect("a writer");
        writer.write_all(b"hello!").expect("written");
        assert!(matches!(writer.finish_as(digest, 5), Err(Error::WrongSize { found: 6, .. })));
        assert_eq!(fs::read_dir(store.directory()).expect("listed").count(), 1);
        store.remove(&digest).expect("removed");
        assert!(!store.contains(&digest));
    }

    #[test]
    fn nothing_moves_once_we_are_asked_to_end() {
        let place = tempfile::tempdir().expect("a directory");
        let stop = Stop::new();
        let store = BlobStore::open(place.path()).expect("opened").until(stop.clone());
        let digest = store.write(b"hello").expect("written");
        let (mut reader, mut writer) = (store.read(&digest).expect("opened"), store.writer().expect("a writer"));
        stop.ask();
        assert!(reader.read(&mut [0; 5]).is_err());
        assert!(writer.write_all(b"half").is_err());
        drop(writer);
        assert_eq!(fs::read_dir(store.directory()).expect("listed").count(), 1);
    }
}
