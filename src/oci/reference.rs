//! Names of images, as people type them.

use std::str::FromStr;

use super::{BadReference, Reference};

/// Reads a name with Docker's defaults. Repositories are in lower case, which [`Reference`]'s own parser does not check
/// behind a first part that could be a host: `Team/app` would be asked of Docker Hub.
pub fn parse_reference(text: &str) -> Result<Reference, BadReference> {
    let reference: Reference = text.parse()?;
    match reference.repository().bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Err(BadReference::NameContainsUppercase),
        false => Ok(reference),
    }
}

/// A name that an image gets. It has a tag and no digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    reference: Reference,
    typed: String,
}

/// A text that is no name for an image to be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDestination {
    /// It is no name at all.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// An image is pushed under a tag; its digest is what it is.
    #[error("it has a digest, and an image is pushed under a tag")]
    Digest,
}

impl Destination {
    /// What it means.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// As it was typed.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// The tag, `latest` if none was typed.
    pub fn tag(&self) -> &str {
        self.reference.tag().unwrap_or("latest")
    }

    /// As it was typed, and with its tag: how a saved image calls itself.
    pub fn tagged(&self) -> String {
        let tag = format!(":{}", self.tag());
        if self.typed.ends_with(&tag) { self.typed.clone() } else { format!("{}{tag}", self.typed) }
    }

    /// Registry and repository in full; Docker Hub is `index.docker.io`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.reference.resolve_registry(), self.reference.repository())
    }
}

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Destination, BadDestination> {
        let reference = parse_reference(text)?;
        match reference.digest() {
            Some(_) => Err(BadDestination::Digest),
            None => Ok(Destination { reference, typed: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_lower_case() {
        assert_eq!(parse_reference("Team/app"), Err(BadReference::NameContainsUppercase));
        assert!(parse_reference("App").is_err());
        assert!(parse_reference("Registry.example/app:Tag").is_ok());
    }

    #[test]
    fn the_forms_of_a_destination() {
        for (typed, tagged, repository) in [
            ("app", "app:latest", "index.docker.io/library/app"),
            ("team/app:1", "team/app:1", "index.docker.io/team/app"),
            ("docker.io/team/app", "docker.io/team/app:latest", "index.docker.io/team/app"),
            ("index.docker.io/team/app", "index.docker.io/team/app:latest", "index.docker.io/team/app"),
            ("localhost:5000/latest", "localhost:5000/latest:latest", "localhost:5000/latest"),
            ("gcr.io/a/b:latest", "gcr.io/a/b:latest", "gcr.io/a/b"),
        ] {
            let destination: Destination = typed.parse().expect("a name");
            assert_eq!((&*destination.tagged(), &*destination.repository()), (tagged, repository), "{typed}");
        }
        let digest = "a".repeat(64);
        for with_digest in [format!("app@sha256:{digest}"), format!("app:1@sha256:{digest}")] {
            assert_eq!(with_digest.parse::<Destination>(), Err(BadDestination::Digest));
        }
        assert!("".parse::<Destination>().is_err());
    }
}
