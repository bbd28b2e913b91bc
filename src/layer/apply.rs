//! Brings a root to the state that a list of layers describes.

use std::error::Error as StdError;
use std::io::Read;
use std::thread;

use super::Error;
use super::decompress::ReadAhead;
use super::disk::Disk;
use super::extract::{Extractor, Target};
use crate::oci::{Descriptor, DiffId};
use crate::rootfs::{Capacity, Ignored, Root};
use crate::tree::RootIndex;

/// A layer that is to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Hash of its tar, by the image config.
    pub diff_id: DiffId,
}

/// Gives the bytes of a layer; waits until they are at hand. May be asked for the same layer twice.
pub type Opener<'a> = dyn FnMut(&LayerBlob) -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> + 'a;

/// Makes a root without files of an image hold exactly what `layers` say, lowest first, beside what is foreign and what is
/// ignored; each layer is read once. `index` says the same when it is done, and as much as has been done after an error.
///
/// A layer may unpack to as much as the disk can hold, full or empty, and to no more: a decompression bomb ends there, also
/// while it is read without writing anything, and takes no memory but for the names of as many files.
pub fn apply(
    layers: &[LayerBlob],
    open: &mut Opener<'_>,
    root: &Root,
    index: &mut RootIndex,
    ignored: &Ignored,
) -> Result<(), Error> {
    let mut disk = Disk::new(root, ignored);
    let most = root.capacity()?;
    let applied = layers.iter().try_for_each(|layer| read(layer, open, Target::Disk(&mut disk), index, most));
    let settled = disk.settle(index);
    applied.and(settled)
}

/// What layers would make of an empty root: read, but not on disk.
pub struct Description {
    pub(super) layers: Vec<LayerBlob>,
    pub(super) index: RootIndex,
}

/// Reads layers, lowest first, without writing anything; they are meant for `root`.
pub fn describe(
    layers: &[LayerBlob],
    open: &mut Opener<'_>,
    root: &Root,
    ignored: &Ignored,
) -> Result<Description, Error> {
    let most = root.capacity()?;
    let mut index = RootIndex::new();
    for (number, layer) in layers.iter().enumerate() {
        let number = u32::try_from(number).expect("an image has fewer than four billion layers");
        read(layer, open, Target::Memory { layer: number, ignored }, &mut index, most)?;
    }
    Ok(Description { layers: layers.to_vec(), index })
}

/// Reads one layer to its end and checks that it was the one that the image config means.
fn read(
    layer: &LayerBlob,
    open: &mut Opener<'_>,
    target: Target<'_, '_>,
    index: &mut RootIndex,
    most: Capacity,
) -> Result<(), Error> {
    let digest = layer.descriptor.digest;
    let blob = open(layer).map_err(|source| Error::Open { digest, source })?;
    let found = thread::scope(|scope| {
        let mut tar = ReadAhead::start(scope, blob, most.bytes);
        let name = digest.to_string();
        Extractor::new(target, index, name.clone(), most).extract(&mut tar)?;
        tar.finish().map_err(|source| Error::Read { name, source })
    })?;
    if found != layer.diff_id {
        return Err(Error::WrongDiffId { digest, expected: layer.diff_id, found });
    }
    Ok(())
}
