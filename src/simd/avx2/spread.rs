//! Scales of groups, spread over the lanes of a register.

use super::Avx2;
use core::arch::x86_64::*;

/// The bytes of a register.
#[repr(align(32))]
pub struct Pattern([u8; 32]);

/// What [`_mm256_shuffle_epi8`] spreads one of eight i16 by: the same to both halves of a register.
pub static SPREAD_ONE: [Pattern; 8] = spread([0, 1, 2, 3, 4, 5, 6, 7], 0);
/// The same, the next one to the upper half.
pub static SPREAD_TWO: [Pattern; 4] = spread([0, 2, 4, 6], 1);

/// What spreads the low or the high i16 of each lane over the lane.
pub static SPLIT: [Pattern; 2] = {
    let mut patterns = [const { Pattern([0; 32]) }; 2];
    let mut i = 0;
    while i < 64 {
        let (half, byte) = (i / 32, i % 32);
        patterns[half].0[byte] = (byte % 16 / 4 * 4 + 2 * half + byte % 2) as u8;
        i += 1;
    }
    patterns
};

/// What spreads bytes over two registers of a row's codes whose sums `vpackssdw` has joined, as words: those of the groups of 16.
pub static PAIRS_OF_16: [Pattern; 4] = pairs(16);
/// The same for groups of 32.
pub static PAIRS_OF_32: [Pattern; 4] = pairs(32);

const fn pairs(group: usize) -> [Pattern; 4] {
    let mut patterns = [const { Pattern([0; 32]) }; 4];
    let mut i = 0;
    while i < 4 * 32 {
        let (pattern, byte) = (i / 32, i % 32);
        let (half, register) = (byte / 16, byte % 16 / 8);
        let code = 64 * pattern + 32 * register + 16 * half;
        // A byte number of 128 gives zero.
        patterns[pattern].0[byte] = if byte % 2 == 0 { (code / group) as u8 } else { 128 };
        i += 1;
    }
    patterns
}

const fn spread<const N: usize>(of_low: [u8; N], to_high: u8) -> [Pattern; N] {
    let mut patterns = [const { Pattern([0; 32]) }; N];
    let mut i = 0;
    while i < N * 32 {
        let (pattern, byte) = (i / 32, i % 32);
        patterns[pattern].0[byte] = 2 * (of_low[pattern] + to_high * (byte / 16) as u8) + (byte % 2) as u8;
        i += 1;
    }
    patterns
}

/// The bytes of `v` that a pattern says, within each half.
#[inline(always)]
pub fn spread_by(_: Avx2, v: __m256i, pattern: &'static Pattern) -> __m256i {
    // Volatile, or the compiler makes two or three shuffles of its own out of this one.
    // SAFETY: the token proves AVX2; a pattern has 32 aligned bytes.
    unsafe { _mm256_shuffle_epi8(v, (&raw const pattern.0).cast::<__m256i>().read_volatile()) }
}
