//! [`Settings`]: where to look, what to put up with, how often to try.

use std::collections::BTreeMap;

/// What was meant by the flags about registries. Registries are named by host and, if there is one, port.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Plain HTTP is acceptable for every push.
    pub insecure_push: bool,
    /// Plain HTTP is acceptable for every pull.
    pub insecure_pull: bool,
    /// Plain HTTP is acceptable for these.
    pub insecure_registries: Vec<String>,
    /// Pushes do not verify certificates.
    pub skip_tls_verify_push: bool,
    /// Pulls do not verify certificates.
    pub skip_tls_verify_pull: bool,
    /// The certificates of these are not verified.
    pub skip_tls_verify_registries: Vec<String>,
    /// Where to look first for a registry's images, in order: `[scheme://]host[:port][/path]`.
    pub map: BTreeMap<String, Vec<String>>,
    /// The same for Docker Hub alone, after its entries in `map`.
    pub mirrors: Vec<String>,
    /// Do not ask the registry itself when none of those had the image.
    pub skip_default_fallback: bool,
    /// Tries beyond the usual ones for temporary faults of a push.
    pub push_retry: u32,
    /// Tries beyond the usual ones for temporary faults of a pull.
    pub download_retry: u32,
    /// A tag that is there already and must not change counts as pushed.
    pub ignore_immutable_tag_errors: bool,
}
