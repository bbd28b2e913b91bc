//! [`Progress`]: how far transfers are, for whoever shows it or waits for a blob.

use crate::oci::Descriptor;

/// Hears of transfers while they run. Calls come from the thread that asked for the transfer; one that blocks holds
/// up all transfers.
pub trait Progress: Sync {
    /// A transfer begins.
    fn started(&self, _blob: &Descriptor) {}
    /// So many bytes of a blob are through, by the present attempt: less than before where an attempt began anew.
    fn advanced(&self, _blob: &Descriptor, _bytes: u64) {}
    /// A blob is where it should be: in the store after a download, at the destination after a push. Also called for
    /// one that was there before.
    fn finished(&self, _blob: &Descriptor) {}
}

/// Nobody listens.
pub struct Silent;

impl Progress for Silent {}
