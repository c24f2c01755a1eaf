//! Plain Rust, four lanes at a time: what every machine can run, and the oracle for the other levels.

use super::array_of;
use super::{
    Level,
    isa::{Isa, RegisterTile},
};

/// The portable instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

const LANES: usize = 4;
type Lanes = [i32; LANES];

/// The four byte products of a lane: unsigned codes times signed activations.
#[inline(always)]
fn dot_bytes(w: i32, x: i32) -> i32 {
    let (w, x) = (w.to_le_bytes(), x.to_le_bytes());
    (0..4).map(|byte| w[byte] as i32 * (x[byte] as i8) as i32).sum()
}

/// `f` of the i16 halves.
#[inline(always)]
fn halves(a: i32, b: i32, f: impl Fn(i16, i16) -> i16) -> i32 {
    let half = |shift: u32| (f((a >> shift) as i16, (b >> shift) as i16) as u16 as i32) << shift;
    half(0) | half(16)
}

/// `a · b + c`, rounded once; `core` has no such operation.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    // 48 bits of a product are exact in an f64. The sum is rounded to odd, so that the rounding to f32, of less than half as
    // many bits, sees on which side of it the exact sum lies (Boldo and Melquiond, "Emulation of FMA and correctly rounded
    // sums", IEEE Transactions on Computers 57, 2008).
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let of_c = sum - product;
    let error = (product - (sum - of_c)) + (c - of_c);
    let bits = sum.to_bits();
    let odd = if sum.is_finite() && error != 0.0 && bits & 1 == 0 {
        if (error > 0.0) == (sum > 0.0) { bits + 1 } else { bits - 1 }
    } else {
        bits
    };
    f64::from_bits(odd) as f32
}

impl Isa for Scalar {
    const LEVEL: Level = Level::Scalar;
    const LANES: usize = LANES;
    const PANELS: usize = 1;
    const RUN_COLUMNS: usize = 2;
    const CENTERS_8BIT: bool = false;
    const CENTERS_6BIT: bool = false;
    const HALF_CENTRES: bool = false;
    const PREFERS_I16_SUMS: bool = false;
    const WHOLE_BYTES: bool = false;
    const SHORT_CHAINS: bool = false;
    const SUM_ORIGIN: i32 = 0;
    const FOLDS_SCALES: bool = false;
    type Narrow = Self;
    type V = Lanes;
    type F = [f32; LANES];

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn outlined<R>(self, f: impl FnOnce() -> R) -> R {
        #[inline(never)]
        fn call<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        call(f)
    }
    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> Lanes {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { p.cast::<Lanes>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_half_twice(self, p: *const u8, count: u32) -> Lanes {
        const HALF: usize = LANES / 2;
        // SAFETY: the caller vouches for 8 bytes at `p`.
        let half = unsafe { p.cast::<[i32; HALF]>().read_unaligned() };
        array_of(|i| (half[i % HALF] as u32 >> if i < HALF { 0 } else { count }) as i32)
    }
    #[inline(always)]
    unsafe fn load_sixteens(self, p: impl Fn(usize) -> *const u8) -> Lanes {
        // SAFETY: the caller's promise.
        unsafe { self.load(p(0)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, v: Lanes) {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { p.cast::<Lanes>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_halves(self, low: *mut u8, high: *mut u8, v: Lanes) {
        for (i, lane) in v.into_iter().enumerate() {
            // SAFETY: the caller vouches for two bytes of each lane at each place.
            unsafe {
                low.cast::<i16>().add(i).write_unaligned(lane as i16);
                high.cast::<i16>().add(i).write_unaligned((lane >> 16) as i16);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_four(self, p: *mut u8, v: Lanes) {
        // SAFETY: four lanes are all.
        unsafe { self.store(p, v) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_far(self, _: *const u8) {}
    #[inline(always)]
    unsafe fn broadcast(self, p: *const u8) -> Lanes {
        // SAFETY: the caller vouches for 4 bytes at `p`.
        [unsafe { p.cast::<i32>().read_unaligned() }; LANES]
    }
    #[inline(always)]
    unsafe fn add_sixteens(self, codes: [Lanes; 2], bits: impl Fn(usize) -> *const u8) -> [Lanes; 2] {
        // SAFETY: the caller vouches for 4 bytes.
        let bits = u32::from_le(unsafe { bits(0).cast::<u32>().read_unaligned() });
        // Each of four bits to bit 4 of its byte: the products do not overlap.
        let spread =
            |half: usize, lane: usize| ((bits >> (16 * half + 4 * lane) & 15) as i32 * 0x0204_0810) & 0x1010_1010;
        array_of(|half| array_of(|lane| codes[half][lane] | spread(half, lane)))
    }
    #[inline(always)]
    fn splat(self, value: i32) -> Lanes {
        [value; LANES]
    }
    #[inline(always)]
    fn and(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    fn shl(self, a: Lanes, count: u32) -> Lanes {
        a.map(|lane| lane << count)
    }
    #[inline(always)]
    fn shr(self, a: Lanes, count: u32) -> Lanes {
        a.map(|lane| ((lane as u32) >> count) as i32)
    }

    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> [f32; LANES] {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { p.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> [f32; LANES] {
        // SAFETY: the caller vouches for 8 bytes at `p`.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|half| half::f16::from_bits(half).to_f32_const())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> [f32; LANES] {
        // SAFETY: the caller vouches for 8 bytes at `p`.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|half| f32::from_bits((half as u32) << 16))
    }
    #[inline(always)]
    unsafe fn store_f32(self, p: *mut f32, v: [f32; LANES]) {
        // SAFETY: the caller vouches for 16 bytes at `p`.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn splat_f32(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    fn add_f32(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        array_of(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul_add_f32(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        array_of(|i| mul_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn sub_f32(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        array_of(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul_f32(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        array_of(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn widen_f16_halves(self, a: Lanes) -> [[f32; LANES]; 2] {
        let widen = |half: i32| half::f16::from_bits(half as u16).to_f32_const();
        [a.map(widen), a.map(|lane| widen(lane >> 16))]
    }
    #[inline(always)]
    fn bits_f32(self, a: Lanes) -> [f32; LANES] {
        a.map(|lane| f32::from_bits(lane as u32))
    }
    #[inline(always)]
    fn float_bits(self, a: [f32; LANES]) -> Lanes {
        array_of(|i| a[i].to_bits() as i32)
    }
    #[inline(always)]
    fn pack_bytes(self, v: [Lanes; 4]) -> Lanes {
        v.map(|lanes| i32::from_le_bytes(lanes.map(|lane| lane as u8)))
    }
    #[inline(always)]
    fn to_f32(self, a: Lanes) -> [f32; LANES] {
        a.map(|lane| lane as f32)
    }

    #[inline(always)]
    fn dot_i16(self, acc: Lanes, a: Lanes, b: Lanes) -> Lanes {
        let low = |lane: i32| lane as i16 as i32;
        array_of(|i| acc[i].wrapping_add(low(a[i]) * low(b[i])).wrapping_add((a[i] >> 16) * (b[i] >> 16)))
    }
    #[inline(always)]
    fn split_scales(self, pair: Lanes) -> [Lanes; 2] {
        [array_of(|i| pair[i] as i16 as i32), array_of(|i| pair[i] >> 16)]
    }
    #[inline(always)]
    fn abs_i8(self, a: Lanes) -> Lanes {
        a.map(|lane| i32::from_le_bytes(lane.to_le_bytes().map(|byte| (byte as i8).unsigned_abs())))
    }
    #[inline(always)]
    fn scale_origin(self, d: [f32; LANES]) -> [f32; LANES] {
        d.map(|d| if d.is_finite() { d } else { f32::NAN })
    }
    #[inline(always)]
    fn scale_sum(self, sum: Lanes, _: [f32; LANES], finite: [f32; LANES]) -> [f32; LANES] {
        self.mul_f32(self.to_f32(sum), finite)
    }
    #[inline(always)]
    fn sub_i16(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| halves(a[i], b[i], i16::wrapping_sub))
    }
    #[inline(always)]
    fn mul_i16(self, a: Lanes, b: Lanes) -> Lanes {
        array_of(|i| halves(a[i], b[i], i16::wrapping_mul))
    }

    #[inline(always)]
    fn dot<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        acc: &mut [[Lanes; NR]; MR],
        w: impl Fn(usize, usize) -> Lanes,
        x: impl Fn(usize, usize) -> Lanes,
    ) {
        for step in 0..STEPS {
            for i in 0..MR {
                let codes = w(step, i);
                for j in 0..NR {
                    let (sum, x) = (acc[i][j], x(step, j));
                    acc[i][j] = array_of(|lane| sum[lane].wrapping_add(dot_bytes(codes[lane], x[lane])));
                }
            }
        }
    }

    #[inline(always)]
    fn dot_scaled<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize, const FIT: bool>(
        self,
        acc: &mut [[Lanes; NR]; MR],
        scale: [Lanes; MR],
        _: impl Fn(usize, usize) -> Lanes,
        w: impl Fn(usize, usize) -> Lanes,
        x: impl Fn(usize, usize) -> Lanes,
    ) {
        let mut sum = [[self.splat(0); NR]; MR];
        self.dot::<BITS, STEPS, MR, NR>(&mut sum, w, x);
        for i in 0..MR {
            for j in 0..NR {
                acc[i][j] = self.add(acc[i][j], self.mul(sum[i][j], scale[i]));
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_sums(self, a: &[u8; 16], bias: i16, b: *const i16, count: usize) -> Lanes {
        let mut sum = 0;
        for (i, &a) in a[..count].iter().enumerate() {
            // SAFETY: the caller vouches for `count` elements.
            sum += (a as i32 - bias as i32) * unsafe { b.add(i).read_unaligned() } as i32;
        }
        [sum, 0, 0, 0]
    }
    #[inline(always)]
    fn spread_scales<const GROUP: usize>(self, scales: &[u8; 16], bias: i16, [first, _]: [usize; 2]) -> Lanes {
        [scales[first / GROUP] as i32 - bias as i32; LANES]
    }
    #[inline(always)]
    fn fold_lanes(self, v: Lanes) -> Lanes {
        v
    }
    #[inline(always)]
    fn sum_fours(self, v: [Lanes; 4]) -> Lanes {
        array_of(|b| v[b].iter().fold(0, |sum: i32, &lane| sum.wrapping_add(lane)))
    }
    #[inline(always)]
    fn sum_eights(self, v: [Lanes; 8]) -> Lanes {
        array_of(|b| v[2 * b].iter().chain(&v[2 * b + 1]).fold(0, |sum: i32, &lane| sum.wrapping_add(lane)))
    }

    #[inline(always)]
    fn transpose_fours(self, v: [Lanes; 4]) -> [Lanes; 4] {
        array_of(|i| array_of(|lane| v[lane][i]))
    }

    #[inline(always)]
    unsafe fn register_tile<K: RegisterTile>(self, width: usize, kernel: &mut K) {
        // SAFETY: `W` is the width, and tiles end with the group; the rest is the caller's promise.
        unsafe {
            match width {
                8 => (0..8).step_by(2).for_each(|first| kernel.run::<Self, 4, 2, 8>(self, first)),
                4 => (0..4).step_by(2).for_each(|first| kernel.run::<Self, 4, 2, 4>(self, first)),
                2 => kernel.run::<Self, 4, 2, 2>(self, 0),
                _ => kernel.run::<Self, 4, 1, 1>(self, 0),
            }
        }
    }

    #[inline(always)]
    unsafe fn column_tile<K: RegisterTile>(self, (columns, width): (usize, usize), kernel: &mut K) {
        // SAFETY: `W` is the width, and tiles end with the group; the rest is the caller's promise.
        unsafe {
            match width {
                8 => (0..columns).step_by(2).for_each(|first| kernel.run::<Self, 1, 2, 8>(self, first)),
                4 => (0..4).step_by(2).for_each(|first| kernel.run::<Self, 1, 2, 4>(self, first)),
                2 => kernel.run::<Self, 1, 2, 2>(self, 0),
                _ => kernel.run::<Self, 1, 1, 1>(self, 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mul_add_rounds_once() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let (mut rounded_twice, mut subnormal) = (0, 0);
        for i in 0..2_000_000 {
            // Any factors and a sum as large as the product, 40 bits more or less; or a product that is nearly half of the
            // sum's last bit.
            let near_one = |bits: u32| f32::from_bits(0x3F7F_FFF8 + bits % 16);
            let (a, b, c) = if i % 2 == 0 {
                let (a, b) = (f32::from_bits(random()), f32::from_bits(random()));
                let exponent = ((a * b).to_bits() >> 23 & 0xFF) as i32 + (random() % 81) as i32 - 40;
                (a, b, f32::from_bits(random() & 0x807F_FFFF | (exponent.clamp(0, 254) as u32) << 23))
            } else {
                let sign = if random() % 2 == 0 { 1.0 } else { -1.0 };
                (near_one(random()), near_one(random()) * sign / 16_777_216.0, 1.0 + near_one(random()))
            };
            let (found, expected) = (mul_add(a, b, c), a.mul_add(b, c));
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{a:e} · {b:e} + {c:e}"
            );
            let twice = (f64::from(a) * f64::from(b) + f64::from(c)) as f32;
            rounded_twice += usize::from(twice.to_bits() != expected.to_bits() && !expected.is_nan());
            subnormal += usize::from(expected.is_subnormal());
        }
        assert!(rounded_twice > 0 && subnormal > 0, "{rounded_twice} would differ, {subnormal} subnormal");
        for (a, b, c) in [(f32::INFINITY, 0.0, 1.0), (f32::INFINITY, 1.0, f32::NEG_INFINITY), (f32::NAN, 1.0, 1.0)] {
            assert!(mul_add(a, b, c).is_nan());
        }
        assert_eq!(mul_add(f32::MAX, 2.0, -1.0), f32::INFINITY);
        assert_eq!(mul_add(-1.0, 1.0, 1.0).to_bits(), 0);
    }
}
