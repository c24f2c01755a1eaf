//! Memory from the system: pages of its own, huge ones where it has them, or plain aligned memory.

use super::ALIGN;
use crate::{Error, Result};
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
        // Whole huge pages only: the rest of the last one would be memory that nobody uses.
        let huge = len / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range is inside the mapping, and the advice changes how it is backed, not what it holds. A system
        // that does not take it gives small pages.
        unsafe { libc::madvise(start.as_ptr().cast(), huge, libc::MADV_HUGEPAGE) };
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
