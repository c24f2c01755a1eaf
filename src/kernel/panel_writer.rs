//! Writing a packed panel, which nobody reads soon.
//!
//! A store waits for the line that it changes a part of. Where little is done with each byte, tiles are made in the first-level
//! cache and stored past the others: no line is read to be overwritten, and floats are packed 1.3 to 1.6 times as fast, codes of 6
//! and 8 bits 1.1 to 1.4 times. Others wait for such stores as long as they gain by them: their lines are asked for ahead.

use super::stream::{AHEAD_BYTES, LINE_BYTES, prefetch};
use crate::simd::Isa;

/// Bytes that are made at once, at most: more than the tile of any format and a line.
const ROOM_BYTES: usize = 5 << 10;
/// Bytes that are made before they are stored: stores past the caches are fast in whole lines.
const ENOUGH_BYTES: usize = 1 << 10;
/// Bits of a code, or a float, from which on tiles are stored past the caches.
const PAST_CACHES_BITS: u32 = 6;

/// The tiles of a panel on their way to memory, where all have come when it is dropped.
#[repr(C, align(64))]
pub struct PanelWriter<'a> {
    room: [u8; ROOM_BYTES],
    /// Bytes of the room that are not stored yet.
    made: usize,
    /// Where they go, and what follows them.
    out: &'a mut [u8],
    past_caches: bool,
}

impl<'a> PanelWriter<'a> {
    /// Writes codes or floats of `bits` bits to `out`, from its start on.
    #[inline(always)]
    pub fn new(out: &'a mut [u8], bits: u32) -> Self {
        PanelWriter { room: [0; ROOM_BYTES], made: 0, out, past_caches: bits >= PAST_CACHES_BITS }
    }

    /// Writes what `make` makes of the next `bytes` bytes, all of which it sets; nothing if fewer are left.
    #[inline(always)]
    pub fn write<I: Isa>(&mut self, isa: I, bytes: usize, make: impl FnOnce(&mut [u8])) {
        if self.out.len() < self.made + bytes {
            return;
        }
        if self.past_caches && self.made + bytes <= ROOM_BYTES {
            make(&mut self.room[self.made..self.made + bytes]);
            self.made += bytes;
            if self.made >= ENOUGH_BYTES {
                let end = self.out.as_ptr().addr() + self.made;
                self.store(self.made - end % LINE_BYTES);
            }
        } else {
            if self.past_caches {
                self.store(self.made);
            }
            prefetch(isa, self.out.as_ptr().wrapping_add(AHEAD_BYTES), bytes);
            make(self.next(bytes));
        }
    }

    /// The next `bytes` bytes of memory.
    #[inline(always)]
    fn next(&mut self, bytes: usize) -> &'a mut [u8] {
        let (next, later) = core::mem::take(&mut self.out).split_at_mut(bytes);
        self.out = later;
        next
    }

    /// Stores the first `bytes` bytes of those made.
    #[inline(always)]
    fn store(&mut self, bytes: usize) {
        let next = self.next(bytes);
        store_past_caches(&self.room[..bytes], next);
        self.room.copy_within(bytes..self.made, 0);
        self.made -= bytes;
    }
}

impl Drop for PanelWriter<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.past_caches {
            self.store(self.made);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: SSE is part of x86-64. What was stored past the caches is now in order for other threads.
            unsafe {
                core::arch::x86_64::_mm_sfence()
            };
        }
    }
}

/// Copies `from` to `to`, which is as long, past the caches where the CPU can; other threads see it behind an `sfence` only.
#[inline(always)]
fn store_past_caches(from: &[u8], to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if to.as_ptr().addr().is_multiple_of(16) && to.len().is_multiple_of(16) && from.len() == to.len() {
        use core::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};
        for at in (0..to.len()).step_by(16) {
            // SAFETY: SSE2 is part of x86-64; as many bytes, and 16 divides the address and the length of those stored.
            unsafe {
                let sixteen = _mm_loadu_si128(from.as_ptr().add(at).cast());
                _mm_stream_si128(to.as_mut_ptr().add(at).cast(), sixteen);
            }
        }
        return;
    }
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{IsaTask, Level};
    use alloc::vec;

    /// Writes a slice in tiles of these bytes in turns, the last of which there is no room for.
    struct Write<'a>(&'a mut [u8], [usize; 2]);

    impl IsaTask for Write<'_> {
        /// Bytes written.
        type Output = usize;

        fn run<I: Isa>(self, isa: I) -> usize {
            let Write(out, tiles) = self;
            let (len, mut made, mut writer) = (out.len(), 0, PanelWriter::new(out, 8));
            for bytes in tiles.into_iter().cycle() {
                let before = made;
                writer.write(isa, bytes, |tile| {
                    assert_eq!(tile.len(), bytes);
                    for byte in tile {
                        made += 1;
                        *byte = value(made);
                    }
                });
                if made == before {
                    assert!(len < made + bytes);
                    break;
                }
            }
            made
        }
    }

    fn value(i: usize) -> u8 {
        (i * 151 + i / 7) as u8
    }

    #[test]
    fn every_byte_arrives_in_its_place_and_no_other() {
        let room = ROOM_BYTES - LINE_BYTES;
        for tiles in [[1, 1], [32, 32], [288, 288], [2304, 2304], [1000, room], [room, 32], [2 * ROOM_BYTES, 32]] {
            for (first, len) in [(0, 20_000), (32, 12_345), (5, 11_000), (48, tiles[0] + 7), (9, 0)] {
                let mut memory = vec![0xA5; first + len + 64];
                let made = Level::best().dispatch(Write(&mut memory[first..first + len], tiles));
                let expected = |at| if (first..first + made).contains(&at) { value(at - first + 1) } else { 0xA5 };
                let wrong = memory.iter().enumerate().position(|(at, &byte)| byte != expected(at));
                assert_eq!(wrong, None, "{made} of {len} bytes at {first} in tiles of {tiles:?}");
            }
        }
    }
}
