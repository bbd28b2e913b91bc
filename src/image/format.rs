//! [`Format`]: whose media types an image has.

use super::{Error, Layered};
use crate::oci::{Manifest, media_type};

/// Whose media types the manifest and our layers carry. An image follows its base, unless a format was asked for; without
/// a base it is Docker's, as kaniko's images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Docker schema 2.
    Docker,
    /// OCI image spec.
    Oci,
}

/// What Docker and the image spec call the same layer.
const LAYER_TYPES: [(&str, &str); 3] = [
    (media_type::DOCKER_LAYER, media_type::OCI_LAYER),
    (media_type::DOCKER_LAYER_GZIP, media_type::OCI_LAYER_GZIP),
    (media_type::DOCKER_LAYER_FOREIGN, media_type::OCI_LAYER_FOREIGN),
];

/// A name of a format that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("docker or oci is wanted")]
pub struct BadFormat;

impl std::str::FromStr for Format {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Format, BadFormat> {
        match text {
            "docker" => Ok(Format::Docker),
            "oci" => Ok(Format::Oci),
            _ => Err(BadFormat),
        }
    }
}

impl Format {
    /// The format of a base, by its manifest's media type (or its config's, since OCI manifests may not name theirs).
    pub fn of(manifest: &Manifest) -> Format {
        let manifest_type = manifest.media_type.as_deref().unwrap_or_default();
        match (manifest_type, manifest.config.media_type.as_str()) {
            (media_type::DOCKER_MANIFEST, _) => Format::Docker,
            ("", media_type::DOCKER_CONFIG) => Format::Docker,
            _ => Format::Oci,
        }
    }

    /// What a layer of this media type is called in this format; an error where the format has no name for it.
    pub fn layer_type(self, written: &str) -> Result<&str, Error> {
        let is_docker = |name: &str| LAYER_TYPES.iter().any(|(docker, _)| *docker == name);
        match self {
            // BuildKit's word, which the readers of Docker's format do not know
            Format::Oci if written == media_type::DOCKER_LAYER_ZSTD => Ok(media_type::OCI_LAYER_ZSTD),
            Format::Oci => Ok(LAYER_TYPES.iter().find(|(docker, _)| *docker == written).map_or(written, |row| row.1)),
            Format::Docker if is_docker(written) => Ok(written),
            Format::Docker => match LAYER_TYPES.iter().find(|(_, oci)| *oci == written) {
                Some((docker, _)) => Ok(docker),
                None => Err(Error::NotDocker { media_type: written.to_owned() }),
            },
        }
    }
}

/// The layers with the names that `format` has for them; their bytes stay as they are.
pub fn with_types_of(format: Format, mut layers: Vec<Layered>) -> Result<Vec<Layered>, Error> {
    for layer in &mut layers {
        layer.descriptor.media_type = format.layer_type(&layer.descriptor.media_type)?.to_owned();
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_have_a_name_in_both_formats() {
        for (docker, oci) in LAYER_TYPES {
            for written in [docker, oci] {
                assert_eq!(Format::Docker.layer_type(written).ok(), Some(docker));
                assert_eq!(Format::Oci.layer_type(written).ok(), Some(oci));
            }
        }
        for zstd in [media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD] {
            assert_eq!(Format::Oci.layer_type(zstd).ok(), Some(media_type::OCI_LAYER_ZSTD));
            assert!(matches!(Format::Docker.layer_type(zstd), Err(Error::NotDocker { .. })));
        }
    }
}
