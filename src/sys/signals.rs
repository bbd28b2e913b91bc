//! Signals as bytes in a pipe.

#![expect(unsafe_code, reason = "a signal handler has no safe wrapper in the libraries that are kept")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::{io, mem, ptr};

/// The pipe that the handler writes to; -1 while nothing is caught.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// While this lives, the signals arrive as bytes in its pipe instead of ending the process.
#[derive(Debug)]
pub struct Caught {
    previous: Vec<(i32, libc::sigaction)>,
    _writer: OwnedFd,
}

/// Catches `signals`: each arrives as one byte in the pipe that `writer` leads to. One that was ignored stays so (as
/// `nohup` wants it). Only one catcher can exist in a process; a second is EBUSY.
pub fn catch(signals: &[u8], writer: OwnedFd) -> io::Result<Caught> {
    rustix::io::ioctl_fionbio(&writer, true)?; // a full pipe must not stop whoever the handler interrupted
    let free = PIPE.compare_exchange(-1, writer.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst);
    if free.is_err() {
        return Err(rustix::io::Errno::BUSY.into());
    }
    let mut caught = Caught { previous: Vec::new(), _writer: writer };
    for &signal in signals {
        let signal = i32::from(signal);
        // SAFETY: all-zero is a valid sigaction; the handler calls nothing but `write`, which is async-signal-safe.
        unsafe {
            let mut old: libc::sigaction = mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &mut old) != 0 {
                return Err(io::Error::last_os_error());
            }
            if old.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            let mut new: libc::sigaction = mem::zeroed();
            new.sa_sigaction = write_to_pipe as *const () as usize;
            new.sa_flags = libc::SA_RESTART;
            if libc::sigaction(signal, &new, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            caught.previous.push((signal, old));
        }
    }
    Ok(caught)
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (signal, old) in &self.previous {
            // SAFETY: `old` is what the kernel gave for this signal.
            unsafe { libc::sigaction(*signal, old, ptr::null_mut()) };
        }
        PIPE.store(-1, Ordering::SeqCst);
    }
}

extern "C" fn write_to_pipe(signal: libc::c_int) {
    let pipe = PIPE.load(Ordering::SeqCst);
    let byte = signal as u8;
    // SAFETY: one byte of this frame is read; errno, which the interrupted code may be about to read, is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(pipe, ptr::from_ref(&byte).cast(), 1);
        *errno = before;
    }
}
