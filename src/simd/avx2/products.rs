//! The sums of products with `vpmaddubsw`, step by step, in an order that the compiler keeps.

use super::{super::isa::Isa, Avx2};
use core::arch::x86_64::*;

/// Steps whose i16 sums cannot saturate, for unsigned codes of `bits`.
const fn steps_in_i16(bits: u32) -> usize {
    match bits {
        0..=4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    }
}

/// `sum`, of which the compiler knows nothing more: left to itself it adds many products as a tree, which takes more
/// registers than there are.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(mut sum: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {} */", inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

/// `sum + codes · x` in i16; of these, too, the compiler would make trees.
#[inline]
#[target_feature(enable = "avx2")]
fn add_product(mut sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    // SAFETY: AVX2, which is enabled here, and registers alone.
    unsafe {
        core::arch::asm!(
            "vpmaddubsw {product}, {codes}, {x}",
            "vpaddw {sum}, {sum}, {product}",
            sum = inout(ymm_reg) sum,
            codes = in(ymm_reg) codes,
            x = in(ymm_reg) x,
            product = out(ymm_reg) _,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Whether the compiler's own order suits a tile: with one register of rows and eight columns it is a fifth faster.
const fn left_to_compiler(registers: usize, columns: usize) -> bool {
    registers == 1 && columns > 1
}

impl Avx2 {
    /// `acc[i][j] += scale[i] · Σ_s w(s, i) · x(s, j)`, scales in both halves of each lane. With `CENTRED`, 6-bit codes as
    /// `code − 32`: for each four steps from `s` on, i16 sums start from `centre(s, j)`, wrap, and end below 2¹⁵ again.
    #[inline(always)]
    pub(super) fn sum_steps<
        const BITS: u32,
        const STEPS: usize,
        const MR: usize,
        const NR: usize,
        const CENTRED: bool,
    >(
        self,
        acc: &mut [[__m256i; NR]; MR],
        scale: [__m256i; MR],
        centre: impl Fn(usize, usize) -> __m256i,
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> __m256i,
    ) {
        const { assert!(matches!(STEPS, 1 | 2 | 4 | 8)) };
        // SAFETY: the token proves AVX2.
        let mut part = [[unsafe { _mm256_setzero_si256() }; NR]; MR];
        if const { left_to_compiler(MR, NR) } {
            for step in 0..STEPS {
                self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(step, acc, scale, &mut part, &centre, &w, &x);
            }
            return;
        }
        // A loop of so many instructions would not be unrolled.
        self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(0, acc, scale, &mut part, &centre, &w, &x);
        if const { STEPS > 1 } {
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(1, acc, scale, &mut part, &centre, &w, &x);
        }
        if const { STEPS > 2 } {
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(2, acc, scale, &mut part, &centre, &w, &x);
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(3, acc, scale, &mut part, &centre, &w, &x);
        }
        if const { STEPS > 4 } {
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(4, acc, scale, &mut part, &centre, &w, &x);
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(5, acc, scale, &mut part, &centre, &w, &x);
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(6, acc, scale, &mut part, &centre, &w, &x);
            self.sum_step::<BITS, STEPS, MR, NR, CENTRED>(7, acc, scale, &mut part, &centre, &w, &x);
        }
    }

    /// One of the steps; i16 sums go into `acc` whenever one more step could saturate them.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn sum_step<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize, const CENTRED: bool>(
        self,
        step: usize,
        acc: &mut [[__m256i; NR]; MR],
        scale: [__m256i; MR],
        part: &mut [[__m256i; NR]; MR],
        centre: &impl Fn(usize, usize) -> __m256i,
        w: &impl Fn(usize, usize) -> __m256i,
        x: &impl Fn(usize, usize) -> __m256i,
    ) {
        let depth = if CENTRED { 4 } else { steps_in_i16(BITS) };
        let (fresh, full) = (step.is_multiple_of(depth), (step + 1).is_multiple_of(depth) || step + 1 == STEPS);
        // SAFETY: the token proves AVX2.
        unsafe {
            let mut codes = [_mm256_setzero_si256(); MR];
            let mut magnitude = codes;
            for i in 0..MR {
                codes[i] = w(step, i);
                if const { BITS == 8 } {
                    codes[i] = _mm256_xor_si256(codes[i], _mm256_set1_epi8(-128));
                    magnitude[i] = _mm256_abs_epi8(codes[i]);
                }
            }
            for j in 0..NR {
                let xs = x(step, j);
                for i in 0..MR {
                    if const { BITS == 8 } {
                        let product = _mm256_maddubs_epi16(magnitude[i], _mm256_sign_epi8(xs, codes[i]));
                        let sum = self.dot_i16(acc[i][j], product, scale[i]);
                        acc[i][j] = if MR > 1 { in_order(sum) } else { sum };
                    } else if fresh && !CENTRED {
                        part[i][j] = _mm256_maddubs_epi16(codes[i], xs);
                    } else {
                        if fresh {
                            part[i][j] = centre(step, j);
                        }
                        part[i][j] = if const { left_to_compiler(MR, NR) } {
                            _mm256_add_epi16(part[i][j], _mm256_maddubs_epi16(codes[i], xs))
                        } else {
                            add_product(part[i][j], codes[i], xs)
                        };
                    }
                }
            }
            // Behind all products, which leaves more of these under way: a tenth faster for few columns.
            if BITS < 8 && full {
                for i in 0..MR {
                    for j in 0..NR {
                        acc[i][j] = self.dot_i16(acc[i][j], part[i][j], scale[i]);
                    }
                }
                if step + 1 < STEPS {
                    self.set_aside(acc);
                }
            }
        }
    }
}
