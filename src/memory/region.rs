//! A piece of memory with its owner: what an allocator hands out and what a packed weight keeps.

use crate::{Error, Result};
use alloc::{string::String, sync::Arc};
use core::{any::Any, ptr::NonNull};

/// Bytes that every [`Region`] is aligned to: a cache line, so that no vector load crosses one.
pub const ALIGN: usize = 64;

/// An allocator of memory for packed weights: an [`Arena`](super::Arena), or an embedder's own.
pub trait PackedMemory {
    /// Memory for `len` bytes, whatever they hold.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is none.
    fn allocate(&mut self, len: usize) -> Result<Region>;
}

/// Memory for one packed tensor, and the owner that keeps it alive.
#[derive(Debug)]
pub struct Region {
    bytes: PackedBytes,
}

impl Region {
    /// The `len` bytes at `start`, which `owner` keeps alive.
    ///
    /// # Safety
    /// Until the last clone of `owner` is dropped,
    /// - the bytes are initialized, and readable and writable from any thread, as part of one allocation;
    /// - nobody else reads or writes them: no other region overlaps this one.
    ///
    /// # Errors
    /// [`Error::Shape`] if `start` is not a multiple of [`ALIGN`].
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize, owner: Arc<dyn Any + Send + Sync>) -> Result<Region> {
        match start.as_ptr().addr() % ALIGN {
            0 => Ok(Region { bytes: PackedBytes { start, len, _owner: owner } }),
            found => {
                let what = String::from("address of a region for packed weights, modulo its alignment");
                Err(Error::Shape { what, expected: 0, found })
            }
        }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.bytes.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: whoever made the region promised initialized bytes that nobody else touches, and `self` is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.bytes.start.as_ptr(), self.bytes.len) }
    }

    /// The first `len` bytes, from now on only read.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are fewer.
    pub(crate) fn freeze(mut self, len: usize) -> Result<PackedBytes> {
        if self.len() < len {
            let what = String::from("bytes of a region for packed weights");
            return Err(Error::Shape { what, expected: len, found: self.len() });
        }
        self.bytes.len = len;
        Ok(self.bytes)
    }
}

/// Packed bytes, shared by clones.
#[derive(Debug, Clone)]
pub(crate) struct PackedBytes {
    start: NonNull<u8>,
    len: usize,
    /// Holds the memory, and is otherwise not used.
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the bytes may be used from any thread (`Region::from_raw`), and the owner is `Send + Sync`.
unsafe impl Send for PackedBytes {}
// SAFETY: as above; shared bytes are only read.
unsafe impl Sync for PackedBytes {}

impl PackedBytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: initialized bytes that `self._owner` keeps alive, and that nobody writes once a region is frozen.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}
