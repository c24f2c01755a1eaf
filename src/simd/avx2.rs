//! AVX2 with F16C and FMA: eight lanes, bytes multiplied by `vpmaddubsw`, or by `vpdpbusd` where there is AVX-VNNI.
//!
//! `vpmaddubsw` adds two u8 × i8 products into an i16 that saturates, so codes of b bits may be summed in i16 only while
//! 2·(2ᵇ − 1)·127 per step stays below 2¹⁵: 8 steps of 4-bit codes, 4 of 5 bits, 2 of 6 bits. 8-bit codes are centred
//! (`code − 128`) and multiplied as magnitude × signed activation.
//!
//! µops for 64 MACs (8 rows × 8 codes) in registers: `vpmaddubsw` 2, `vpaddw` 1.75, and for a group of 32 a quarter each of
//! `vpmaddwd` and `vpaddd` to scale it: 4.25 with 4 bits; twice as much for scales with 5 bits or groups of 16: 4.5; with 6
//! bits, centred, 5; 8 bits 9 (`vpsignb`, `vpmaddubsw`, `vpmaddwd` and `vpaddd` for each 32, `vpxor` and `vpabsb` for four
//! columns). Zen 3 starts 4 of them a cycle, 2 if they multiply, shift or shuffle, 3.2 where a sum follows every product (each
//! measured alone): 50 MACs a cycle for products and sums alone. Of that rate, the tile of 2 × 4 in assembly, loads and
//! groups' scales included, reaches 96% without scales, 83% with integer scales of groups of 32, 77% of 16, 68% with a float
//! scale for each 32 (4 bits, from L1 or L2), and 39% with 8 bits; the compiler's loops here come within a tenth of it.
//!
//! With AVX-VNNI 64 MACs are two `vpdpbusd`, whatever the codes; scales, minima and folding are those of AVX-512 VNNI. Golden Cove
//! starts two a cycle, on ports 0 and 1, as it does of `vpdpwssd` and of float multiplications, and sums, shuffles and loads go
//! beside. A dot waits five cycles for the one before it, and eight sums are all that sixteen registers hold: in assembly the
//! tile of 2 × 4 reaches 76% of the dots' rate in chains of 64, 83% in chains of eight that are added to others
//! ([`Isa::SHORT_CHAINS`]), 76% with integer scales of groups of 32, 68% of 16, 64% with a float scale for each 32 (2 × 6: 89,
//! 83, 78, 71 and 67%, of columns that no group of eight divides into).

mod products;
mod spread;
mod vnni;

use super::{
    Level, cpu,
    isa::{FLOAT_ORIGIN, Isa, RegisterTile, dot_registers_scaled},
    stack::align_stack,
    vectorize_with,
};
use core::arch::x86_64::*;
use spread::{SPLIT, SPREAD_ONE, SPREAD_TWO, spread_by};

pulp::simd_type! {
    /// The proof that this CPU has AVX2, F16C and FMA.
    #[allow(missing_docs)]
    struct Features {
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
        pub fma: "fma",
    }
}

/// The proof that this CPU has AVX2, F16C and FMA, and with `VNNI` also AVX-VNNI, whose `vpdpbusd` then multiplies bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ymm<const VNNI: bool>(Features);

/// AVX2 alone.
pub type Avx2 = Ymm<false>;
/// AVX2 with AVX-VNNI: most of Intel's CPUs without AVX-512.
pub type AvxVnni = Ymm<true>;

impl<const VNNI: bool> Ymm<VNNI> {
    /// The proof, if the CPU has the instructions.
    #[inline]
    pub fn try_new() -> Option<Self> {
        let features = Features::try_new()?;
        (!VNNI || cpu::has_avx_vnni()).then_some(Ymm(features))
    }

    /// The proof.
    ///
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    pub unsafe fn new_unchecked() -> Self {
        // SAFETY: the caller's promise is the same.
        Ymm(unsafe { Features::new_unchecked() })
    }

    /// The same proof. Not an option: both of its cases would be compiled, for every kernel.
    ///
    /// # Safety
    /// It is one of AVX-VNNI.
    #[inline(always)]
    unsafe fn as_vnni(self) -> AvxVnni {
        Ymm(self.0)
    }

    /// The same proof, less that of AVX-VNNI.
    #[inline(always)]
    fn without_vnni(self) -> Avx2 {
        Ymm(self.0)
    }
}

/// The low halves of all lanes, and the high ones.
#[inline(always)]
fn halves_apart<const VNNI: bool>(_: Ymm<VNNI>, v: __m256i) -> [__m128i; 2] {
    // SAFETY: the token proves AVX2.
    unsafe {
        let order = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0F0E_0B0A_0706_0302, 0x0D0C_0908_0504_0100));
        let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(v, order));
        [_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)]
    }
}

/// In each half, the sums of the four lanes there of each register.
#[inline(always)]
fn sum_quads<const VNNI: bool>(_: Ymm<VNNI>, v: [__m256i; 4]) -> __m256i {
    // SAFETY: the token proves AVX2.
    unsafe {
        let two = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (low, high) = (two(v[0], v[1]), two(v[2], v[3]));
        _mm256_add_epi32(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high))
    }
}

impl<const VNNI: bool> Isa for Ymm<VNNI> {
    const LEVEL: Level = if VNNI { Level::AvxVnni } else { Level::Avx2 };
    const LANES: usize = 8;
    const PANELS: usize = 1;
    const RUN_COLUMNS: usize = 4;
    const CENTERS_8BIT: bool = !VNNI;
    const CENTERS_6BIT: bool = true;
    const HALF_CENTRES: bool = !VNNI;
    const PREFERS_I16_SUMS: bool = VNNI;
    const WHOLE_BYTES: bool = VNNI;
    const SHORT_CHAINS: bool = VNNI;
    const SUM_ORIGIN: i32 = if VNNI { FLOAT_ORIGIN } else { 0 };
    const FOLDS_SCALES: bool = VNNI;
    type Narrow = Self;
    type V = __m256i;
    type F = __m256;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        vectorize_with!(self.0, f)
    }
    #[inline(always)]
    fn outlined<R>(self, f: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn call<R>(f: impl FnOnce() -> R) -> R {
            align_stack::<__m256i>();
            f()
        }
        // SAFETY: the token proves these features.
        unsafe { call(f) }
    }
    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m256i {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_half_twice(self, p: *const u8, count: u32) -> __m256i {
        let count = count as i32;
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe {
            let counts = _mm256_setr_epi32(0, 0, 0, 0, count, count, count, count);
            _mm256_srlv_epi32(_mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast())), counts)
        }
    }
    #[inline(always)]
    unsafe fn load_sixteens(self, p: impl Fn(usize) -> *const u8) -> __m256i {
        // SAFETY: the caller vouches for 16 bytes at each place.
        unsafe { _mm256_loadu2_m128i(p(1).cast(), p(0).cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, v: __m256i) {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_past_caches(self, p: *mut u8, v: __m256i) {
        // SAFETY: the caller vouches for 32 bytes at `p`, and for its address.
        unsafe { _mm256_stream_si256(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_halves(self, low: *mut u8, high: *mut u8, v: __m256i) {
        let halves = halves_apart(self, v);
        // SAFETY: the caller vouches for 16 bytes at each place.
        unsafe {
            _mm_storeu_si128(low.cast(), halves[0]);
            _mm_storeu_si128(high.cast(), halves[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_four(self, p: *mut u8, v: __m256i) {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(v)) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, p: *const u8) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, p: *const u8) -> __m256i {
        // SAFETY: the caller vouches for 4 bytes at `p`.
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_sixteens(self, codes: [__m256i; 2], bits: impl Fn(usize) -> *const u8) -> [__m256i; 2] {
        // SAFETY: the caller vouches for 4 bytes at each place; the token proves AVX2.
        unsafe {
            let of = |i: usize| _mm_cvtsi32_si128(bits(i).cast::<i32>().read_unaligned());
            let bits = _mm256_set_m128i(of(1), of(0));
            let one_each = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
            let add = |codes, first: i64| {
                let order = _mm_set_epi64x(first + 0x0101_0101_0101_0101, first);
                let bytes = _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(order));
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, one_each), one_each);
                _mm256_or_si256(codes, _mm256_and_si256(set, _mm256_set1_epi8(16)))
            };
            [add(codes[0], 0), add(codes[1], 0x0202_0202_0202_0202)]
        }
    }
    #[inline(always)]
    fn splat(self, value: i32) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_epi32(value) }
    }
    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_xor_si256(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_max_epi32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn shl(self, a: __m256i, count: u32) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    fn shr(self, a: __m256i, count: u32) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> __m256 {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes at `p`; the token proves F16C.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn store_f32(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    fn splat_f32(self, value: f32) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    fn add_f32(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub_f32(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul_f32(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add_f32(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn widen_f16_halves(self, a: __m256i) -> [__m256; 2] {
        let [low, high] = halves_apart(self, a);
        // SAFETY: the token proves F16C.
        unsafe { [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)] }
    }
    #[inline(always)]
    fn bits_f32(self, a: __m256i) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    fn float_bits(self, a: __m256) -> __m256i {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_castps_si256(a) }
    }
    #[inline(always)]
    fn pack_bytes(self, v: [__m256i; 4]) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe {
            let [a, b, c, d] = v.map(|v| _mm256_and_si256(v, _mm256_set1_epi32(0xFF)));
            // Packing interleaves the 128-bit halves; the permutation puts their fours back in order.
            let bytes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
            _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
        }
    }
    #[inline(always)]
    fn to_f32(self, a: __m256i) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn dot_i16(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        if VNNI {
            // SAFETY: this token is one of AVX-VNNI.
            let isa = unsafe { self.as_vnni() };
            return vnni::dot_i16(isa, acc, a, b);
        }
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
    }
    #[inline(always)]
    fn split_scales(self, pair: __m256i) -> [__m256i; 2] {
        if VNNI {
            return [self.and(pair, self.splat(0xFFFF)), self.shr(pair, 16)];
        }
        // Both halves of the lane, so that `vpmaddwd` adds and scales the two i16 sums in one.
        [spread_by(self.without_vnni(), pair, &SPLIT[0]), spread_by(self.without_vnni(), pair, &SPLIT[1])]
    }
    #[inline(always)]
    fn abs_i8(self, a: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_abs_epi8(a) }
    }
    #[inline(always)]
    fn scale_origin(self, d: __m256) -> __m256 {
        if VNNI {
            // Exact: an f16 has 11 bits, the origin 2.
            return self.mul_f32(d, self.splat_f32(-f32::from_bits(FLOAT_ORIGIN as u32)));
        }
        // A finite d minus itself is 0, any other is NaN.
        self.add_f32(d, self.sub_f32(d, d))
    }
    #[inline(always)]
    fn scale_sum(self, sum: __m256i, d: __m256, origin: __m256) -> __m256 {
        if VNNI {
            return self.mul_add_f32(self.bits_f32(sum), d, origin);
        }
        self.mul_f32(self.to_f32(sum), origin)
    }
    #[inline(always)]
    fn sub_i16(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_sub_epi16(a, b) }
    }
    #[inline(always)]
    fn mul_i16(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_mullo_epi16(a, b) }
    }

    #[inline(always)]
    fn set_aside<T, const MR: usize, const NR: usize>(self, sums: &mut [[T; NR]; MR]) {
        if const { MR * NR >= 8 } {
            // SAFETY: no instruction at all; only that it may read and write the sums.
            unsafe { core::arch::asm!("/* {} */", in(reg) sums, options(nostack, preserves_flags)) };
        }
    }

    #[inline(always)]
    fn dot<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        acc: &mut [[__m256i; NR]; MR],
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> __m256i,
    ) {
        if VNNI {
            // SAFETY: this token is one of AVX-VNNI.
            let isa = unsafe { self.as_vnni() };
            return vnni::dot::<STEPS, MR, NR>(isa, acc, &w, &x);
        }
        self.without_vnni().sum_steps::<BITS, STEPS, MR, NR, false>(
            acc,
            [self.splat(0x0001_0001); MR],
            #[inline(always)]
            |_, _| self.splat(0),
            w,
            x,
        );
    }

    #[inline(always)]
    fn dot_scaled<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize, const FIT: bool>(
        self,
        acc: &mut [[__m256i; NR]; MR],
        scale: [__m256i; MR],
        centre: impl Fn(usize, usize) -> __m256i,
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> __m256i,
    ) {
        if VNNI {
            // SAFETY: this token is one of AVX-VNNI.
            let isa = unsafe { self.as_vnni() };
            super::vnni::dot_scaled::<AvxVnni, BITS, STEPS, MR, NR, FIT>(isa, acc, scale, &centre, &w, &x);
        } else if const { BITS == 6 } {
            self.without_vnni().sum_steps::<BITS, STEPS, MR, NR, true>(acc, scale, centre, w, x);
        } else {
            self.without_vnni().sum_steps::<BITS, STEPS, MR, NR, false>(acc, scale, centre, w, x);
        }
    }

    #[inline(always)]
    fn dot_pair_scaled<const GROUP: usize>(
        self,
        sum: &mut [[__m256i; 1]; 1],
        scales: (&[u8; 16], i16),
        halves: [[usize; 2]; 2],
        w: [__m256i; 2],
        x: [__m256i; 2],
    ) {
        if VNNI {
            // SAFETY: this token is one of AVX-VNNI.
            let isa = unsafe { self.as_vnni() };
            vnni::dot_pair_scaled::<GROUP>(isa, sum, scales, halves[0][0], w, x);
        } else {
            dot_registers_scaled::<Self, GROUP>(self, sum, scales, halves, w, x);
        }
    }
    #[inline(always)]
    unsafe fn dot_sums(self, a: &[u8; 16], bias: i16, b: *const i16, count: usize) -> __m256i {
        // SAFETY: the caller vouches for `count` elements of b, `a` has 16; the token proves AVX2.
        unsafe {
            let b = if count == 16 {
                _mm256_loadu_si256(b.cast())
            } else {
                _mm256_zextsi128_si256(_mm_loadu_si128(b.cast()))
            };
            let a = _mm256_cvtepu8_epi16(_mm_loadu_si128(a.as_ptr().cast()));
            _mm256_madd_epi16(_mm256_sub_epi16(a, _mm256_set1_epi16(bias)), b)
        }
    }
    #[inline(always)]
    fn spread_scales<const GROUP: usize>(self, scales: &[u8; 16], bias: i16, [first, _]: [usize; 2]) -> __m256i {
        let index = first / (Self::LANES * 4);
        // SAFETY: the token proves AVX2; eight scales lie in each half.
        unsafe {
            let first = if GROUP == 16 { index / 4 * 8 } else { 0 };
            let eight = _mm_cvtepu8_epi16(_mm_loadl_epi64(scales.as_ptr().add(first).cast()));
            let eight = _mm256_broadcastsi128_si256(_mm_sub_epi16(eight, _mm_set1_epi16(bias)));
            let pattern = if GROUP == 16 { &SPREAD_TWO[index % 4] } else { &SPREAD_ONE[index] };
            let spread = spread_by(self.without_vnni(), eight, pattern);
            if VNNI { self.and(spread, self.splat(0xFFFF)) } else { spread }
        }
    }
    #[inline(always)]
    fn fold_lanes(self, v: __m256i) -> __m256i {
        v
    }
    #[inline(always)]
    fn sum_fours(self, v: [__m256i; 4]) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_permutevar8x32_epi32(sum_quads(self, v), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)) }
    }
    #[inline(always)]
    fn sum_eights(self, v: [__m256i; 8]) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe {
            let [a, b, c, d, e, f, g, h] = v;
            let (low, high) = (sum_quads(self, [a, b, c, d]), sum_quads(self, [e, f, g, h]));
            let (a, b) = (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high));
            _mm256_add_epi32(a, b)
        }
    }

    #[inline(always)]
    fn transpose_fours(self, v: [__m256i; 4]) -> [__m256i; 4] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let (low, high) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
            let (next_low, next_high) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
            [
                _mm256_unpacklo_epi64(low, next_low),
                _mm256_unpackhi_epi64(low, next_low),
                _mm256_unpacklo_epi64(high, next_high),
                _mm256_unpackhi_epi64(high, next_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn register_tile<K: RegisterTile>(self, width: usize, kernel: &mut K) {
        // SAFETY: `W` is the width, and tiles end with the group; the rest is the caller's promise.
        unsafe {
            match width {
                8 => {
                    // Not `for_each`, whose closure may end up outside of the function that enables the instructions.
                    for first in (0..8).step_by(4) {
                        kernel.run::<Self, 2, 4, 8>(self, first);
                    }
                }
                4 => kernel.run::<Self, 2, 4, 4>(self, 0),
                2 => kernel.run::<Self, 2, 2, 2>(self, 0),
                _ => kernel.run::<Self, 2, 1, 1>(self, 0),
            }
        }
    }

    #[inline(always)]
    unsafe fn column_tile<K: RegisterTile>(self, (columns, width): (usize, usize), kernel: &mut K) {
        // SAFETY: `W` is the width, and tiles end with the group; the rest is the caller's promise.
        unsafe {
            match width {
                8 => {
                    kernel.run::<Self, 1, 4, 8>(self, 0);
                    match columns {
                        5 => kernel.run::<Self, 1, 1, 8>(self, 4),
                        6 => kernel.run::<Self, 1, 2, 8>(self, 4),
                        _ => kernel.run::<Self, 1, 4, 8>(self, 4),
                    }
                }
                4 => kernel.run::<Self, 1, 4, 4>(self, 0),
                2 => kernel.run::<Self, 1, 2, 2>(self, 0),
                _ => kernel.run::<Self, 1, 1, 1>(self, 0),
            }
        }
    }
}
