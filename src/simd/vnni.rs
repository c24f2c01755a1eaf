//! Sums of products with `vpdpbusd`, step by step, as few at a time as there are registers for, of either width.

use super::{
    array_of,
    isa::{Isa, sums_fit},
};

/// An instruction set that has `vpdpbusd`, and whose [`Isa::split_scales`] gives a scale and a zero, which `vpdpwssd` multiplies by
/// a sum's low half and by its sign.
pub trait Vnni: Isa {
    /// Sums of a tile that is left in the order that the compiler finds, at most.
    const SUMS_LEFT_TO_COMPILER: usize;
    /// `acc` plus the products of the four u8 and i8 of each lane.
    fn dot_bytes(self, acc: Self::V, w: Self::V, x: Self::V) -> Self::V;
    /// The sum, which the compiler finishes before it loads anything for others: there are no registers to hold that.
    fn finished(self, sum: Self::V) -> Self::V;
    /// Lanes of at most 24 bits as i16 pairs: the lowest byte, and the other two.
    fn split_sum(self, sum: Self::V) -> Self::V;
}

/// Sums that registers hold beside those of all groups and what they are made of.
const SUMS_AT_ONCE: usize = 8;

/// Whether a group's sums fit an i16: by what is known of x, or whatever it is.
const fn sums_are_narrow<const BITS: u32, const STEPS: usize, const FIT: bool>() -> bool {
    FIT || sums_fit(BITS, 4 * STEPS)
}

/// Each lane's scale `s` as `(s, 256 · s)`, for sums taken apart by [`Vnni::split_sum`].
#[inline(always)]
fn wide_scales<I: Vnni, const MR: usize>(isa: I, scale: [I::V; MR]) -> [I::V; MR] {
    array_of(
        #[inline(always)]
        |i| isa.or(scale[i], isa.shl(scale[i], 24)),
    )
}

/// Adds the products of step `step` and of columns from `FIRST` on; they are finished before the next step's operands are
/// loaded if they are `IN_ORDER`.
#[inline(always)]
fn add_step<I: Vnni, const MR: usize, const NR: usize, const FIRST: usize, const IN_ORDER: bool>(
    isa: I,
    sums: &mut [[I::V; NR]; MR],
    step: usize,
    w: &impl Fn(usize, usize) -> I::V,
    x: &impl Fn(usize, usize) -> I::V,
) {
    let codes: [I::V; MR] = array_of(
        #[inline(always)]
        |i| w(step, i),
    );
    for j in 0..NR {
        let xs = x(step, FIRST + j);
        for i in 0..MR {
            sums[i][j] = isa.dot_bytes(sums[i][j], codes[i], xs);
        }
    }
    if IN_ORDER {
        for sum in sums.as_flattened_mut() {
            *sum = isa.finished(*sum);
        }
    }
}

/// Adds the products of all steps, of columns from `FIRST` on. A loop of so many instructions would not be unrolled.
#[inline(always)]
pub fn add_steps<
    I: Vnni,
    const STEPS: usize,
    const MR: usize,
    const NR: usize,
    const FIRST: usize,
    const IN_ORDER: bool,
>(
    isa: I,
    sums: &mut [[I::V; NR]; MR],
    w: &impl Fn(usize, usize) -> I::V,
    x: &impl Fn(usize, usize) -> I::V,
) {
    const { assert!(matches!(STEPS, 1 | 2 | 4 | 8)) };
    add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 0, w, x);
    if const { STEPS > 1 } {
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 1, w, x);
    }
    if const { STEPS > 2 } {
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 2, w, x);
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 3, w, x);
    }
    if const { STEPS > 4 } {
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 4, w, x);
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 5, w, x);
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 6, w, x);
        add_step::<I, MR, NR, FIRST, IN_ORDER>(isa, sums, 7, w, x);
    }
}

/// [`add_steps`], in two sums of each for every second step: a few would wait for themselves.
#[inline(always)]
pub fn add_steps_twice<I: Vnni, const STEPS: usize, const MR: usize, const NR: usize>(
    isa: I,
    sums: &mut [[I::V; NR]; MR],
    w: &impl Fn(usize, usize) -> I::V,
    x: &impl Fn(usize, usize) -> I::V,
) {
    if const { STEPS < 8 } {
        return add_steps::<I, STEPS, MR, NR, 0, false>(isa, sums, w, x);
    }
    let mut others = [[isa.splat(0); NR]; MR];
    add_step::<I, MR, NR, 0, false>(isa, sums, 0, w, x);
    add_step::<I, MR, NR, 0, false>(isa, &mut others, 1, w, x);
    add_step::<I, MR, NR, 0, false>(isa, sums, 2, w, x);
    add_step::<I, MR, NR, 0, false>(isa, &mut others, 3, w, x);
    add_step::<I, MR, NR, 0, false>(isa, sums, 4, w, x);
    add_step::<I, MR, NR, 0, false>(isa, &mut others, 5, w, x);
    add_step::<I, MR, NR, 0, false>(isa, sums, 6, w, x);
    add_step::<I, MR, NR, 0, false>(isa, &mut others, 7, w, x);
    for (sum, other) in sums.as_flattened_mut().iter_mut().zip(others.as_flattened()) {
        *sum = isa.add(*sum, *other);
    }
}

/// [`Isa::dot_scaled`].
#[inline(always)]
pub fn dot_scaled<I: Vnni, const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize, const FIT: bool>(
    isa: I,
    acc: &mut [[I::V; NR]; MR],
    scale: [I::V; MR],
    centre: &impl Fn(usize, usize) -> I::V,
    w: &impl Fn(usize, usize) -> I::V,
    x: &impl Fn(usize, usize) -> I::V,
) {
    let scale = if const { sums_are_narrow::<BITS, STEPS, FIT>() } { scale } else { wide_scales(isa, scale) };
    const { assert!(MR * NR <= SUMS_AT_ONCE || MR * 4 == SUMS_AT_ONCE && NR == 8) };
    if const { MR * NR > SUMS_AT_ONCE } {
        scaled_columns::<I, BITS, STEPS, MR, NR, FIT, 0, 4>(isa, acc, scale, centre, w, x);
        scaled_columns::<I, BITS, STEPS, MR, NR, FIT, 4, 4>(isa, acc, scale, centre, w, x);
    } else {
        scaled_columns::<I, BITS, STEPS, MR, NR, FIT, 0, NR>(isa, acc, scale, centre, w, x);
    }
}

/// [`dot_scaled`] for `COLUMNS` columns from `FIRST` on; scales are `wide_scales` where sums may not fit an i16.
#[inline(always)]
fn scaled_columns<
    I: Vnni,
    const BITS: u32,
    const STEPS: usize,
    const MR: usize,
    const NR: usize,
    const FIT: bool,
    const FIRST: usize,
    const COLUMNS: usize,
>(
    isa: I,
    acc: &mut [[I::V; NR]; MR],
    scale: [I::V; MR],
    centre: &impl Fn(usize, usize) -> I::V,
    w: &impl Fn(usize, usize) -> I::V,
    x: &impl Fn(usize, usize) -> I::V,
) {
    let mut sum = [[isa.splat(0); COLUMNS]; MR];
    if const { BITS == 6 } {
        for j in 0..COLUMNS {
            let mut total = centre(0, FIRST + j);
            for step in (4..STEPS).step_by(4) {
                total = isa.add(total, centre(step, FIRST + j));
            }
            for i in 0..MR {
                sum[i][j] = total;
            }
        }
    }
    if const { MR * NR > I::SUMS_LEFT_TO_COMPILER } {
        add_steps::<I, STEPS, MR, COLUMNS, FIRST, true>(isa, &mut sum, w, x);
    } else if const { MR * NR < 8 } {
        add_steps_twice::<I, STEPS, MR, COLUMNS>(isa, &mut sum, w, x);
    } else {
        add_steps::<I, STEPS, MR, COLUMNS, FIRST, false>(isa, &mut sum, w, x);
    }
    for i in 0..MR {
        for j in 0..COLUMNS {
            let sum =
                if const { sums_are_narrow::<BITS, STEPS, FIT>() } { sum[i][j] } else { isa.split_sum(sum[i][j]) };
            let total = isa.dot_i16(acc[i][FIRST + j], sum, scale[i]);
            acc[i][FIRST + j] = if const { MR * NR > I::SUMS_LEFT_TO_COMPILER } { isa.finished(total) } else { total };
        }
    }
}
