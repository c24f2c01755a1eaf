//! AVX-512 with VNNI: sixteen lanes, bytes multiplied by `vpdpbusd`.
//!
//! 64 MACs of 16 rows × 4 codes cost one `vpdpbusd` and, shared among the 2 × 8 tile, an eighth of a load of codes (a quarter
//! in scaled groups, whose columns are summed four after four, for which there are registers) and half a broadcast of x,
//! which are loads alone. What else there is, per 64 MACs, and how much of the dots' peak it leaves:
//!
//! | class | instructions in all | Intel's servers | Zen 4 |
//! |---|--:|--:|--:|
//! | blocks of 32: `vfmadd`, `vmulps`, `vaddps` a block, 3/8 | 2.4 | 73% | 80% |
//! | the same with minima, 5/8 | 2.8 | 62% | 73% |
//! | groups of 32: a `vpdpwssd` each, four for the minima and seven float operations a superblock, 19/64 (and a `vpshufb` a group where sums may not fit an i16) | 2.0 | 77% | 81% |
//! | groups of 16, 6 bits: one a group and four, 20/64 | 2.3 | 76% | 78% |
//! | folded 2-bit codes: with minima eight `vpdpwssd` and seven, 15/64 | 1.65 | 81% | 85% |
//! | folded 3-bit codes, and 8 bits in superblocks: four float operations, 4/64 | 1.65 | 94% | 97% |
//!
//! Intel's servers start two dots a cycle, on ports 0 and 5, where everything but loads meets them. Zen 4 starts one, and in
//! its place any other multiplication, of bytes, i16 or floats; sums, conversions, shuffles and loads go beside (measured:
//! six `vpmaddwd`, `vpdpwssd`, `vpmaddubsw`, `vmulps` or `vfmadd` among twelve dots take six cycles more; twelve `vpaddd`,
//! loads or broadcasts, or six `vaddps`, `vcvtdq2ps` or `vpshufb` none).

use super::{
    Level,
    avx2::Avx2,
    isa::{FLOAT_ORIGIN, Isa, RegisterTile},
    stack::align_stack,
    vectorize_with,
    vnni::{self, Vnni},
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
        pub fma: "fma",
        pub avx512f: "avx512f",
        pub avx512bw: "avx512bw",
        pub avx512dq: "avx512dq",
        pub avx512vl: "avx512vl",
        pub avx512vnni: "avx512vnni",
    }
}

/// `vpdpwssd`, which LLVM would take apart into a multiplication and an addition: two of the port's cycles for one.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_i16(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
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

/// [`Vnni::finished`].
#[inline]
#[target_feature(enable = "avx512f")]
fn finished(mut sum: __m512i) -> __m512i {
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {} */", inout(zmm_reg) sum, options(nostack, preserves_flags)) };
    sum
}

impl Vnni for Avx512Vnni {
    // Eight sums and their scaling keep the ports busy as they are.
    const SUMS_LEFT_TO_COMPILER: usize = 8;

    #[inline(always)]
    fn dot_bytes(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, w, x) }
    }
    #[inline(always)]
    fn finished(self, sum: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { finished(sum) }
    }
    #[inline(always)]
    fn split_sum(self, sum: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512BW.
        unsafe { _mm512_shuffle_epi8(sum, _mm512_set4_epi32(0x0E0D_800C, 0x0A09_8008, 0x0605_8004, 0x0201_8000)) }
    }
}

/// The low halves of all lanes, then the high ones.
#[inline(always)]
fn halves_apart(_: Avx512Vnni, v: __m512i) -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (2 * i % 32 + i / 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: the token proves AVX-512BW; 64 bytes are there.
    unsafe { _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), v) }
}

/// In each quarter, the sums of the four lanes there of each register.
#[inline(always)]
fn sum_quads(_: Avx512Vnni, v: [__m512i; 4]) -> __m512i {
    // SAFETY: the token proves AVX-512F.
    unsafe {
        let two = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low, high) = (two(v[0], v[1]), two(v[2], v[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high))
    }
}

/// The groups of two registers whose halves start at these codes: four words for each quarter, as `vpackssdw` joins these, with
/// the bits `set`.
#[inline(always)]
fn quarters<const GROUP: usize>(_: Avx512Vnni, [a, b]: [[usize; 2]; 2], set: i32) -> __m512i {
    const fn word<const GROUP: usize>(code: usize) -> i32 {
        (code / GROUP) as i32 * 0x0001_0001
    }
    let [a0, a1, a2, a3] =
        [word::<GROUP>(a[0]), word::<GROUP>(a[0] + 16), word::<GROUP>(a[1]), word::<GROUP>(a[1] + 16)];
    let [b0, b1, b2, b3] =
        [word::<GROUP>(b[0]), word::<GROUP>(b[0] + 16), word::<GROUP>(b[1]), word::<GROUP>(b[1] + 16)];
    // SAFETY: the token proves AVX-512F.
    unsafe {
        let words = _mm512_setr_epi32(a0, a0, b0, b0, a1, a1, b1, b1, a2, a2, b2, b2, a3, a3, b3, b3);
        _mm512_or_si512(words, _mm512_set1_epi32(set))
    }
}

impl Isa for Avx512Vnni {
    const LEVEL: Level = Level::Avx512Vnni;
    const LANES: usize = 16;
    const PANELS: usize = 2;
    const RUN_COLUMNS: usize = 8;
    const CENTERS_8BIT: bool = false;
    const CENTERS_6BIT: bool = true;
    const HALF_CENTRES: bool = false;
    const PREFERS_I16_SUMS: bool = true;
    const WHOLE_BYTES: bool = true;
    const SHORT_CHAINS: bool = false;
    const SUM_ORIGIN: i32 = FLOAT_ORIGIN;
    const FOLDS_SCALES: bool = true;
    type Narrow = Avx2;
    type V = __m512i;
    type F = __m512;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        vectorize_with!(self, f)
    }
    #[inline(always)]
    fn outlined<R>(self, f: impl FnOnce() -> R) -> R {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn call<R>(f: impl FnOnce() -> R) -> R {
            align_stack::<__m512i>();
            f()
        }
        // SAFETY: the token proves these features.
        unsafe { call(f) }
    }
    #[inline(always)]
    fn narrow(self) -> Avx2 {
        // SAFETY: this token's list of features holds all of AVX2's.
        unsafe { Avx2::new_unchecked() }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 64 bytes at `p`.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_half_twice(self, p: *const u8, count: u32) -> __m512i {
        // SAFETY: the caller vouches for 32 bytes at `p`.
        unsafe {
            let counts = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi32(count as i32));
            _mm512_srlv_epi32(_mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast())), counts)
        }
    }
    #[inline(always)]
    unsafe fn load_sixteens(self, p: impl Fn(usize) -> *const u8) -> __m512i {
        // SAFETY: the caller vouches for 16 bytes at each place.
        unsafe {
            let lower = _mm256_loadu2_m128i(p(1).cast(), p(0).cast());
            let upper = _mm256_loadu2_m128i(p(3).cast(), p(2).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper)
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, v: __m512i) {
        // SAFETY: the caller vouches for 64 bytes at `p`.
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_past_caches(self, p: *mut u8, v: __m512i) {
        // SAFETY: the caller vouches for 64 bytes at `p`, and for its address.
        unsafe { _mm512_stream_si512(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_halves(self, low: *mut u8, high: *mut u8, v: __m512i) {
        let halves = halves_apart(self, v);
        // SAFETY: the caller vouches for 32 bytes at each place.
        unsafe {
            _mm256_storeu_si256(low.cast(), _mm512_castsi512_si256(halves));
            _mm256_storeu_si256(high.cast(), _mm512_extracti64x4_epi64::<1>(halves));
        }
    }
    #[inline(always)]
    unsafe fn store_four(self, p: *mut u8, v: __m512i) {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_castsi512_si128(v)) }
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
    unsafe fn broadcast(self, p: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 4 bytes at `p`.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_sixteens(self, codes: [__m512i; 2], bits: impl Fn(usize) -> *const u8) -> [__m512i; 2] {
        // SAFETY: the caller vouches for 4 bytes at each place; the token proves BMI2 and AVX-512 BW.
        unsafe {
            // In general registers, whose ports are idle here.
            let pair = |i: usize| {
                let [first, second] = [i, i + 1].map(|i| u64::from(bits(i).cast::<u32>().read_unaligned()));
                first | second << 32
            };
            let (first, second) = (pair(0), pair(2));
            let sixteens =
                |halves: u64| _mm512_maskz_set1_epi8(_pext_u64(first, halves) | _pext_u64(second, halves) << 32, 16);
            [
                _mm512_or_si512(codes[0], sixteens(0x0000_FFFF_0000_FFFF)),
                _mm512_or_si512(codes[1], sixteens(0xFFFF_0000_FFFF_0000)),
            ]
        }
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
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_max_epi32(a, b) }
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
    fn mul_add_f32(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn widen_f16_halves(self, a: __m512i) -> [__m512; 2] {
        let halves = halves_apart(self, a);
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let (low, high) = (_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves));
            [_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)]
        }
    }
    #[inline(always)]
    fn bits_f32(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    fn float_bits(self, a: __m512) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_castps_si512(a) }
    }
    #[inline(always)]
    fn pack_bytes(self, v: [__m512i; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512BW.
        unsafe {
            let [a, b, c, d] = v.map(|v| _mm512_and_si512(v, _mm512_set1_epi32(0xFF)));
            // Packing interleaves the 128-bit quarters; the permutation puts their fours back in order.
            let bytes = _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, bytes)
        }
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn dot_i16(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { dot_i16(acc, a, b) }
    }
    #[inline(always)]
    fn split_scales(self, pair: __m512i) -> [__m512i; 2] {
        // The scale and a zero, which `vpdpwssd` multiplies by the sum's low half and by its sign.
        [self.and(pair, self.splat(0xFFFF)), self.shr(pair, 16)]
    }
    #[inline(always)]
    fn abs_i8(self, a: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512BW.
        unsafe { _mm512_abs_epi8(a) }
    }
    #[inline(always)]
    fn scale_origin(self, d: __m512) -> __m512 {
        // Exact: an f16 has 11 bits, the origin 2.
        self.mul_f32(d, self.splat_f32(-f32::from_bits(FLOAT_ORIGIN as u32)))
    }
    #[inline(always)]
    fn scale_sum(self, sum: __m512i, d: __m512, origin: __m512) -> __m512 {
        // The bits of `sum` are a float above the origin; what is added takes the origin's part away again, so that the one
        // rounding is that of the product.
        self.mul_add_f32(self.bits_f32(sum), d, origin)
    }
    #[inline(always)]
    fn sub_i16(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512BW.
        unsafe { _mm512_sub_epi16(a, b) }
    }
    #[inline(always)]
    fn mul_i16(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512BW.
        unsafe { _mm512_mullo_epi16(a, b) }
    }

    #[inline(always)]
    fn dot<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        acc: &mut [[__m512i; NR]; MR],
        w: impl Fn(usize, usize) -> __m512i,
        x: impl Fn(usize, usize) -> __m512i,
    ) {
        if const { MR * NR > 8 } {
            vnni::add_steps::<Self, STEPS, MR, NR, 0, false>(self, acc, &w, &x);
        } else {
            vnni::add_steps_twice::<Self, STEPS, MR, NR>(self, acc, &w, &x);
        }
    }

    #[inline(always)]
    fn dot_scaled<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize, const FIT: bool>(
        self,
        acc: &mut [[__m512i; NR]; MR],
        scale: [__m512i; MR],
        centre: impl Fn(usize, usize) -> __m512i,
        w: impl Fn(usize, usize) -> __m512i,
        x: impl Fn(usize, usize) -> __m512i,
    ) {
        vnni::dot_scaled::<Self, BITS, STEPS, MR, NR, FIT>(self, acc, scale, &centre, &w, &x);
    }

    #[inline(always)]
    fn dot_pair_scaled<const GROUP: usize>(
        self,
        sum: &mut [[__m512i; 1]; 1],
        (scales, bias): (&[u8; 16], i16),
        halves: [[usize; 2]; 2],
        w: [__m512i; 2],
        x: [__m512i; 2],
    ) {
        // SAFETY: the token proves AVX-512BW and VNNI.
        unsafe {
            let zero = _mm512_setzero_si512();
            // Sums of four products of 6-bit codes fit an i16: two registers are scaled at once.
            let sums = [_mm512_dpbusd_epi32(zero, w[0], x[0]), _mm512_dpbusd_epi32(zero, w[1], x[1])];
            let sums = _mm512_packs_epi32(sums[0], sums[1]);
            let bytes = _mm_loadu_si128(scales.as_ptr().cast());
            let scales = if bias == 0 {
                // A byte number of 128 gives zero.
                let order = quarters::<GROUP>(self, halves, 0x8000_8000u32 as i32);
                _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), order)
            } else {
                let words = _mm256_sub_epi16(_mm256_cvtepu8_epi16(bytes), _mm256_set1_epi16(bias));
                _mm512_permutexvar_epi16(quarters::<GROUP>(self, halves, 0), _mm512_castsi256_si512(words))
            };
            sum[0][0] = _mm512_dpwssd_epi32(sum[0][0], sums, scales);
        }
    }
    #[inline(always)]
    unsafe fn dot_sums(self, a: &[u8; 16], bias: i16, b: *const i16, count: usize) -> __m256i {
        // SAFETY: the caller's promise is the same.
        unsafe { self.narrow().dot_sums(a, bias, b, count) }
    }
    #[inline(always)]
    fn spread_scales<const GROUP: usize>(self, scales: &[u8; 16], bias: i16, halves: [usize; 2]) -> __m512i {
        let [first, second] = halves;
        let (a, b) = ((first / GROUP) as i32, ((first + 16) / GROUP) as i32);
        let (c, d) = ((second / GROUP) as i32, ((second + 16) / GROUP) as i32);
        // SAFETY: the token proves AVX-512BW.
        unsafe {
            let order = |a, b, c, d| _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a);
            let bytes = _mm_loadu_si128(scales.as_ptr().cast());
            if bias == 0 {
                // A byte number of 128 gives zero.
                let order = _mm512_or_si512(order(a, b, c, d), _mm512_set1_epi32(0x8080_8000u32 as i32));
                _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), order)
            } else {
                let words = _mm256_sub_epi16(_mm256_cvtepu8_epi16(bytes), _mm256_set1_epi16(bias));
                _mm512_maskz_permutexvar_epi16(0x5555_5555, order(a, b, c, d), _mm512_castsi256_si512(words))
            }
        }
    }
    #[inline(always)]
    fn fold_lanes(self, v: __m512i) -> __m256i {
        // SAFETY: the token proves AVX-512F.
        unsafe { self.narrow().add(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)) }
    }
    #[inline(always)]
    fn sum_fours(self, v: [__m512i; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, sum_quads(self, v))
        }
    }
    #[inline(always)]
    fn sum_eights(self, v: [__m512i; 8]) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let [a, b, c, d, e, f, g, h] = v;
            let (low, high) = (sum_quads(self, [a, b, c, d]), sum_quads(self, [e, f, g, h]));
            let (a, b) = (_mm512_shuffle_i32x4::<0x88>(low, high), _mm512_shuffle_i32x4::<0xDD>(low, high));
            let order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
            _mm512_permutexvar_epi32(order, _mm512_add_epi32(a, b))
        }
    }

    #[inline(always)]
    fn transpose_fours(self, v: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: the token proves AVX-512 F.
        unsafe {
            let (low, high) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
            let (next_low, next_high) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
            [
                _mm512_unpacklo_epi64(low, next_low),
                _mm512_unpackhi_epi64(low, next_low),
                _mm512_unpacklo_epi64(high, next_high),
                _mm512_unpackhi_epi64(high, next_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn register_tile<K: RegisterTile>(self, width: usize, kernel: &mut K) {
        // SAFETY: `W` is the width, and tiles end with the group; the rest is the caller's promise.
        unsafe {
            match width {
                8 => kernel.run::<Self, 2, 8, 8>(self, 0),
                4 => kernel.run::<Self, 2, 4, 4>(self, 0),
                2 => kernel.run::<Self, 2, 2, 2>(self, 0),
                _ => kernel.run::<Self, 2, 1, 1>(self, 0),
            }
        }
    }

    #[inline(always)]
    unsafe fn column_tile<K: RegisterTile>(self, (_, width): (usize, usize), kernel: &mut K) {
        // SAFETY: `W` is the width, and tiles end with the group; the rest is the caller's promise.
        unsafe {
            match width {
                8 => kernel.run::<Self, 1, 8, 8>(self, 0),
                4 => kernel.run::<Self, 1, 4, 4>(self, 0),
                2 => kernel.run::<Self, 1, 2, 2>(self, 0),
                _ => kernel.run::<Self, 1, 1, 1>(self, 0),
            }
        }
    }
}
