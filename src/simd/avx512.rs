//! AVX-512 with VNNI: sixteen lanes, bytes multiplied by `vpdpbusd`.
//!
//! 64 MACs of 16 rows × 4 codes cost one `vpdpbusd` (two 256-bit multiply pipes, one 512-bit result a cycle, on Zen 4;
//! port 0 on Intel) and, shared among the registers of rows or columns, a load and a broadcast.

use super::{
    Level,
    avx2::{self, Avx2},
    isa::{Isa, RegisterTile},
    vectorize_with,
};
use core::arch::x86_64::*;

pulp::simd_type! {
    /// The proof that this CPU has AVX-512 F, BW, DQ, VL and VNNI.
    #[allow(missing_docs)]
    pub struct Avx512Vnni {
        pub sse: "sse",
        pub sse2: "sse2",
        pub sse3: "sse3",
        pub ssse3: "ssse3",
        pub sse4_1: "sse4.1",
        pub sse4_2: "sse4.2",
        pub popcnt: "popcnt",
        pub avx: "avx",
        pub avx2: "avx2",
        pub bmi1: "bmi1",
        pub bmi2: "bmi2",
        pub lzcnt: "lzcnt",
        pub f16c: "f16c",
        pub avx512f: "avx512f",
        pub avx512bw: "avx512bw",
        pub avx512dq: "avx512dq",
        pub avx512vl: "avx512vl",
        pub avx512vnni: "avx512vnni",
    }
}

impl Isa for Avx512Vnni {
    const LEVEL: Level = Level::Avx512Vnni;
    const LANES: usize = 16;
    const PANELS: usize = 2;
    const CENTERS_8BIT: bool = false;
    const BIAS_AS_INIT: bool = true;
    type V = __m512i;
    type F = __m512;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        vectorize_with!(self, f)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 64 bytes at `p`.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, v: __m512i) {
        // SAFETY: the caller vouches for 64 bytes at `p`.
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, p: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 4 bytes at `p`.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn splat(self, value: i32) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn shl(self, a: __m512i, count: u32) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    fn shr(self, a: __m512i, count: u32) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> __m512 {
        // SAFETY: the caller vouches for 64 bytes at `p`.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn store_f32(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller vouches for 64 bytes at `p`.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    fn splat_f32(self, value: f32) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn add_f32(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub_f32(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul_f32(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn widen_f16(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }
    #[inline(always)]
    fn bits_f32(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn dot_i16(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { _mm512_dpwssd_epi32(acc, a, b) }
    }
    #[inline(always)]
    fn prepare_scale(self, scale: __m512i) -> __m512i {
        scale
    }

    #[inline(always)]
    fn dot<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        init: [__m512i; NR],
        w: impl Fn(usize, usize) -> __m512i,
        x: impl Fn(usize, usize) -> __m512i,
    ) -> [[__m512i; NR]; MR] {
        let mut sum = [init; MR];
        for step in 0..STEPS {
            let codes: [__m512i; MR] = core::array::from_fn(
                #[inline(always)]
                |i| w(step, i),
            );
            for j in 0..NR {
                let xs = x(step, j);
                for i in 0..MR {
                    // SAFETY: the token proves AVX-512 VNNI.
                    sum[i][j] = unsafe { _mm512_dpbusd_epi32(sum[i][j], codes[i], xs) };
                }
            }
        }
        sum
    }

    #[inline(always)]
    fn dot_scaled<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        acc: &mut [[__m512i; NR]; MR],
        init: [__m512i; NR],
        scale: [__m512i; MR],
        w: impl Fn(usize, usize) -> __m512i,
        x: impl Fn(usize, usize) -> __m512i,
    ) {
        let sum = self.dot::<BITS, STEPS, MR, NR>(init, w, x);
        for i in 0..MR {
            for j in 0..NR {
                acc[i][j] = self.add(acc[i][j], self.mul(sum[i][j], scale[i]));
            }
        }
    }

    #[inline(always)]
    unsafe fn interleave_rows(self, rows: *const u8, stride_bytes: usize, out: *mut u8) {
        // SAFETY: AVX-512 implies AVX2 and F16C by this token's own list; the caller vouches for the memory.
        unsafe { avx2::interleave_rows(Avx2::new_unchecked(), rows, stride_bytes, out) }
    }

    #[inline(always)]
    unsafe fn register_tile<K: RegisterTile>(self, columns: usize, kernel: &mut K) -> usize {
        // SAFETY: NR ≤ columns, and 2 registers of 16 lanes are two panels.
        unsafe {
            match columns {
                6.. => {
                    kernel.run::<Self, 2, 6>(self);
                    6
                }
                3..6 => {
                    kernel.run::<Self, 2, 3>(self);
                    3
                }
                _ => {
                    kernel.run::<Self, 2, 1>(self);
                    1
                }
            }
        }
    }
}
