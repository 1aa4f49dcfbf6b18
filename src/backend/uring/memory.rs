//! Memory that is mapped for buffers and rings.

use crate::error::named;
use std::io;
use std::ptr::{self, NonNull};

/// Anonymous zeroed memory, page-aligned, not resident until touched; unmapped on drop. The kernel
/// does not set aside what may never be touched (MAP_NORESERVE), unless it is told to do so always
/// (vm.overcommit_memory=2).
pub struct AnonymousMemory {
    start: NonNull<u8>,
    length: usize,
}

impl AnonymousMemory {
    /// Maps `length` bytes.
    pub fn new(length: usize) -> io::Result<Self> {
        // SAFETY: asks for new memory at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(named("mmap")(io::Error::last_os_error())),
        }
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours alone, and whoever pointed into it was dropped before it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
