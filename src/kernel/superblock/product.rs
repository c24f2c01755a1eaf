//! The product of a superblock of weights and of x: what every microkernel of the class runs.

use super::{
    super::{
        Columns, Inputs,
        flat::{biased, remaining_bias},
        packed::UNIT_STEPS,
        tile::SuperTile,
    },
    BLOCK,
    operands::{Operands, RUNS},
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
    /// The bias that is left for the sums once the instruction set has centred codes itself.
    pub(super) const fn bias<I: Isa>(folded: bool) -> i32 {
        if folded {
            -Self::PRODUCTS.0
        } else if Self::SCALED && BITS == 6 && I::CENTERS_6BIT {
            BIAS - 32
        } else {
            remaining_bias::<I>(BITS, BIAS)
        }
    }

    /// Whether group sums are asked to fit an i16 before the fast product is taken.
    const fn asks_fit<I: Isa>() -> bool {
        Self::SCALED && I::PREFERS_I16_SUMS && BITS < 8 && !sums_fit(BITS, GROUP)
    }

    /// Adds one superblock's product to the sums of `MR` registers of rows and `NR` columns.
    ///
    /// # Safety
    /// `x` holds the columns and superblock `block`.
    #[inline(always)]
    pub(super) unsafe fn accumulate<I: Isa, const MR: usize, const NR: usize, const W: usize, const FOLDED: bool>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: &impl Operands<I>,
        acc: &mut [[I::F; NR]; MR],
    ) {
        // SAFETY: the caller's promise is the same; peaks are those of the columns' group.
        unsafe {
            let sums = if const { FOLDED || !Self::SCALED } {
                Self::flat_sums::<I, MR, NR, W, FOLDED>(isa, x, columns, block, weights)
            } else if const { Self::asks_fit::<I>() }
                && (*x.peaks.as_ptr().add(columns.peaks_at(x.k / BLOCK, block))).fit(BITS, GROUP)
            {
                Self::scaled_sums::<I, MR, NR, W, true>(isa, x, columns, block, weights)
            } else {
                Self::scaled_sums::<I, MR, NR, W, false>(isa, x, columns, block, weights)
            };
            const { assert!(MR * NR <= 8 || NR == 8) };
            // Eight at a time, for which there are registers.
            if const { MR * NR > 8 } {
                Self::add_terms::<I, MR, NR, W, 0, 4>(isa, x, columns, block, weights, &sums, acc);
                Self::add_terms::<I, MR, NR, W, 4, 4>(isa, x, columns, block, weights, &sums, acc);
            } else {
                Self::add_terms::<I, MR, NR, W, 0, NR>(isa, x, columns, block, weights, &sums, acc);
            }
            isa.set_aside(acc);
        }
    }

    /// Adds to `COUNT` columns of `acc`, from column `FIRST` on, what their integer sums and the minima come to.
    ///
    /// # Safety
    /// As [`Self::accumulate`].
    #[inline(always)]
    pub(super) unsafe fn add_terms<
        I: Isa,
        const MR: usize,
        const NR: usize,
        const W: usize,
        const FIRST: usize,
        const COUNT: usize,
    >(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: &impl Operands<I>,
        sums: &[[I::V; NR]; MR],
        acc: &mut [[I::F; NR]; MR],
    ) {
        let columns = Columns::<W> { group: columns.group, first: columns.first + FIRST };
        let mut terms: [[I::F; COUNT]; MR] = array_of(
            #[inline(always)]
            |i| {
                array_of(
                    #[inline(always)]
                    |j| isa.mul_f32(weights.d(i), isa.to_f32(sums[i][FIRST + j])),
                )
            },
        );
        // SAFETY: the caller's promise is the same.
        unsafe {
            if MIN {
                let mins = Self::pair_sums::<I, MR, COUNT, W>(
                    isa,
                    x,
                    columns,
                    block,
                    #[inline(always)]
                    |p, i| weights.min_pair(p, i),
                );
                for i in 0..MR {
                    let dmin = weights.dmin(i);
                    for j in 0..COUNT {
                        terms[i][j] = isa.sub_f32(terms[i][j], isa.mul_f32(dmin, isa.to_f32(mins[i][j])));
                    }
                }
            }
            let d = x.arrays.d.as_ptr().add(columns.at(x.k / BLOCK, block));
            for j in 0..COUNT {
                let dx = isa.splat_f32(*d.add(j));
                for i in 0..MR {
                    acc[i][FIRST + j] = isa.add_f32(acc[i][FIRST + j], isa.mul_f32(terms[i][j], dx));
                }
            }
        }
    }

    /// The integer sums of a superblock that is one group.
    ///
    /// # Safety
    /// As [`Self::accumulate`].
    #[inline(always)]
    unsafe fn flat_sums<I: Isa, const MR: usize, const NR: usize, const W: usize, const FOLDED: bool>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: &impl Operands<I>,
    ) -> [[I::V; NR]; MR] {
        let bias = const { Self::bias::<I>(FOLDED) };
        // SAFETY: entries of superblock `block` of the columns, which the caller vouches for.
        unsafe {
            let neg_sums = x.arrays.neg_sums.as_ptr().add(columns.at(x.k / BLOCK, block));
            let codes = x.arrays.codes.as_ptr().add(columns.at(x.k / 4, block * BLOCK / 4));
            let init: [I::V; NR] = array_of(
                #[inline(always)]
                |j| biased(isa, bias, neg_sums.add(j)),
            );
            let mut sums = [init; MR];
            for run in 0..RUNS {
                weights.prefetch_part(run, RUNS);
                // What a run adds: the sums themselves, or sums of its own.
                let mut parts = if I::SHORT_CHAINS { [[isa.splat(0); NR]; MR] } else { sums };
                if FOLDED {
                    isa.dot::<8, UNIT_STEPS, MR, NR>(
                        &mut parts,
                        #[inline(always)]
                        |step, i| weights.codes(run * UNIT_STEPS + step, i),
                        #[inline(always)]
                        |step, j| isa.broadcast(codes.add((run * UNIT_STEPS + step) * W + j).cast()),
                    );
                } else {
                    isa.dot::<BITS, UNIT_STEPS, MR, NR>(
                        &mut parts,
                        #[inline(always)]
                        |step, i| weights.codes(run * UNIT_STEPS + step, i),
                        #[inline(always)]
                        |step, j| isa.broadcast(codes.add((run * UNIT_STEPS + step) * W + j).cast()),
                    );
                }
                if I::SHORT_CHAINS {
                    for (sum, part) in sums.as_flattened_mut().iter_mut().zip(parts.as_flattened()) {
                        *sum = isa.add(*sum, *part);
                    }
                    isa.set_aside(&mut sums);
                } else {
                    sums = parts;
                }
            }
            sums
        }
    }

    /// The integer sums of a superblock of scaled groups.
    ///
    /// # Safety
    /// As [`Self::accumulate`]; with `FIT`, the groups' sums fit an i16.
    #[inline(always)]
    unsafe fn scaled_sums<I: Isa, const MR: usize, const NR: usize, const W: usize, const FIT: bool>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: &impl Operands<I>,
    ) -> [[I::V; NR]; MR] {
        let mut sums = [[isa.splat(0); NR]; MR];
        Self::for_pairs(
            #[inline(always)]
            |p| {
                weights.prefetch_part(p, Self::PAIRS);
                // SAFETY: the caller's promise is the same.
                unsafe { Self::scaled_pair::<I, MR, NR, W, FIT>(isa, x, columns, block, (weights, p), &mut sums) };
            },
        );
        let bias = const { Self::bias::<I>(false) };
        if bias != 0 {
            // SAFETY: the caller's promise is the same.
            let scaled = unsafe {
                Self::pair_sums::<I, MR, NR, W>(
                    isa,
                    x,
                    columns,
                    block,
                    #[inline(always)]
                    |p, i| weights.scale_pair(p, i),
                )
            };
            for i in 0..MR {
                for j in 0..NR {
                    sums[i][j] = isa.sub(sums[i][j], isa.mul(scaled[i][j], isa.splat(bias)));
                }
            }
        }
        sums
    }

    /// The groups of pair `p` of superblock `block`, scaled and added to the sums.
    ///
    /// # Safety
    /// As [`Self::scaled_sums`].
    #[inline(always)]
    unsafe fn scaled_pair<I: Isa, const MR: usize, const NR: usize, const W: usize, const FIT: bool>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        (weights, p): (&impl Operands<I>, usize),
        sums: &mut [[I::V; NR]; MR],
    ) {
        let scales: [[I::V; 2]; MR] = array_of(
            #[inline(always)]
            |i| weights.scales(p, i),
        );
        let [first, second]: [[I::V; MR]; 2] = array_of(
            #[inline(always)]
            |half| {
                array_of(
                    #[inline(always)]
                    |i| scales[i][half],
                )
            },
        );
        // No loop, which the compiler would keep, its indices in memory.
        // SAFETY: the caller's promise is the same.
        unsafe {
            Self::scaled_group::<I, MR, NR, W, FIT>(isa, x, columns, block, (weights, 2 * p), first, sums);
            Self::scaled_group::<I, MR, NR, W, FIT>(isa, x, columns, block, (weights, 2 * p + 1), second, sums);
        }
    }

    /// Group `group` of superblock `block`, scaled and added to the sums.
    ///
    /// # Safety
    /// As [`Self::scaled_sums`].
    #[inline(always)]
    unsafe fn scaled_group<I: Isa, const MR: usize, const NR: usize, const W: usize, const FIT: bool>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        (weights, group): (&impl Operands<I>, usize),
        scale: [I::V; MR],
        sums: &mut [[I::V; NR]; MR],
    ) {
        let operands = (weights, block * (BLOCK / GROUP) + group, scale);
        // SAFETY: the caller's promise is the same.
        unsafe {
            if const { GROUP == 16 } {
                Self::scaled_steps::<I, MR, NR, W, 4, FIT, _>(isa, x, columns, operands, sums);
            } else {
                Self::scaled_steps::<I, MR, NR, W, 8, FIT, _>(isa, x, columns, operands, sums);
            }
        }
        isa.set_aside(sums);
    }

    /// `4 · STEPS` codes, scaled and added to the sums; `group` counts from the start of k.
    ///
    /// # Safety
    /// The group is inside the columns of x.
    #[inline(always)]
    unsafe fn scaled_steps<
        I: Isa,
        const MR: usize,
        const NR: usize,
        const W: usize,
        const STEPS: usize,
        const FIT: bool,
        O: Operands<I>,
    >(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        (weights, group, scale): (&O, usize, [I::V; MR]),
        sums: &mut [[I::V; NR]; MR],
    ) {
        let first = group * STEPS % (BLOCK / 4);
        // SAFETY: the group's codes and the sums of its sixteens, which the caller vouches for.
        unsafe {
            let codes = x.arrays.codes.as_ptr().add(columns.at(x.k / 4, group * STEPS));
            let centres = if I::HALF_CENTRES { x.arrays.half_centres } else { x.arrays.centres };
            let centres = centres.as_ptr().add(columns.at(x.k / 16, group * STEPS / 4));
            isa.dot_scaled::<BITS, STEPS, MR, NR, FIT>(
                sums,
                scale,
                #[inline(always)]
                |step, j| isa.broadcast(centres.add(step / 4 * W + j).cast()),
                #[inline(always)]
                |step, i| weights.codes(first + step, i),
                #[inline(always)]
                |step, j| isa.broadcast(codes.add(step * W + j).cast()),
            );
        }
    }

    /// `Σ_p pair(p, i) · (Σ x of its two groups)`: the integers of the groups' minima, or of their scales.
    ///
    /// # Safety
    /// As [`Self::accumulate`].
    #[inline(always)]
    unsafe fn pair_sums<I: Isa, const MR: usize, const NR: usize, const W: usize>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        pair: impl Fn(usize, usize) -> I::V,
    ) -> [[I::V; NR]; MR] {
        // SAFETY: the caller's promise is the same.
        let sums = unsafe { Self::sums_of_pairs(x, columns, block) };
        let mut out = [[isa.splat(0); NR]; MR];
        for p in 0..Self::PAIRS {
            let pairs: [I::V; MR] = array_of(
                #[inline(always)]
                |i| pair(p, i),
            );
            // SAFETY: the sums of all pairs lie there.
            unsafe { Self::add_pair_sums::<I, MR, NR, W>(isa, sums, p, pairs, &mut out) };
        }
        out
    }

    /// Where the sums of x over the groups of superblock `block` lie, pair by pair.
    ///
    /// # Safety
    /// As [`Self::accumulate`].
    #[inline(always)]
    pub(super) unsafe fn sums_of_pairs<const W: usize>(
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
    ) -> *const i32 {
        let sums = if GROUP == 16 { x.arrays.sums16 } else { x.arrays.sums32 };
        // SAFETY: entries of superblock `block` of the columns, which the caller vouches for.
        unsafe { sums.as_ptr().add(columns.at(x.k / BLOCK * Self::PAIRS, block * Self::PAIRS)) }
    }

    /// What pair `p` adds to [`Self::pair_sums`].
    ///
    /// # Safety
    /// `sums` is what [`Self::sums_of_pairs`] says.
    #[inline(always)]
    pub(super) unsafe fn add_pair_sums<I: Isa, const MR: usize, const NR: usize, const W: usize>(
        isa: I,
        sums: *const i32,
        p: usize,
        pairs: [I::V; MR],
        out: &mut [[I::V; NR]; MR],
    ) {
        for j in 0..NR {
            // SAFETY: the caller's promise.
            let xs = unsafe { isa.broadcast(sums.add(p * W + j).cast()) };
            for i in 0..MR {
                out[i][j] = isa.dot_i16(out[i][j], pairs[i], xs);
            }
        }
    }
}
