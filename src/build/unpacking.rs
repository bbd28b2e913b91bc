//! Blobs of layers, read to be unpacked, and who hears how far that is.

use std::error::Error as StdError;
use std::io::{self, Read};
use std::sync::Arc;

use super::fetching::Order;
use crate::blobs::{BlobReader, BlobStore};
use crate::layer::LayerBlob;
use crate::oci::Descriptor;
use crate::registry::Progress;

type Listener = Arc<dyn Progress + Send + Sync>;

/// Opens the blob of a layer once it is here; `listener` hears of it until the reader is dropped.
pub(super) fn open_layer(
    store: &BlobStore,
    order: &Order<'_>,
    layer: &LayerBlob,
    listener: &Listener,
) -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> {
    order.wait_for(&layer.descriptor.digest)?;
    let blob = store.read(&layer.descriptor.digest)?;
    listener.started(&layer.descriptor);
    Ok(Box::new(Heard { blob, read_bytes: 0, layer: layer.descriptor.clone(), listener: Arc::clone(listener) }))
}

struct Heard {
    blob: BlobReader,
    read_bytes: u64,
    layer: Descriptor,
    listener: Listener,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.read_bytes += read as u64;
        self.listener.advanced(&self.layer, self.read_bytes);
        Ok(read)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.listener.finished(&self.layer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetching::Arrivals;
    use super::*;
    use crate::oci::DiffId;
    use crate::registry::Silent;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Notes {
        fn take(&self, note: String) {
            self.0.lock().expect("not poisoned").push(note);
        }
    }

    impl Progress for Notes {
        fn started(&self, blob: &Descriptor) {
            self.take(format!("{} bytes", blob.size));
        }

        fn advanced(&self, _: &Descriptor, bytes: u64) {
            self.take(bytes.to_string());
        }

        fn finished(&self, _: &Descriptor) {
            self.take("done".to_owned());
        }
    }

    #[test]
    fn what_is_read_is_heard_of() {
        let place = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(place.path()).expect("opened");
        let digest = store.write(b"a layer").expect("written");
        let layer = LayerBlob { descriptor: Descriptor::new("layer", digest, 7), diff_id: DiffId::of(b"a layer") };
        let notes = Arc::new(Notes::default());
        let listener: Listener = notes.clone();
        let arrivals = Arrivals::new(&store, &Silent);
        let mut reader = open_layer(&store, &Order::new(&arrivals), &layer, &listener).expect("opened");
        reader.read_exact(&mut [0; 3]).expect("read");
        reader.read_to_end(&mut Vec::new()).expect("read");
        drop(reader);
        let heard = notes.0.lock().expect("not poisoned").clone();
        assert_eq!(
            (heard.first().map(String::as_str), heard.last().map(String::as_str)),
            (Some("7 bytes"), Some("done"))
        );
        assert_eq!(heard[1], "3");
        assert_eq!(heard[heard.len() - 2], "7");
    }
}
