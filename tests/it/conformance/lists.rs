//! The only place where a case is excused.

/// An excused case and why.
pub struct Listed {
    pub name: &'static str,
    #[expect(dead_code, reason = "for the reader")]
    pub reason: &'static str,
}

const MOUNT: &str = "RUN --mount is refused so far";
const NETWORK: &str = "RUN --network is refused so far";

/// Cases that need what is not built yet: they must be refused, with nothing written.
pub const LATER: &[Listed] = &[
    Listed { name: "run-mount-bind", reason: MOUNT },
    Listed { name: "run-mount-bind-default-type", reason: MOUNT },
    Listed { name: "run-mount-bind-existing", reason: MOUNT },
    Listed { name: "run-mount-bind-file", reason: MOUNT },
    Listed { name: "run-mount-bind-from", reason: MOUNT },
    Listed { name: "run-mount-bind-rw", reason: MOUNT },
    Listed { name: "run-mount-cache", reason: MOUNT },
    Listed { name: "run-mount-cache-mode", reason: MOUNT },
    Listed { name: "run-mount-secret", reason: MOUNT },
    Listed { name: "run-mount-secret-env", reason: MOUNT },
    Listed { name: "run-mount-secret-optional", reason: MOUNT },
    Listed { name: "run-mount-secret-target", reason: MOUNT },
    Listed { name: "run-mount-tmpfs", reason: MOUNT },
    Listed { name: "run-mount-tmpfs-existing", reason: MOUNT },
    Listed { name: "run-mount-var", reason: MOUNT },
    Listed { name: "run-network-none", reason: NETWORK },
];

const UNKNOWN_OWNER: &str = "the Dockerfile reference calls for an error where BuildKit takes owner 0";

/// Cases that BuildKit builds and we refuse on purpose.
pub const STRICTER: &[Listed] = &[
    Listed { name: "copy-chown-unknown-group", reason: UNKNOWN_OWNER },
    Listed { name: "copy-chown-unknown-user", reason: UNKNOWN_OWNER },
];

const NO_DEVICES: &str = "the kernel lets nobody make a device node in a user namespace";

/// Cases that root builds, and that a plain user's build refuses.
pub const OF_ROOT: &[Listed] =
    &[Listed { name: "copy-from-special", reason: NO_DEVICES }, Listed { name: "run-mknod", reason: NO_DEVICES }];

const LINKED_ON_DISK: &str = "BuildKit runs commands on overlayfs, which breaks hard links to files of lower layers; \
                              the image must equal the file system as the command left it";

/// Cases in which we differ from BuildKit on purpose: `tests/conformance/accepted/<name>.json` holds what must come out
/// instead, in the form of `expected.json`.
pub const ACCEPTED: &[Listed] = &[
    Listed { name: "add-tar-xattr", reason: "BuildKit drops user.* attributes of an archive; tar and we keep them" },
    Listed { name: "run-hardlink-across-runs", reason: LINKED_ON_DISK },
    Listed { name: "run-hardlink-append", reason: LINKED_ON_DISK },
    Listed { name: "run-hardlink-base", reason: LINKED_ON_DISK },
    Listed { name: "run-hardlink-chmod", reason: LINKED_ON_DISK },
    Listed { name: "run-hardlink-third", reason: LINKED_ON_DISK },
];
