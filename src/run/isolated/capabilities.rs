//! What a command may do in an isolated root, whoever we are.
//!
//! It has the network of the machine, and with NET_RAW it may, where root builds, read and write raw packets of it: as with
//! Docker's `--network=host`, which is what this is. `ping` and its like need it, and a network of its own would need an
//! address, routes and a resolver that work everywhere. The network belongs to no user namespace of a plain user's, so that
//! the capability gives nothing there. Who builds what is not trusted does so as a plain user, or in a container.

use std::io;

use crate::sys::Errno;
use crate::sys::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities that Docker gives to containers.
const DOCKERS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);
/// More than any kernel has.
const NUMBERS: u32 = 64;

/// Gives up all but Docker's, for good: none comes back by executing anything.
pub(super) fn keep_dockers() -> io::Result<()> {
    let held = crate::sys::thread::capabilities(None)?;
    for number in 0..NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if DOCKERS.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // the kernel has no such capability
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let permitted = held.permitted.intersection(DOCKERS);
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
