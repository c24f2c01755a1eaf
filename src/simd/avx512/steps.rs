//! The sums of products with `vpdpbusd`, step by step, as few at a time as there are registers for.

use super::{
    super::{
        array_of,
        isa::{Isa, sums_fit},
    },
    Avx512Vnni,
};
use core::arch::x86_64::*;

/// Whether a group's sums fit an i16: by what is known of x, or whatever it is.
pub(super) const fn sums_are_narrow<const BITS: u32, const STEPS: usize, const FIT: bool>() -> bool {
    FIT || sums_fit(BITS, 4 * STEPS)
}

/// `vpdpwssd`, which LLVM would take apart into a multiplication and an addition: two of the port's cycles for one.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn dot_i16(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: registers only.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// The sum, which the compiler finishes before it loads anything for others: there are no registers to hold that.
#[inline]
#[target_feature(enable = "avx512f")]
fn finished(mut sum: __m512i) -> __m512i {
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {} */", inout(zmm_reg) sum, options(nostack, preserves_flags)) };
    sum
}

impl Avx512Vnni {
    /// Each lane's scale `s` as `(s, 256 · s)`, for sums taken apart by [`Self::wide_sum`].
    #[inline(always)]
    pub(super) fn wide_scales<const MR: usize>(self, scale: [__m512i; MR]) -> [__m512i; MR] {
        array_of(
            #[inline(always)]
            |i| self.or(scale[i], self.shl(scale[i], 24)),
        )
    }

    /// A sum of at most 24 bits as an i16 pair: its lowest byte, and the other two.
    #[inline(always)]
    fn wide_sum(self, sum: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512BW.
        unsafe { _mm512_shuffle_epi8(sum, _mm512_set4_epi32(0x0E0D_800C, 0x0A09_8008, 0x0605_8004, 0x0201_8000)) }
    }

    /// Adds the products of step `step` and of columns from `FIRST` on.
    #[inline(always)]
    fn step<const MR: usize, const NR: usize, const FIRST: usize>(
        self,
        sums: &mut [[__m512i; NR]; MR],
        step: usize,
        w: &impl Fn(usize, usize) -> __m512i,
        x: &impl Fn(usize, usize) -> __m512i,
    ) {
        let codes: [__m512i; MR] = array_of(
            #[inline(always)]
            |i| w(step, i),
        );
        for j in 0..NR {
            let xs = x(step, FIRST + j);
            for i in 0..MR {
                // SAFETY: the token proves AVX-512 VNNI.
                sums[i][j] = unsafe { _mm512_dpbusd_epi32(sums[i][j], codes[i], xs) };
            }
        }
    }

    /// Adds the products of all steps, in two sums of each for every second step if `twice`: a few would wait for themselves.
    #[inline(always)]
    pub(super) fn sum_steps<const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        acc: &mut [[__m512i; NR]; MR],
        twice: bool,
        w: &impl Fn(usize, usize) -> __m512i,
        x: &impl Fn(usize, usize) -> __m512i,
    ) {
        if !twice || STEPS < 8 {
            for step in 0..STEPS {
                self.step::<MR, NR, 0>(acc, step, w, x);
            }
            return;
        }
        let mut others = [[self.splat(0); NR]; MR];
        for step in (0..STEPS).step_by(2) {
            self.step::<MR, NR, 0>(acc, step, w, x);
            self.step::<MR, NR, 0>(&mut others, step + 1, w, x);
        }
        for (sum, other) in acc.as_flattened_mut().iter_mut().zip(others.as_flattened()) {
            *sum = self.add(*sum, *other);
        }
    }

    /// Step `step`, if there are as many, of columns from `FIRST` on, finished before the next one's operands are loaded.
    #[inline(always)]
    fn step_in_order<const STEPS: usize, const MR: usize, const FIRST: usize, const COLUMNS: usize>(
        self,
        sum: &mut [[__m512i; COLUMNS]; MR],
        step: usize,
        w: &impl Fn(usize, usize) -> __m512i,
        x: &impl Fn(usize, usize) -> __m512i,
    ) {
        if step >= STEPS {
            return;
        }
        self.step::<MR, COLUMNS, FIRST>(sum, step, w, x);
        for sum in sum.as_flattened_mut() {
            // SAFETY: the token proves AVX-512F.
            *sum = unsafe { finished(*sum) };
        }
    }

    /// [`Isa::dot_scaled`] for `COLUMNS` columns from `FIRST` on; scales are `wide_scales` where sums may not fit an i16.
    #[inline(always)]
    pub(super) fn scaled_columns<
        const BITS: u32,
        const STEPS: usize,
        const MR: usize,
        const NR: usize,
        const FIT: bool,
        const FIRST: usize,
        const COLUMNS: usize,
    >(
        self,
        acc: &mut [[__m512i; NR]; MR],
        scale: [__m512i; MR],
        centre: &impl Fn(usize, usize) -> __m512i,
        w: &impl Fn(usize, usize) -> __m512i,
        x: &impl Fn(usize, usize) -> __m512i,
    ) {
        let mut sum = [[self.splat(0); COLUMNS]; MR];
        if BITS == 6 {
            for j in 0..COLUMNS {
                let mut total = centre(0, FIRST + j);
                for step in (4..STEPS).step_by(4) {
                    total = self.add(total, centre(step, FIRST + j));
                }
                for i in 0..MR {
                    sum[i][j] = total;
                }
            }
        }
        if COLUMNS == NR {
            // Eight sums and their scaling keep the ports busy as they are.
            self.sum_steps::<STEPS, MR, COLUMNS>(&mut sum, MR * NR < 8, w, x);
        } else {
            // A loop of so many instructions would not be unrolled.
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 0, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 1, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 2, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 3, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 4, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 5, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 6, w, x);
            self.step_in_order::<STEPS, MR, FIRST, COLUMNS>(&mut sum, 7, w, x);
        }
        for i in 0..MR {
            for j in 0..COLUMNS {
                let sum =
                    if const { sums_are_narrow::<BITS, STEPS, FIT>() } { sum[i][j] } else { self.wide_sum(sum[i][j]) };
                let total = self.dot_i16(acc[i][FIRST + j], sum, scale[i]);
                // SAFETY: the token proves AVX-512F.
                acc[i][FIRST + j] = if COLUMNS < NR { unsafe { finished(total) } } else { total };
            }
        }
    }
}
