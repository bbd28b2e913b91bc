//! [`ResultFiles`]: what scripts read once the image is there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::blobs::{self, Partial};
use crate::http::{self, FilePlace};
use crate::oci::{Destination, Digest};

/// Where results go: into a file, or to a server by PUT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ResultFiles {
    /// The digest, without a newline.
    pub(super) digest_file: Option<FilePlace>,
    /// A line per destination: repository and digest.
    pub(super) image_name_with_digest_file: Option<FilePlace>,
    /// A line per destination: repository, tag and digest.
    pub(super) image_name_tag_with_digest_file: Option<FilePlace>,
    /// A directory that gets a file `images` with a line of JSON per destination.
    pub(super) builder_output: Option<PathBuf>,
}

/// Results that can be written, whatever the build does to the root and the certificates in it.
pub(super) struct ReadyResults<'a> {
    files: &'a ResultFiles,
    http: Option<http::Client>,
}

/// Of a file that a link names which is not there yet.
const MODE: u32 = 0o644;

impl ResultFiles {
    fn named(&self) -> impl Iterator<Item = &FilePlace> {
        [&self.image_name_with_digest_file, &self.image_name_tag_with_digest_file].into_iter().flatten()
    }

    /// All that are files of this machine.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.digest_file.iter().chain(self.named()).filter_map(|place| match place {
            FilePlace::Path(path) => Some(path),
            FilePlace::Address(_) => None,
        });
        files.chain(&self.builder_output).map(PathBuf::as_path)
    }

    /// Reads certificates if anything is to be sent.
    pub(super) fn ready(&self, settings: &http::Settings) -> Result<ReadyResults<'_>, http::Error> {
        let is_sent = self.digest_file.iter().chain(self.named()).any(|place| matches!(place, FilePlace::Address(_)));
        let http = is_sent.then(|| http::Client::new(settings.clone())).transpose()?;
        Ok(ReadyResults { files: self, http })
    }
}

impl ReadyResults<'_> {
    /// Writes them all, once the image is where it should be.
    pub(super) fn write(&self, destinations: &[Destination], digest: &Digest) -> Result<(), Error> {
        if let Some(place) = &self.files.digest_file {
            self.write_to(place, &digest.to_string())?;
        }
        // kaniko's: where a file with tags is asked for, the other one has them, too
        let has_tags = self.files.image_name_tag_with_digest_file.is_some();
        let line = |destination: &Destination| {
            let tag = if has_tags { format!(":{}", destination.tag()) } else { String::new() };
            format!("{}{tag}@{digest}\n", destination.repository())
        };
        let named: String = destinations.iter().map(line).collect();
        for place in self.files.named() {
            self.write_to(place, &named)?;
        }
        if let Some(directory) = &self.files.builder_output {
            let line = |destination: &Destination| {
                let value = serde_json::json!({ "name": destination.typed(), "digest": digest.to_string() });
                format!("{value}\n")
            };
            write(&directory.join("images"), &destinations.iter().map(line).collect::<String>())?;
        }
        Ok(())
    }

    fn write_to(&self, place: &FilePlace, text: &str) -> Result<(), Error> {
        match place {
            FilePlace::Path(path) => write(path, text),
            FilePlace::Address(address) => {
                let http = self.http.as_ref().expect("it is made where a result is to be sent");
                Ok(http.put(address, text)?)
            }
        }
    }
}

/// A file that is new appears whole or not at all. What is there is written in place, not replaced: it may be a mounted file
/// or a pipe.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(directory)?;
        if fs::symlink_metadata(path).is_err() {
            blobs::sweep(directory);
            let mut file = Partial::begin(directory)?;
            file.write_all(text.as_bytes())?;
            return file.finish(path);
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path)?;
        // there is no moment at which the file is empty
        file.write_all(text.as_bytes())?;
        if file.metadata()?.is_file() { file.set_len(text.len() as u64) } else { Ok(()) }
    };
    write().map_err(|source| Error::WriteResult { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn destinations(typed: &[&str]) -> Vec<Destination> {
        typed.iter().map(|text| text.parse().expect("a name")).collect()
    }

    fn write_all(files: &ResultFiles, destinations: &[Destination], digest: &Digest) -> Result<(), Error> {
        let ready = files.ready(&http::Settings::default()).expect("ready");
        assert!(ready.http.is_none(), "certificates are read for nothing");
        ready.write(destinations, digest)
    }

    #[test]
    fn names_have_tags_only_where_they_are_asked_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("named");
        let place = Some(FilePlace::Path(file.clone()));
        let files = ResultFiles { image_name_with_digest_file: place, ..ResultFiles::default() };
        let digest = Digest::of(b"an image");
        write_all(&files, &destinations(&["r.example/a:1", "team/b"]), &digest).expect("written");
        let lines = format!("r.example/a@{digest}\nindex.docker.io/team/b@{digest}\n");
        assert_eq!(fs::read_to_string(file).expect("a file"), lines);
    }

    #[test]
    fn each_file_in_its_form() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let digest = Digest::of(b"an image");
        let destinations = destinations(&["localhost:5000/a:1", "b"]);
        let files = ResultFiles {
            digest_file: Some(FilePlace::Path(at("new/parents/digest"))),
            image_name_with_digest_file: Some(FilePlace::Path(at("named"))),
            image_name_tag_with_digest_file: Some(FilePlace::Path(at("tagged"))),
            builder_output: Some(at("output")),
        };
        write_all(&files, &destinations, &digest).expect("written");
        let text = |name: &str| fs::read_to_string(at(name)).expect("a file");
        assert_eq!(text("new/parents/digest"), digest.to_string());
        let lines = format!("localhost:5000/a:1@{digest}\nindex.docker.io/library/b:latest@{digest}\n");
        assert_eq!((text("named"), text("tagged")), (lines.clone(), lines));
        let first = format!(r#"{{"name":"localhost:5000/a:1","digest":"{digest}"}}"#);
        let second = format!(r#"{{"name":"b","digest":"{digest}"}}"#);
        assert_eq!(text("output/images"), format!("{first}\n{second}\n"));
        let mode = fs::metadata(at("new/parents/digest")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn an_older_and_longer_result_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("digest");
        fs::write(&file, [b'x'; 200]).expect("written");
        let files = ResultFiles { digest_file: Some(FilePlace::Path(file.clone())), ..ResultFiles::default() };
        write_all(&files, &[], &Digest::of(b"")).expect("written");
        assert_eq!(fs::read_to_string(file).expect("a file"), Digest::of(b"").to_string());
    }

    #[test]
    fn a_link_stays_whether_its_file_is_there_or_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        std::os::unix::fs::symlink("file", &link).expect("linked");
        for image in [b"one", b"two"] {
            let files = ResultFiles { digest_file: Some(FilePlace::Path(link.clone())), ..ResultFiles::default() };
            write_all(&files, &[], &Digest::of(image)).expect("written");
            assert_eq!(fs::read_to_string(&file).expect("a file"), Digest::of(image).to_string());
        }
        assert!(fs::symlink_metadata(link).expect("it is there").is_symlink());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let place = FilePlace::Path("/proc/no/such/place".into());
        let files = ResultFiles { digest_file: Some(place), ..ResultFiles::default() };
        let error = write_all(&files, &[], &Digest::of(b"")).expect_err("no directory can be made in /proc");
        assert!(error.to_string().contains("/proc/no/such/place"), "{error}");
    }
}
