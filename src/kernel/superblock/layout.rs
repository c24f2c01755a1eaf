//! Where the parts of a packed superblock lie: in the order in which they are read.
//!
//! First the high bits of pairs of 6 bits, then each vector of scales and the units of codes that it scales (or a unit's
//! vectors of scales and the unit), then d and dmin, then the minima. CPUs follow such a stream by themselves: of a superblock
//! whose scales and minima lay before its codes, and were read after them, Zen 4 consumed four fifths of what memory gave.

use super::{
    super::{
        packed::{UNIT_STEPS, high_vectors, low_vectors, unit_bytes, unit_runs},
        tile::SuperTile,
    },
    BLOCK,
    operands::RUNS,
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
    /// Units of codes, and steps in each.
    pub(super) const UNITS: usize = RUNS / unit_runs(BITS, GROUP);
    pub(super) const UNIT_STEPS: usize = unit_runs(BITS, GROUP) * UNIT_STEPS;
    const UNIT_BYTES: usize = unit_bytes(BITS, GROUP);
    /// Vectors of scales.
    const SCALES: usize = if Self::SCALED { low_vectors(SCALE_BITS, Self::PAIRS) } else { 0 };
    /// Parts of the codes, each with vectors of scales, as many units that these scale, and the bytes of both.
    const PARTS: usize = match Self::SCALES {
        0 => 1,
        scales if scales < Self::UNITS => scales,
        _ => Self::UNITS,
    };
    const PART_SCALES: usize = Self::SCALES / Self::PARTS;
    const PART_UNITS: usize = Self::UNITS / Self::PARTS;
    const PART_BYTES: usize = Self::PART_SCALES * VECTOR_BYTES + Self::PART_UNITS * Self::UNIT_BYTES;

    pub(super) const D_AT: usize = Self::HIGH_BYTES + Self::PARTS * Self::PART_BYTES;
    pub(super) const DMIN_AT: usize = Self::D_AT + PANEL_ROWS * if Self::SCALED { 2 } else { 4 };
    const MINS_AT: usize = Self::DMIN_AT + if MIN { PANEL_ROWS * 2 } else { 0 };
    pub(super) const BYTES: usize =
        Self::MINS_AT + if MIN { low_vectors(SCALE_BITS, Self::PAIRS) * VECTOR_BYTES } else { 0 };

    /// Where unit `unit` of the codes lies.
    #[inline(always)]
    pub(super) const fn unit_at(unit: usize) -> usize {
        let part = unit / Self::PART_UNITS * Self::PART_BYTES;
        Self::HIGH_BYTES + part + Self::PART_SCALES * VECTOR_BYTES + unit % Self::PART_UNITS * Self::UNIT_BYTES
    }

    /// Where vector `vector` of the stored pairs lies.
    #[inline(always)]
    pub(super) const fn pairs_at(vector: usize) -> usize {
        let low = low_vectors(SCALE_BITS, Self::STORED_PAIRS);
        if vector >= low {
            (vector - low) * VECTOR_BYTES
        } else if vector >= Self::SCALES {
            Self::MINS_AT + (vector - Self::SCALES) * VECTOR_BYTES
        } else {
            let part = vector / Self::PART_SCALES * Self::PART_BYTES;
            Self::HIGH_BYTES + part + vector % Self::PART_SCALES * VECTOR_BYTES
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        QuantBlock,
        format::{Q2K, Q3K, Q4K, Q5K, Q6K, Q8K},
    };
    use alloc::vec::Vec;

    /// The parts of the tile of a format, in the order in which decode reads them: offset and bytes.
    trait Parts {
        fn parts() -> (Vec<(usize, usize)>, usize);
    }

    impl<
        const BITS: u32,
        const BIAS: i32,
        const GROUP: usize,
        const SCALE_BITS: u32,
        const SCALE_BIAS: i32,
        const MIN: bool,
    > Parts for SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
    {
        fn parts() -> (Vec<(usize, usize)>, usize) {
            let (scales, low) = (Self::SCALES, low_vectors(SCALE_BITS, Self::STORED_PAIRS));
            let vector = |v| (Self::pairs_at(v), VECTOR_BYTES);
            let mut parts: Vec<_> = (low..low + high_vectors(SCALE_BITS, Self::STORED_PAIRS)).map(vector).collect();
            for unit in 0..Self::UNITS {
                // Those whose first pair belongs to the unit.
                parts.extend((0..scales).filter(|v| v * Self::UNITS / scales == unit).map(vector));
                parts.push((Self::unit_at(unit), Self::UNIT_BYTES));
            }
            parts.push((Self::D_AT, PANEL_ROWS * if Self::SCALED { 2 } else { 4 }));
            if MIN {
                parts.push((Self::DMIN_AT, PANEL_ROWS * 2));
                parts.extend((scales..low).map(vector));
            }
            (parts, Self::BYTES)
        }
    }

    #[test]
    fn parts_follow_one_another_as_they_are_read() {
        fn tile<F: QuantBlock<Tile: Parts>>() -> (Vec<(usize, usize)>, usize, usize) {
            let (parts, bytes) = F::Tile::parts();
            (parts, bytes, PANEL_ROWS * size_of::<F::Block>())
        }
        for (parts, bytes, blocks_bytes) in [tile::<Q2K>(), tile::<Q3K>(), tile::<Q4K>(), tile::<Q5K>(), tile::<Q6K>()]
        {
            let end = parts.iter().fold(0, |end, &(at, bytes)| {
                assert_eq!(at, end, "{parts:?}");
                at + bytes
            });
            assert_eq!((end, bytes), (bytes, blocks_bytes), "no more bytes than the file's");
        }
        // Two vectors of scales to each long unit.
        let (parts, bytes) = SuperTile::<2, 0, 16, 8, 0, false>::parts();
        assert_eq!(
            parts.iter().fold(0, |end, &(at, bytes)| if at == end { at + bytes } else { 0 }),
            bytes,
            "{parts:?}"
        );
        // The file has sums of groups as well.
        let (parts, bytes, blocks_bytes) = tile::<Q8K>();
        assert_eq!(parts.last(), Some(&(bytes - 64, 64)));
        assert!(bytes < blocks_bytes);
    }
}
