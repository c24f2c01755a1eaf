//! Where the parts of a packed superblock lie: in the order in which they are read.
//!
//! First the high bits of pairs of 6 bits, then each vector of scales and the units of codes that it scales, then d and dmin,
//! then the minima. CPUs follow such a stream by themselves: of a superblock whose scales and minima lay before its codes,
//! and were read after them, Zen 4 consumed four fifths of what memory gave.

use super::{
    super::{
        packed::{high_vectors, low_vectors, pairs_in_vector, unit_bytes},
        tile::SuperTile,
    },
    BLOCK,
    operands::UNITS,
};
use crate::simd::{PANEL_ROWS, VECTOR_BYTES};

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    pub(super) const SCALED: bool = SCALE_BITS != 0;
    /// Pairs of groups.
    pub(super) const PAIRS: usize = BLOCK / GROUP / 2;
    /// Pairs stored: of scales, then of minima.
    pub(super) const STORED_PAIRS: usize = if Self::SCALED { Self::PAIRS * (1 + MIN as usize) } else { 0 };

    const HIGH_BYTES: usize = high_vectors(SCALE_BITS, Self::STORED_PAIRS) * VECTOR_BYTES;
    const UNIT_BYTES: usize = unit_bytes(BITS);
    /// A vector of scales scales as many units.
    const SCALED_UNITS: usize = if Self::SCALED { UNITS * pairs_in_vector(SCALE_BITS) / Self::PAIRS } else { UNITS };
    /// From a vector of scales to the next.
    const SCALED_BYTES: usize = Self::SCALED as usize * VECTOR_BYTES + Self::SCALED_UNITS * Self::UNIT_BYTES;

    pub(super) const D_AT: usize = Self::HIGH_BYTES + UNITS / Self::SCALED_UNITS * Self::SCALED_BYTES;
    pub(super) const DMIN_AT: usize = Self::D_AT + PANEL_ROWS * if Self::SCALED { 2 } else { 4 };
    const MINS_AT: usize = Self::DMIN_AT + if MIN { PANEL_ROWS * 2 } else { 0 };
    pub(super) const BYTES: usize =
        Self::MINS_AT + if MIN { low_vectors(SCALE_BITS, Self::PAIRS) * VECTOR_BYTES } else { 0 };

    /// Where unit `unit` of the codes lies.
    #[inline(always)]
    pub(super) const fn unit_at(unit: usize) -> usize {
        let scaled = unit / Self::SCALED_UNITS * Self::SCALED_BYTES + Self::SCALED as usize * VECTOR_BYTES;
        Self::HIGH_BYTES + scaled + unit % Self::SCALED_UNITS * Self::UNIT_BYTES
    }

    /// Where vector `vector` of the stored pairs lies.
    #[inline(always)]
    pub(super) const fn pairs_at(vector: usize) -> usize {
        let (scales, low) = (low_vectors(SCALE_BITS, Self::PAIRS), low_vectors(SCALE_BITS, Self::STORED_PAIRS));
        if vector >= low {
            (vector - low) * VECTOR_BYTES
        } else if vector >= scales {
            Self::MINS_AT + (vector - scales) * VECTOR_BYTES
        } else {
            Self::HIGH_BYTES + vector * Self::SCALED_BYTES
        }
    }
}
