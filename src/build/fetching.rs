//! Layers of a base come from the registry while those below them are unpacked.
//!
//! What comes goes to the blob store as ever, checked and whole; only who unpacks need not wait for all of it. When one of
//! the two ends with an error, so does the other. Of the stages that want the same layer at the same time, one fetches it,
//! and another takes over if that one fails.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tracing::Span;

use super::stage::World;
use crate::blobs::BlobStore;
use crate::http;
use crate::oci::{Descriptor, Digest};
use crate::registry::{self, Progress, RemoteImage};
use crate::sys::Stop;

/// What is on its way of the layers that the stages of a build ask for.
pub(super) struct Arrivals<'a> {
    store: &'a BlobStore,
    listener: &'a dyn Progress,
    under_way: Mutex<HashSet<Digest>>,
    news: Condvar,
}

/// A layer did not come. The error of whoever fetched it says why.
#[derive(Debug, thiserror::Error)]
#[error("the layer was not fetched")]
pub(super) struct NotFetched;

impl<'a> Arrivals<'a> {
    /// Nothing is on its way to `store`.
    pub(super) fn new(store: &'a BlobStore, listener: &'a dyn Progress) -> Arrivals<'a> {
        Arrivals { store, listener, under_way: Mutex::default(), news: Condvar::new() }
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'m>(&self, under_way: MutexGuard<'m, HashSet<Digest>>) -> MutexGuard<'m, HashSet<Digest>> {
        self.news.wait(under_way).unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what those who wait look at.
    fn tell(&self, change: impl FnOnce(&mut HashSet<Digest>)) {
        change(&mut self.under_way());
        self.news.notify_all();
    }
}

/// The layers that one stage asks for.
pub(super) struct Order<'a> {
    arrivals: &'a Arrivals<'a>,
    /// Asked when nobody wants them any longer.
    enough: Stop,
    /// Nothing more comes.
    is_over: AtomicBool,
    /// Somebody waited for one that did not come.
    was_missed: AtomicBool,
}

impl<'a> Order<'a> {
    /// Nothing was ordered so far.
    pub(super) fn new(arrivals: &'a Arrivals<'a>) -> Order<'a> {
        Order { arrivals, enough: Stop::new(), is_over: AtomicBool::new(false), was_missed: AtomicBool::new(false) }
    }

    /// Waits until a blob is in the store.
    pub(super) fn wait_for(&self, digest: &Digest) -> Result<(), NotFetched> {
        let mut under_way = self.arrivals.under_way();
        while !self.arrivals.store.contains(digest) {
            if self.is_over.load(Ordering::Relaxed) {
                self.was_missed.store(true, Ordering::Relaxed);
                return Err(NotFetched);
            }
            under_way = self.arrivals.wait(under_way);
        }
        Ok(())
    }

    /// Has all of `wanted` come to the store, by `fetch` where no other stage fetches it.
    fn bring(
        &self,
        wanted: &[Descriptor],
        fetch: impl Fn(&[Descriptor], &Stop) -> Result<(), registry::Error>,
    ) -> Result<(), registry::Error> {
        while let Some(claim) = self.claim(wanted)? {
            fetch(&claim.blobs, &self.enough)?;
        }
        Ok(())
    }

    /// Takes on what is missing and not on its way yet; waits while all that is missing is on its way. `None` once nothing
    /// is missing.
    fn claim(&self, wanted: &[Descriptor]) -> Result<Option<Claim<'_>>, registry::Error> {
        let Arrivals { store, .. } = self.arrivals;
        let mut under_way = self.arrivals.under_way();
        loop {
            self.enough.check().map_err(http::Error::Stopped)?;
            let missing: Vec<&Descriptor> = wanted.iter().filter(|blob| !store.contains(&blob.digest)).collect();
            if missing.is_empty() {
                return Ok(None);
            }
            let blobs: Vec<Descriptor> =
                missing.into_iter().filter(|blob| under_way.insert(blob.digest)).cloned().collect();
            if !blobs.is_empty() {
                return Ok(Some(Claim { arrivals: self.arrivals, blobs }));
            }
            under_way = self.arrivals.wait(under_way);
        }
    }

    /// Nobody wants it any longer.
    fn cancel(&self) {
        self.arrivals.tell(|_| self.enough.ask());
    }
}

impl Progress for Order<'_> {
    fn started(&self, blob: &Descriptor) {
        self.arrivals.listener.started(blob);
    }

    fn advanced(&self, blob: &Descriptor, bytes: u64) {
        self.arrivals.listener.advanced(blob, bytes);
    }

    fn finished(&self, blob: &Descriptor) {
        self.arrivals.listener.finished(blob);
        self.arrivals.tell(|under_way| {
            under_way.remove(&blob.digest);
        });
    }
}

/// Blobs that one stage fetches, until it has or gives up.
struct Claim<'a> {
    arrivals: &'a Arrivals<'a>,
    blobs: Vec<Descriptor>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.arrivals.tell(|under_way| {
            for blob in &self.blobs {
                under_way.remove(&blob.digest);
            }
        });
    }
}

/// Nobody waits any longer, however the fetching ended.
struct Over<'a>(&'a Order<'a>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.arrivals.tell(|_| self.0.is_over.store(true, Ordering::Relaxed));
    }
}

/// Fetches the layers of `image` that are not here while `work` is done, which waits for those that it needs. Where no image
/// is given, all that `work` needs is in the store.
pub(super) fn while_fetching<T, E: From<registry::Error>>(
    world: &World<'_>,
    image: Option<&RemoteImage>,
    work: impl FnOnce(&Order<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let World { client, store, arrivals, .. } = *world;
    let order = Order::new(arrivals);
    let bring = || match image {
        Some(image) => order.bring(&image.manifest.layers, |blobs, enough| {
            client.fetch_blobs_until(enough, image, blobs, store, &order)
        }),
        None => Ok(()),
    };
    beside(&order, bring, || work(&order))
}

/// Does both at once. Where `work` missed a layer, the error of `bring` counts.
fn beside<T, E: From<registry::Error>>(
    order: &Order<'_>,
    bring: impl FnOnce() -> Result<(), registry::Error> + Send,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let stage = Span::current();
    thread::scope(|scope| {
        let bringing = scope.spawn(move || {
            let _over = Over(order);
            stage.in_scope(bring)
        });
        let worked = work();
        if worked.is_err() {
            order.cancel();
        }
        let brought = bringing.join().expect("no panic while fetching");
        match (worked, brought) {
            (Ok(done), brought) => brought.map(|()| done).map_err(E::from),
            (Err(_), Err(error)) if order.was_missed.load(Ordering::Relaxed) => Err(error.into()),
            (Err(error), _) => Err(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::super::error::Error;
    use super::*;
    use crate::registry::Silent;
    use crate::sys::Stopped;

    fn gone() -> registry::Error {
        http::Error::Stopped(Stopped).into()
    }

    fn blob(content: &[u8]) -> Descriptor {
        Descriptor::new("layer", Digest::of(content), content.len() as u64)
    }

    fn unpacking(order: &Order<'_>, digest: &Digest) -> Result<(), Error> {
        order.wait_for(digest).map_err(|source| Error::Unpack {
            base: "base".into(),
            source: crate::layer::Error::Open { digest: *digest, source: source.into() },
        })
    }

    #[test]
    fn each_layer_is_awaited_and_errors_end_both() {
        let place = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(place.path()).expect("opened");
        let arrivals = Arrivals::new(&store, &Silent);
        let (one, two) = (store.write(b"one").expect("written"), Digest::of(b"two"));

        // the second comes while the first is at work, and not before
        let (send, receive) = mpsc::channel();
        let order = Order::new(&arrivals);
        let (store, order) = (&store, &order);
        let bring = move || {
            receive.recv().expect("the first was there without waiting");
            store.write(b"two").expect("written");
            order.finished(&blob(b"two"));
            Ok(())
        };
        let both = beside(order, bring, || {
            unpacking(order, &one)?;
            send.send(()).expect("somebody listens");
            unpacking(order, &two)
        });
        both.expect("both came");

        // who fetches fails: who waits hears of it, and the reason is told
        let (order, three) = (Order::new(&arrivals), Digest::of(b"three"));
        let failed = beside(&order, || Err(gone()), || unpacking(&order, &three));
        assert!(matches!(failed, Err(Error::Registry(_))), "{failed:?}");

        // who unpacks fails: who fetches is told to end
        let order = Order::new(&arrivals);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let endless = || {
            let stopped: Result<(), Stopped> = runtime.block_on(order.enough.interrupting(std::future::pending()));
            stopped.map_err(|_| gone())
        };
        let failed = beside(&order, endless, || Err::<(), _>(Error::GivenUp));
        assert!(matches!(failed, Err(Error::GivenUp)), "{failed:?}");
    }

    #[test]
    fn what_several_want_is_fetched_once() {
        let place = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(place.path()).expect("opened");
        let arrivals = Arrivals::new(&store, &Silent);
        let wanted = [&b"one"[..], b"two", b"three"].map(blob);
        let fetched = AtomicUsize::new(0);
        let fetch = |order: &Order<'_>, blobs: &[Descriptor]| {
            for blob in blobs {
                let content = [&b"one"[..], b"two", b"three"].into_iter().find(|text| Digest::of(text) == blob.digest);
                store.write(content.expect("one of them")).expect("written");
                fetched.fetch_add(1, Ordering::Relaxed);
                order.finished(blob);
            }
            Ok(())
        };
        thread::scope(|scope| {
            for first in 0..3 {
                let (arrivals, fetch, wanted) = (&arrivals, &fetch, &wanted);
                scope.spawn(move || {
                    let order = Order::new(arrivals);
                    order.bring(&wanted[first..], |blobs, _| fetch(&order, blobs)).expect("brought");
                    assert!(wanted[first..].iter().all(|blob| arrivals.store.contains(&blob.digest)));
                });
            }
        });
        assert_eq!(fetched.into_inner(), 3);
    }

    #[test]
    fn another_takes_over_or_gives_up() {
        let place = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(place.path()).expect("opened");
        let arrivals = Arrivals::new(&store, &Silent);
        let wanted = [blob(b"one")];
        let first = Order::new(&arrivals);
        let claim = first.claim(&wanted).expect("not stopped").expect("it is missing");
        thread::scope(|scope| {
            let second = Order::new(&arrivals);
            let taking_over = scope.spawn(move || {
                second.bring(&wanted, |_, _| {
                    store_it(second.arrivals.store);
                    Ok(())
                })
            });
            let third = Order::new(&arrivals);
            third.cancel();
            assert!(third.claim(&[blob(b"one")]).is_err(), "nobody wants it any longer");
            drop(claim);
            taking_over.join().expect("no panic").expect("it came");
        });
        assert!(store.contains(&Digest::of(b"one")));
    }

    fn store_it(store: &BlobStore) {
        store.write(b"one").expect("written");
    }
}
