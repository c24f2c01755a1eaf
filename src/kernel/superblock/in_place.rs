//! Packed groups whose codes are multiplied where they stand in their bytes.
//!
//! A group's four vectors cost a mask each and no shift: its sums come out as many bits higher as its codes stand, and fit an
//! i16 when they are moved down. Two groups' sums become the halves of lanes, which one product of i16 scales.
//!
//! Instructions for 64 MACs of one column with AVX-512, from the assembly: Q2_K 4.4, Q3_K 5.3, among them the dot, 0.4 to 0.5
//! prefetches and half a load. Intel's servers start the others two a cycle, 3.2 and 4 of them.

use super::{
    super::{
        Columns, Inputs,
        packed::{Unit, unit_runs},
        stream::keep_order,
        tile::SuperTile,
    },
    BLOCK,
    operands::Operands,
    packed_block::PackedBlock,
};
use crate::simd::{Isa, array_of, sums_fit};

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    /// Whether codes are multiplied where they stand: more columns gain less from it than it takes to move their sums.
    const fn multiplies_in_place<I: Isa>(columns: usize) -> bool {
        Self::SCALED && unit_runs(BITS, GROUP) > 1 && I::WHOLE_BYTES && columns <= 2
    }

    /// Calls `body` with each pair of groups, written out: all that depends on it is known.
    #[inline(always)]
    fn for_each_pair(mut body: impl FnMut(usize)) {
        const { assert!(unit_runs(BITS, GROUP) == 1 || Self::PAIRS == 8) };
        body(0);
        body(1);
        body(2);
        body(3);
        body(4);
        body(5);
        body(6);
        body(7);
    }

    /// [`Self::accumulate`] of a packed superblock.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn accumulate_packed<
        I: Isa,
        const MR: usize,
        const NR: usize,
        const W: usize,
        const AHEAD: bool,
    >(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: &PackedBlock<I, Self, MR, AHEAD>,
        acc: &mut [[I::F; NR]; MR],
    ) {
        if const { !Self::multiplies_in_place::<I>(NR) } {
            // SAFETY: the caller's promise is the same.
            return unsafe { Self::accumulate::<I, MR, NR, W, false>(isa, x, columns, block, weights, acc) };
        }
        let bias = const { Self::bias::<I>(false) };
        // Once, and not behind each fence.
        // SAFETY: the caller vouches for superblock `block` of the columns.
        let (codes, group_sums) = unsafe {
            let codes = x.arrays.codes.as_ptr().add(columns.at(x.k / 4, block * BLOCK / 4));
            (codes, Self::sums_of_pairs(x, columns, block))
        };
        let mut sums = [[isa.splat(0); NR]; MR];
        // Of x and the scales.
        let mut scaled = sums;
        Self::for_each_pair(
            #[inline(always)]
            |p| {
                // The compiler would load all vectors of a unit at once, more than there are registers.
                keep_order();
                weights.prefetch_part(p, Self::PAIRS);
                let scales: [I::V; MR] = array_of(
                    #[inline(always)]
                    |i| weights.scale_pair(p, i),
                );
                // SAFETY: the caller's promise is the same.
                unsafe {
                    let pairs = Self::pairs_in_place::<I, MR, NR, W, AHEAD>(isa, codes, weights, p);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        for (j, sum) in sums.iter_mut().enumerate() {
                            *sum = isa.dot_i16(*sum, pairs[i][j], scales[i]);
                        }
                    }
                    if bias != 0 {
                        Self::add_pair_sums::<I, MR, NR, W>(isa, group_sums, p, scales, &mut scaled);
                    }
                }
            },
        );
        if bias != 0 {
            for (sum, scaled) in sums.as_flattened_mut().iter_mut().zip(scaled.as_flattened()) {
                *sum = isa.sub(*sum, isa.mul(*scaled, isa.splat(bias)));
            }
        }
        // SAFETY: the caller's promise is the same.
        unsafe { Self::add_terms::<I, MR, NR, W, 0, NR>(isa, x, columns, block, weights, &sums, acc) };
    }

    /// The sums of both groups of pair `p`, in the halves of the lanes.
    ///
    /// # Safety
    /// The columns' codes of the superblock lie at `x`.
    #[inline(always)]
    unsafe fn pairs_in_place<I: Isa, const MR: usize, const NR: usize, const W: usize, const AHEAD: bool>(
        isa: I,
        x: *const i32,
        weights: &PackedBlock<I, Self, MR, AHEAD>,
        p: usize,
    ) -> [[I::V; NR]; MR] {
        const { assert!(unit_runs(BITS, GROUP) == 1 || sums_fit(BITS, GROUP)) };
        // No loop, which the compiler may keep: all that depends on the group is known.
        // SAFETY: the caller's promise is the same.
        let [(low, low_at), (high, high_at)] = unsafe {
            [
                Self::group_in_place::<I, MR, NR, W, AHEAD>(isa, x, weights, 2 * p),
                Self::group_in_place::<I, MR, NR, W, AHEAD>(isa, x, weights, 2 * p + 1),
            ]
        };
        array_of(
            #[inline(always)]
            |i| {
                array_of(
                    #[inline(always)]
                    |j| {
                        let low = isa.and(isa.shr(low[i][j], low_at), isa.splat(0xFFFF));
                        isa.or(low, isa.shl(high[i][j], 16 - high_at))
                    },
                )
            },
        )
    }

    /// The sums of group `group`, and how many bits higher they are than they should be.
    ///
    /// # Safety
    /// As [`Self::pairs_in_place`].
    #[inline(always)]
    unsafe fn group_in_place<I: Isa, const MR: usize, const NR: usize, const W: usize, const AHEAD: bool>(
        isa: I,
        x: *const i32,
        weights: &PackedBlock<I, Self, MR, AHEAD>,
        group: usize,
    ) -> ([[I::V; NR]; MR], u32) {
        let first = group * GROUP / 4;
        let place = Unit::<BITS, GROUP>::PLACES[first % Self::UNIT_STEPS];
        let mut sums = [[isa.splat(0); NR]; MR];
        isa.dot::<8, 4, MR, NR>(
            &mut sums,
            #[inline(always)]
            |step, i| weights.codes_at(first + step, i, place),
            // SAFETY: the caller's promise.
            #[inline(always)]
            |step, j| unsafe { isa.broadcast(x.add((first + step) * W + j).cast()) },
        );
        (sums, place)
    }
}
