//! Layers of a base come from the registry while those below them are unpacked.
//!
//! What comes goes to the blob store as ever, checked and whole; only who unpacks need not wait for all of it. When one of
//! the two ends with an error, so does the other.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::stage::World;
use crate::blobs::BlobStore;
use crate::oci::{Descriptor, Digest};
use crate::registry::{self, Progress, RemoteImage};
use crate::sys::Stop;

/// What is here of the layers that were asked for.
pub(super) struct Arrivals<'a> {
    store: &'a BlobStore,
    listener: &'a dyn Progress,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    here: HashSet<Digest>,
    /// Nothing more comes.
    is_over: bool,
    /// Somebody waited for one that did not come.
    was_missed: bool,
}

/// A layer did not come. The error of whoever fetched it says why.
#[derive(Debug, thiserror::Error)]
#[error("the layer was not fetched")]
pub(super) struct NotFetched;

impl<'a> Arrivals<'a> {
    pub(super) fn new(store: &'a BlobStore, listener: &'a dyn Progress) -> Arrivals<'a> {
        Arrivals { store, listener, state: Mutex::default(), news: Condvar::new() }
    }

    /// Waits until a blob is in the store.
    pub(super) fn wait_for(&self, digest: &Digest) -> Result<(), NotFetched> {
        let mut state = self.state();
        while !state.here.contains(digest) && !self.store.contains(digest) {
            if state.is_over {
                state.was_missed = true;
                return Err(NotFetched);
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Did somebody wait for a layer in vain?
    fn was_missed(&self) -> bool {
        self.state().was_missed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.news.notify_all();
    }
}

impl Progress for Arrivals<'_> {
    fn started(&self, blob: &Descriptor) {
        self.listener.started(blob);
    }

    fn advanced(&self, blob: &Descriptor, bytes: u64) {
        self.listener.advanced(blob, bytes);
    }

    fn finished(&self, blob: &Descriptor) {
        self.listener.finished(blob);
        self.tell(|state| {
            state.here.insert(blob.digest);
        });
    }
}

/// Nobody waits any longer, however the fetching ended.
struct Over<'a, 'b>(&'a Arrivals<'b>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.tell(|state| state.is_over = true);
    }
}

/// Fetches the layers of `image` that are not here while `work` is done, which waits for those that it needs. Where no image
/// is given, all that `work` needs is in the store.
pub(super) fn while_fetching<T, E: From<registry::Error>>(
    world: &World<'_>,
    image: Option<&RemoteImage>,
    work: impl FnOnce(&Arrivals<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let (client, store) = (world.client, world.store);
    let arrivals = Arrivals::new(store, &*world.request.listeners.downloads);
    beside(
        &arrivals,
        |enough| match image {
            Some(image) => client.fetch_blobs_until(enough, image, &image.manifest.layers, store, &arrivals),
            None => Ok(()),
        },
        || work(&arrivals),
    )
}

/// Does both at once. Where `work` missed a layer, the error of `fetch` counts.
fn beside<T, E: From<registry::Error>>(
    arrivals: &Arrivals<'_>,
    fetch: impl FnOnce(&Stop) -> Result<(), registry::Error> + Send,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let enough = Stop::new();
    thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let _over = Over(arrivals);
            fetch(&enough)
        });
        let worked = work();
        if worked.is_err() {
            enough.ask();
        }
        let fetched = fetching.join().expect("no panic while fetching");
        match (worked, fetched) {
            (Ok(done), fetched) => fetched.map(|()| done).map_err(E::from),
            (Err(_), Err(error)) if arrivals.was_missed() => Err(error.into()),
            (Err(error), _) => Err(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::error::Error;
    use super::*;
    use crate::http;
    use crate::registry::Silent;
    use crate::sys::Stopped;

    fn gone() -> registry::Error {
        http::Error::Stopped(Stopped).into()
    }

    fn unpacking(arrivals: &Arrivals<'_>, digest: &Digest) -> Result<(), Error> {
        arrivals.wait_for(digest).map_err(|source| Error::Unpack {
            base: "base".into(),
            source: crate::layer::Error::Open { digest: *digest, source: source.into() },
        })
    }

    #[test]
    fn each_layer_is_awaited_and_errors_end_both() {
        let place = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(place.path()).expect("opened");
        let arrivals = &Arrivals::new(&store, &Silent);
        let (one, two) = (store.write(b"one").expect("written"), Digest::of(b"two"));

        // the second comes while the first is at work, and not before
        let (send, receive) = std::sync::mpsc::channel();
        let fetch = move |_: &Stop| {
            receive.recv().expect("the first was there without waiting");
            arrivals.finished(&Descriptor::new("layer", two, 3));
            Ok(())
        };
        let both = beside(arrivals, fetch, || {
            unpacking(arrivals, &one)?;
            send.send(()).expect("somebody listens");
            unpacking(arrivals, &two)
        });
        both.expect("both came");

        // who fetches fails: who waits hears of it, and the reason is told
        let arrivals = &Arrivals::new(&store, &Silent);
        let failed = beside(arrivals, |_| Err(gone()), || unpacking(arrivals, &two));
        assert!(matches!(failed, Err(Error::Registry(_))), "{failed:?}");

        // who unpacks fails: who fetches is told to end
        let arrivals = &Arrivals::new(&store, &Silent);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let endless = |enough: &Stop| {
            let stopped: Result<(), Stopped> = runtime.block_on(enough.interrupting(std::future::pending()));
            stopped.map_err(|_| gone())
        };
        let failed = beside(arrivals, endless, || Err::<(), _>(Error::Stopped(2)));
        assert!(matches!(failed, Err(Error::Stopped(2))), "{failed:?}");
    }
}
