//! The product of a superblock of weights and of x: what every microkernel of the class runs.

use super::{
    super::{
        Inputs,
        flat::{biased, remaining_bias},
        planes::{UNIT_CODES, UNIT_STEPS},
        tile::SuperTile,
    },
    BLOCK,
    operands::{Operands, UNITS},
};
use crate::simd::{Isa, array_of};
use core::ops::Range;

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    /// The bias that is left for the sums once the instruction set has centred codes itself.
    const fn bias<I: Isa>(folded: bool) -> i32 {
        if folded {
            -Self::PRODUCTS.0
        } else if Self::SCALED && BITS == 6 && I::CENTERS_6BIT {
            BIAS - 32
        } else {
            remaining_bias::<I>(BITS, BIAS)
        }
    }

    /// Adds one superblock's product to the sums of `MR` registers of rows and `NR` columns.
    ///
    /// # Safety
    /// `x` holds the columns, at least one, and superblock `block`; a column past the last stands for it.
    #[inline(always)]
    pub(super) unsafe fn accumulate<I: Isa, const MR: usize, const NR: usize, const FOLDED: bool>(
        isa: I,
        x: &Inputs<'_>,
        columns: Range<usize>,
        block: usize,
        weights: &impl Operands<I>,
        acc: &mut [[I::F; NR]; MR],
    ) {
        let superblocks = x.k / BLOCK;
        let column = |j: usize| (columns.start + j).min(columns.end - 1);
        let at: [usize; NR] = array_of(
            #[inline(always)]
            |j| column(j) * superblocks + block,
        );
        let codes: [*const u8; NR] = array_of(
            #[inline(always)]
            |j| x.codes.as_ptr().wrapping_add(column(j) * x.stride + block * BLOCK).cast(),
        );
        // SAFETY: a column of x and `block` of k / 256, in steps of the arrays' own lengths.
        unsafe {
            let bias = const { Self::bias::<I>(FOLDED) };
            let mut sums = [[isa.splat(0); NR]; MR];
            if Self::SCALED && !FOLDED {
                for p in 0..Self::PAIRS {
                    let scales: [[I::V; 2]; MR] = array_of(
                        #[inline(always)]
                        |i| isa.split_scales::<BITS>(weights.scale_pair(p, i)),
                    );
                    for half in 0..2 {
                        let group = 2 * p + half;
                        let unit = weights.unit(group * GROUP / UNIT_CODES);
                        let scale = array_of(
                            #[inline(always)]
                            |i| scales[i][half],
                        );
                        let operands = (weights, &unit, group, scale);
                        if GROUP == 16 {
                            Self::scaled_group::<I, MR, NR, 4, _>(isa, x, (at, codes), operands, &mut sums);
                        } else {
                            Self::scaled_group::<I, MR, NR, 8, _>(isa, x, (at, codes), operands, &mut sums);
                        }
                    }
                }
                if bias != 0 {
                    let scaled = Self::pair_sums::<I, MR, NR>(
                        isa,
                        x,
                        at,
                        #[inline(always)]
                        |p, i| weights.scale_pair(p, i),
                    );
                    for i in 0..MR {
                        for j in 0..NR {
                            sums[i][j] = isa.sub(sums[i][j], isa.mul(scaled[i][j], isa.splat(bias)));
                        }
                    }
                }
            } else {
                let init: [I::V; NR] = array_of(
                    #[inline(always)]
                    |j| biased(isa, bias, x.neg_sums.as_ptr().add(at[j])),
                );
                sums = [init; MR];
                for unit in 0..UNITS {
                    let unpacked = weights.unit(unit);
                    if FOLDED {
                        isa.dot::<8, UNIT_STEPS, MR, NR>(
                            &mut sums,
                            #[inline(always)]
                            |step, i| weights.codes(&unpacked, step, i),
                            #[inline(always)]
                            |step, j| isa.broadcast(codes[j].add(unit * UNIT_CODES + step * 4)),
                        );
                    } else {
                        isa.dot::<BITS, UNIT_STEPS, MR, NR>(
                            &mut sums,
                            #[inline(always)]
                            |step, i| weights.codes(&unpacked, step, i),
                            #[inline(always)]
                            |step, j| isa.broadcast(codes[j].add(unit * UNIT_CODES + step * 4)),
                        );
                    }
                }
            }
            let mut terms: [[I::F; NR]; MR] = array_of(
                #[inline(always)]
                |i| {
                    array_of(
                        #[inline(always)]
                        |j| isa.mul_f32(weights.d(i), isa.to_f32(sums[i][j])),
                    )
                },
            );
            if MIN {
                let mins = Self::pair_sums::<I, MR, NR>(
                    isa,
                    x,
                    at,
                    #[inline(always)]
                    |p, i| weights.min_pair(p, i),
                );
                for i in 0..MR {
                    let dmin = weights.dmin(i);
                    for j in 0..NR {
                        terms[i][j] = isa.sub_f32(terms[i][j], isa.mul_f32(dmin, isa.to_f32(mins[i][j])));
                    }
                }
            }
            for j in 0..NR {
                let dx = isa.splat_f32(*x.d.as_ptr().add(at[j]));
                for i in 0..MR {
                    acc[i][j] = isa.add_f32(acc[i][j], isa.mul_f32(terms[i][j], dx));
                }
            }
        }
    }

    /// A group of `4 · STEPS` codes of `unit`, scaled and added to the sums.
    ///
    /// # Safety
    /// `at` are superblocks of x with their codes, `group` is one of theirs.
    #[inline(always)]
    unsafe fn scaled_group<I: Isa, const MR: usize, const NR: usize, const STEPS: usize, W: Operands<I>>(
        isa: I,
        x: &Inputs<'_>,
        (at, codes): ([usize; NR], [*const u8; NR]),
        (weights, unit, group, scale): (&W, &W::Unit, usize, [I::V; MR]),
        sums: &mut [[I::V; NR]; MR],
    ) {
        let first = group * STEPS % UNIT_STEPS;
        isa.dot_scaled::<BITS, STEPS, MR, NR>(
            sums,
            scale,
            #[inline(always)]
            |eight, j| {
                let index = at[j] * (BLOCK / 8) + group * STEPS / 2 + eight;
                // SAFETY: one of the 32 eighths of a superblock of x.
                unsafe { isa.broadcast(x.centres.as_ptr().add(index).cast()) }
            },
            #[inline(always)]
            |step, i| weights.codes(unit, first + step, i),
            #[inline(always)]
            |step, j| {
                // SAFETY: four of the 256 codes of a superblock of x.
                unsafe { isa.broadcast(codes[j].add((group * STEPS + step) * 4)) }
            },
        );
    }

    /// `Σ_p pair(p, i) · (Σ x of its two groups)`: the integers of the groups' minima, or of their scales.
    ///
    /// # Safety
    /// `at` are superblocks of x.
    #[inline(always)]
    unsafe fn pair_sums<I: Isa, const MR: usize, const NR: usize>(
        isa: I,
        x: &Inputs<'_>,
        at: [usize; NR],
        pair: impl Fn(usize, usize) -> I::V,
    ) -> [[I::V; NR]; MR] {
        let (sums, count) = if GROUP == 16 { (x.sums16, BLOCK / 16) } else { (x.sums32, BLOCK / 32) };
        let mut out = [[isa.splat(0); NR]; MR];
        for p in 0..Self::PAIRS {
            let pairs: [I::V; MR] = array_of(
                #[inline(always)]
                |i| pair(p, i),
            );
            for j in 0..NR {
                // SAFETY: two sums of superblock `at[j]`.
                let xs = unsafe { isa.broadcast(sums.as_ptr().add(at[j] * count + 2 * p).cast()) };
                for i in 0..MR {
                    out[i][j] = isa.dot_i16(out[i][j], pairs[i], xs);
                }
            }
        }
        out
    }
}
