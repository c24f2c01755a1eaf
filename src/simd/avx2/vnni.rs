//! What AVX-VNNI multiplies.
//!
//! In assembly: intrinsics would ask for a feature that the functions around, which pulp compiles for AVX2, do not enable.

use super::{
    super::{
        isa::Isa,
        vnni::{Vnni, add_steps, add_steps_twice},
    },
    AvxVnni,
    spread::{PAIRS_OF_16, PAIRS_OF_32, spread_by},
};
use core::arch::{asm, x86_64::*};

/// `vpdpbusd`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_bytes(mut acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: registers only; the caller vouches for AVX-VNNI.
    unsafe {
        asm!(
            "{{vex}} vpdpbusd {acc}, {w}, {x}",
            acc = inout(ymm_reg) acc,
            w = in(ymm_reg) w,
            x = in(ymm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// `vpdpwssd`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_words(mut acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: registers only; the caller vouches for AVX-VNNI.
    unsafe {
        asm!(
            "{{vex}} vpdpwssd {acc}, {a}, {b}",
            acc = inout(ymm_reg) acc,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// [`Vnni::finished`].
#[inline]
#[target_feature(enable = "avx2")]
fn finished(mut sum: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {} */", inout(ymm_reg) sum, options(nostack, preserves_flags)) };
    sum
}

/// [`Isa::dot_i16`].
#[inline(always)]
pub fn dot_i16(_: AvxVnni, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the token proves AVX-VNNI.
    unsafe { dot_words(acc, a, b) }
}

/// [`Isa::dot`].
#[inline(always)]
pub fn dot<const STEPS: usize, const MR: usize, const NR: usize>(
    isa: AvxVnni,
    acc: &mut [[__m256i; NR]; MR],
    w: &impl Fn(usize, usize) -> __m256i,
    x: &impl Fn(usize, usize) -> __m256i,
) {
    if const { MR * NR > 4 } {
        add_steps::<AvxVnni, STEPS, MR, NR, 0, true>(isa, acc, w, x);
    } else {
        add_steps_twice::<AvxVnni, STEPS, MR, NR>(isa, acc, w, x);
    }
}

/// [`Isa::dot_pair_scaled`], of two registers one after the other, the first of which starts at code `first`.
#[inline(always)]
pub fn dot_pair_scaled<const GROUP: usize>(
    isa: AvxVnni,
    sum: &mut [[__m256i; 1]; 1],
    (scales, bias): (&[u8; 16], i16),
    first: usize,
    w: [__m256i; 2],
    x: [__m256i; 2],
) {
    let patterns = if GROUP == 16 { &PAIRS_OF_16 } else { &PAIRS_OF_32 };
    // SAFETY: the token proves AVX2.
    unsafe {
        let zero = _mm256_setzero_si256();
        // Sums of four products of 6-bit codes fit an i16: two registers are scaled at once.
        let sums = [isa.dot_bytes(zero, w[0], x[0]), isa.dot_bytes(zero, w[1], x[1])];
        let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(scales.as_ptr().cast()));
        let words = spread_by(isa.without_vnni(), bytes, &patterns[first / 64 % 4]);
        let scales = _mm256_sub_epi16(words, _mm256_set1_epi16(bias));
        sum[0][0] = isa.dot_i16(sum[0][0], _mm256_packs_epi32(sums[0], sums[1]), scales);
    }
}

impl Vnni for AvxVnni {
    const SUMS_LEFT_TO_COMPILER: usize = 4;

    #[inline(always)]
    fn dot_bytes(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves AVX-VNNI.
        unsafe { dot_bytes(acc, w, x) }
    }
    #[inline(always)]
    fn finished(self, sum: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { finished(sum) }
    }
    #[inline(always)]
    fn split_sum(self, sum: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe {
            let order = _mm_setr_epi32(0x0201_8000, 0x0605_8004, 0x0A09_8008, 0x0E0D_800C);
            _mm256_shuffle_epi8(sum, _mm256_broadcastsi128_si256(order))
        }
    }
}
