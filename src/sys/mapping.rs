//! A shared mapping of a file: stores into it reach the file without a `write`.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use super::Errno;

/// The first byte of a file, mapped shared, readable and writable.
///
/// The file must keep at least one byte for as long as the mapping lives: the kernel answers an access behind the end
/// of a file with SIGBUS. So this is for files that nobody else can reach.
#[derive(Debug)]
pub struct MappedByte {
    address: NonNull<u8>,
}

impl MappedByte {
    /// Maps the first byte of `file`, which must be open for reading and writing and not be empty.
    #[expect(unsafe_code, reason = "no library in use maps files")]
    pub fn new(file: BorrowedFd<'_>) -> Result<MappedByte, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no existing memory is replaced; `file` is borrowed for the call.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        NonNull::new(address.cast()).map(|address| MappedByte { address }).ok_or(Errno::NOMEM)
    }

    /// Reads the byte.
    #[expect(unsafe_code, reason = "memory that the file system may change is read through a pointer")]
    pub fn load(&self) -> u8 {
        // SAFETY: the address stays mapped and readable until `drop`.
        unsafe { self.address.as_ptr().read_volatile() }
    }

    /// Stores `byte`.
    #[expect(unsafe_code, reason = "memory that the file system may change is written through a pointer")]
    pub fn store(&self, byte: u8) {
        // SAFETY: the address stays mapped and writable until `drop`; no reference to it exists.
        unsafe { self.address.as_ptr().write_volatile(byte) }
    }
}

impl Drop for MappedByte {
    #[expect(unsafe_code, reason = "what `new` mapped is unmapped here")]
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and nobody can use it any more.
        let _ = unsafe { libc::munmap(self.address.as_ptr().cast::<c_void>(), 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_store_reaches_the_file() {
        let mut file = tempfile::tempfile().expect("a file");
        assert!(MappedByte::new(std::fs::File::open("/dev/null").expect("opened").as_fd()).is_err());
        file.write_all(b"a").expect("written");
        let byte = MappedByte::new(file.as_fd()).expect("mapped");
        assert_eq!(byte.load(), b'a');
        byte.store(b'b');
        drop(byte);
        file.rewind().expect("rewound");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "b");
    }
}
