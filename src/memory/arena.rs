//! Many tensors in one run of memory.

use super::{
    ALIGN, PackedMemory, Region,
    pages::{HAS_HUGE_PAGES, HUGE_PAGE, Pages},
};
use crate::{Error, Result};
use alloc::sync::Arc;

/// Bytes of a chunk. Memory that was never written takes none, so that a chunk may be much larger than a small model; the
/// larger it is, the less the huge page behind its last tensor weighs.
const CHUNK_BYTES: usize = if cfg!(target_pointer_width = "64") { 128 << 20 } else { 16 << 20 };

/// Memory for many packed tensors, one behind the other in chunks of whole huge pages (Linux with feature `std`; plain
/// aligned memory for each tensor elsewhere).
///
/// Give it to [`Linear::pack_in`](crate::Linear::pack_in) or [`WeightFormat::pack_in`](crate::WeightFormat::pack_in). A
/// chunk goes back to the system when the arena and all weights in it are dropped: the arena itself may go at any time.
///
/// ```
/// use quantblock::{Arena, Linear, Serial, format::Q80};
///
/// let mut arena = Arena::new();
/// let [q, k] = [0.5, 0.25].map(|w| Linear::<Q80>::quantized(&[w; 16 * 32], None, 16, 32));
/// let (q, k) = (q?.pack_in(&mut arena, &Serial)?, k?.pack_in(&mut arena, &Serial)?);
/// drop(arena);
/// assert!(q.is_packed() && k.is_packed());
/// # Ok::<(), quantblock::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Arena {
    chunk: Option<Chunk>,
}

/// The chunk that is being filled.
#[derive(Debug)]
struct Chunk {
    pages: Arc<Pages>,
    used: usize,
}

impl Chunk {
    fn free(&self) -> usize {
        self.pages.len() - self.used
    }

    /// The next `len` bytes, which are free.
    fn take(&mut self, len: usize) -> Result<Region> {
        let start = self.used;
        self.used += len;
        // SAFETY: the range ends inside the pages, which start zeroed; no other region has a part of it, for `used` only
        // grows, and the pages live as long as the region.
        unsafe { Region::from_raw(self.pages.start().add(start), len, self.pages.clone()) }
    }
}

impl Arena {
    /// An empty arena; it takes memory with the first tensor.
    pub fn new() -> Self {
        Self::default()
    }
}

impl PackedMemory for Arena {
    fn allocate(&mut self, len: usize) -> Result<Region> {
        let failed = || Error::OutOfMemory { bytes: len };
        let len = len.checked_next_multiple_of(ALIGN).ok_or_else(failed)?;
        if !HAS_HUGE_PAGES {
            return Separate.allocate(len);
        }
        if let Some(chunk) = self.chunk.as_mut().filter(|chunk| chunk.free() >= len) {
            return chunk.take(len);
        }
        let chunk_bytes = len.max(CHUNK_BYTES).checked_next_multiple_of(HUGE_PAGE).ok_or_else(failed)?;
        let mut new = Chunk { pages: Arc::new(Pages::new(chunk_bytes)?), used: 0 };
        let region = new.take(len)?;
        // Of two chunks the one with more room is kept for what follows.
        if self.chunk.as_ref().is_none_or(|old| old.free() < new.free()) {
            self.chunk = Some(new);
        }
        Ok(region)
    }
}

/// Memory of its own for every tensor, in huge pages as far as it fills them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Separate;

impl PackedMemory for Separate {
    fn allocate(&mut self, len: usize) -> Result<Region> {
        let pages = Pages::new(len)?;
        let (start, len) = (pages.start(), pages.len());
        // SAFETY: zeroed bytes that nobody else knows, and that the pages free.
        unsafe { Region::from_raw(start, len, Arc::new(pages)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn regions_are_aligned_and_do_not_overlap() {
        let mut arena = Arena::new();
        let lengths = [0, 1, 63, 64, 4096, 2_200_000, 2_200_000, CHUNK_BYTES + 1, 5_000_000, CHUNK_BYTES - 1, 7];
        let mut regions: Vec<Region> = lengths.iter().map(|&len| arena.allocate(len).unwrap()).collect();
        drop(arena);
        for (i, (region, len)) in regions.iter_mut().zip(lengths).enumerate() {
            let bytes = region.as_mut_slice();
            assert!(bytes.len() >= len && bytes.as_ptr().addr() % ALIGN == 0);
            // The ends only, so that no chunk is filled.
            if let [first, .., last] = bytes {
                (*first, *last) = (i as u8, i as u8);
            }
        }
        for (i, region) in regions.iter_mut().enumerate() {
            if let [first, .., last] = region.as_mut_slice() {
                assert_eq!((*first, *last), (i as u8, i as u8));
            }
        }
    }

    #[test]
    fn small_tensors_share_huge_pages() {
        let mut arena = Arena::new();
        let starts: Vec<usize> =
            (0..3).map(|_| arena.allocate(2_200_000).unwrap().as_mut_slice().as_ptr().addr()).collect();
        if HAS_HUGE_PAGES {
            assert_eq!(starts[0] % HUGE_PAGE, 0);
            assert_eq!([starts[1] - starts[0], starts[2] - starts[1]], [2_200_000usize.next_multiple_of(ALIGN); 2]);
        }
    }

    #[test]
    fn a_chunk_goes_with_its_last_region() {
        let mut arena = Arena::new();
        let regions = [arena.allocate(100).unwrap(), arena.allocate(200).unwrap()];
        // Where there are no huge pages there are no chunks.
        let Some(pages) = arena.chunk.as_ref().map(|chunk| Arc::downgrade(&chunk.pages)) else {
            return;
        };
        drop(arena);
        let [first, second] = regions;
        drop(first);
        assert!(pages.upgrade().is_some());
        drop(second);
        assert!(pages.upgrade().is_none());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for len in [usize::MAX, usize::MAX - 100, isize::MAX as usize] {
            assert!(matches!(Arena::new().allocate(len), Err(Error::OutOfMemory { .. })));
            assert!(matches!(Separate.allocate(len), Err(Error::OutOfMemory { .. })));
        }
    }
}
