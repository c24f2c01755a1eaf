//! Memory from the system, in huge pages where it has them: pages of its own, plain aligned memory, or a vector.

use super::ALIGN;
use crate::{Error, Result};
use alloc::vec::Vec;
use core::ptr::NonNull;

/// Whether this system is asked for huge pages.
pub(super) const HAS_HUGE_PAGES: bool = cfg!(all(target_os = "linux", feature = "std"));

/// A huge page. (Where the system's are larger it gives none for less, and nothing is lost by asking.)
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// `len` zeroed bytes, aligned to [`ALIGN`], and to [`HUGE_PAGE`] if there are as many.
#[derive(Debug)]
pub(super) struct Pages {
    start: NonNull<u8>,
    len: usize,
    source: Source,
}

/// Where the memory is from, and goes back to.
#[derive(Debug)]
enum Source {
    Allocator(alloc::alloc::Layout),
    #[cfg(all(target_os = "linux", feature = "std"))]
    Mapping {
        base: NonNull<u8>,
        len: usize,
    },
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Pages {}
// SAFETY: as above; a shared value gives no access to it.
unsafe impl Sync for Pages {}

impl Pages {
    /// Memory for `len` bytes; of a mapping only those count as used that are written.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system has none.
    pub fn new(len: usize) -> Result<Pages> {
        #[cfg(all(target_os = "linux", feature = "std"))]
        if len >= HUGE_PAGE {
            return Pages::mapped(len);
        }
        let failed = || Error::OutOfMemory { bytes: len };
        let layout = alloc::alloc::Layout::from_size_align(len.max(1), ALIGN).map_err(|_| failed())?;
        // SAFETY: the layout has at least one byte.
        let start = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) }).ok_or_else(failed)?;
        Ok(Pages { start, len, source: Source::Allocator(layout) })
    }

    /// An anonymous mapping, of which a part that starts at a huge page is used.
    #[cfg(all(target_os = "linux", feature = "std"))]
    fn mapped(len: usize) -> Result<Pages> {
        let failed = || Error::OutOfMemory { bytes: len };
        let mapped = len.checked_add(HUGE_PAGE).filter(|&len| len <= isize::MAX as usize).ok_or_else(failed)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping, wherever the system likes, touches no other memory.
        let base = unsafe { libc::mmap(core::ptr::null_mut(), mapped, access, kind, -1, 0) };
        let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED).ok_or_else(failed)?;
        let offset = base.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
        // SAFETY: the offset is less than HUGE_PAGE, by which the mapping is longer than `len`.
        let start = unsafe { base.add(offset) };
        // SAFETY: the range is inside the mapping.
        unsafe { ask_for_huge_pages(start.as_ptr(), len) };
        Ok(Pages { start, len, source: Source::Mapping { base, len: mapped } })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Asks for huge pages behind `len` bytes that were not touched yet; a system that has none gives small ones.
///
/// Only behind whole ones: the rest of a page would be memory that nobody uses.
///
/// # Safety
/// The bytes belong to the caller.
#[cfg(all(target_os = "linux", feature = "std"))]
unsafe fn ask_for_huge_pages(start: *mut u8, len: usize) {
    let to_first = start.addr().wrapping_neg() % HUGE_PAGE;
    let huge = len.saturating_sub(to_first) / HUGE_PAGE * HUGE_PAGE;
    if huge != 0 {
        // SAFETY: the range is inside the caller's, and the advice changes how memory is backed, not what it holds.
        unsafe { libc::madvise(start.wrapping_add(to_first).cast(), huge, libc::MADV_HUGEPAGE) };
    }
}

/// An empty vector with room for `len` bytes of weights (or values of another type), in huge pages where the system has
/// them: native weights are read from memory as often as packed ones. [`gguf::read_file`](crate::gguf) reads into one.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is no memory for it.
pub fn buffer<T>(len: usize) -> Result<Vec<T>> {
    let mut buffer = Vec::<T>::new();
    buffer.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
    Ok(in_huge_pages(buffer))
}

/// A vector of `len` zeros in huge pages where the system has them, which are used once they are written.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is no memory for it.
#[cfg(feature = "model")]
pub(crate) fn zeros<T: bytemuck::Zeroable>(len: usize) -> Result<Vec<T>> {
    let failed = || Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) };
    Ok(in_huge_pages(bytemuck::allocation::try_zeroed_vec(len).map_err(|()| failed())?))
}

/// The vector, of whose memory nothing was touched yet, in huge pages.
fn in_huge_pages<T>(vector: Vec<T>) -> Vec<T> {
    #[cfg(all(target_os = "linux", feature = "std"))]
    // SAFETY: the vector's own memory.
    unsafe {
        ask_for_huge_pages(vector.as_ptr().cast_mut().cast(), vector.capacity() * size_of::<T>());
    }
    vector
}

impl Drop for Pages {
    fn drop(&mut self) {
        match self.source {
            // SAFETY: the memory was allocated with this layout, and its owner is gone.
            Source::Allocator(layout) => unsafe { alloc::alloc::dealloc(self.start.as_ptr(), layout) },
            #[cfg(all(target_os = "linux", feature = "std"))]
            // SAFETY: this is the whole mapping, and its owner is gone.
            Source::Mapping { base, len } => unsafe {
                libc::munmap(base.as_ptr().cast(), len);
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_every_size_hold_what_is_written() {
        for bytes in [0, 1, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 4097] {
            let mut written = buffer(bytes).unwrap();
            assert!(written.is_empty() && written.capacity() >= bytes);
            let start = written.as_ptr();
            written.extend((0..bytes).map(|i| (i % 251) as u8));
            assert_eq!(written.as_ptr(), start, "{bytes} bytes moved");
            assert!(written.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
        }
        assert_eq!(buffer::<u8>(usize::MAX), Err(Error::OutOfMemory { bytes: usize::MAX }));
    }

    #[cfg(feature = "model")]
    #[test]
    fn zeros_are_zero_and_too_many_are_an_error() {
        assert_eq!(zeros::<f32>(HUGE_PAGE), Ok(vec![0.0; HUGE_PAGE]));
        assert_eq!(zeros::<f32>(usize::MAX), Err(Error::OutOfMemory { bytes: usize::MAX }));
    }
}
