//! Blocks of 32 with an f16 scale and perhaps an f16 minimum: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 as one family.
//!
//! A block is `d`, then `m` where there is a minimum, then the fifth bits where there are five (bit `j` of a
//! little-endian u32 is weight `j`'s), then the codes: nibbles, weight `j` low and weight `j + 16` high in byte `j`, or
//! 32 signed bytes.

use super::le::F16Le;
use super::search::{
    WITH_IMPORTANCE, error_weights, fit_affine, fit_symmetric, largest_magnitude, sum_of_squares, truncate,
};
use super::swar;
use super::{BlockCodes, Plane, Planes, QuantBlock};
use crate::kernel::{FlatTile, Tile};
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;
use num_traits::Float;

const BLOCK: usize = 32;

/// The format of `BITS` bits, with a minimum (`w = d·code + m`) or around zero (`w = d·(code − BIAS)`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Legacy<const BITS: u32, const MIN: bool>;

/// GGUF's `Q4_0`: 4.5 bits a weight, `w = d·(code − 8)`.
pub type Q40 = Legacy<4, false>;
/// GGUF's `Q4_1`: 5 bits a weight, `w = d·code + m`.
pub type Q41 = Legacy<4, true>;
/// GGUF's `Q5_0`: 5.5 bits a weight, `w = d·(code − 16)`.
pub type Q50 = Legacy<5, false>;
/// GGUF's `Q5_1`: 6 bits a weight, `w = d·code + m`.
pub type Q51 = Legacy<5, true>;
/// GGUF's `Q8_0`: 8.5 bits a weight, `w = d·q` with a signed byte `q = code − 128`.
pub type Q80 = Legacy<8, false>;

/// A block of the family: `MINS` minima (0 or 1), `HIGH` bytes of fifth bits (0 or 4), `CODES` bytes of codes (16 or 32).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockLegacy<const MINS: usize, const HIGH: usize, const CODES: usize> {
    /// The scale.
    pub d: F16Le,
    /// The minimum, added to every weight.
    pub m: [F16Le; MINS],
    /// The fifth bit of each code.
    pub qh: [u8; HIGH],
    /// The low bits of the codes.
    pub qs: [u8; CODES],
}

// SAFETY: all zeros are valid bytes in every field.
unsafe impl<const MINS: usize, const HIGH: usize, const CODES: usize> Zeroable for BlockLegacy<MINS, HIGH, CODES> {}
// SAFETY: `repr(C)` over fields that are Pod and of alignment 1, so there is no padding.
unsafe impl<const MINS: usize, const HIGH: usize, const CODES: usize> Pod for BlockLegacy<MINS, HIGH, CODES> {}

/// A block of [`Q40`].
pub type BlockQ40 = BlockLegacy<0, 0, 16>;
/// A block of [`Q41`].
pub type BlockQ41 = BlockLegacy<1, 0, 16>;
/// A block of [`Q50`].
pub type BlockQ50 = BlockLegacy<0, 4, 16>;
/// A block of [`Q51`].
pub type BlockQ51 = BlockLegacy<1, 4, 16>;
/// A block of [`Q80`].
pub type BlockQ80 = BlockLegacy<0, 0, 32>;

const _: () = assert!(size_of::<BlockQ40>() == 18 && align_of::<BlockQ40>() == 1);
const _: () = assert!(size_of::<BlockQ41>() == 20 && align_of::<BlockQ41>() == 1);
const _: () = assert!(size_of::<BlockQ50>() == 22 && align_of::<BlockQ50>() == 1);
const _: () = assert!(size_of::<BlockQ51>() == 24 && align_of::<BlockQ51>() == 1);
const _: () = assert!(size_of::<BlockQ80>() == 34 && align_of::<BlockQ80>() == 1);

/// A block of the family, whatever its fields.
pub trait LegacyBlock: Pod + Send + Sync {
    /// Where the bits of its codes lie, unless these are bytes.
    const PLANES: Option<Planes>;
    /// The scale.
    fn d(&self) -> F16Le;
    /// The minimum, 0 where there is none.
    fn m(&self) -> F16Le;
    /// The unsigned codes in the order of the weights.
    fn unpack(&self, codes: &mut [u8; BLOCK]);
    /// The block of this scale, minimum (dropped where there is none) and these codes.
    fn pack(d: f32, m: f32, codes: &[u8; BLOCK]) -> Self;
}

/// For each byte, its bits `j` as bits 4 of bytes `j`: cheaper to look up than to compute next to vector units.
static FIFTH_BITS: [u64; 256] = {
    let mut table = [0; 256];
    let mut bits = 0;
    while bits < 256 * 8 {
        table[bits / 8] |= ((((bits / 8) >> (bits % 8)) & 1) as u64) << (8 * (bits % 8) + 4);
        bits += 1;
    }
    table
};

impl<const MINS: usize, const HIGH: usize, const CODES: usize> LegacyBlock for BlockLegacy<MINS, HIGH, CODES> {
    const PLANES: Option<Planes> = if CODES == BLOCK {
        None
    } else {
        let high = Plane { at: offset_of!(Self, qh), bits: 1, stride: 1 };
        let low = Plane { at: offset_of!(Self, qs), bits: 4, stride: 16 };
        Some(Planes { low, high: if HIGH > 0 { Some(high) } else { None } })
    };

    #[inline(always)]
    fn d(&self) -> F16Le {
        self.d
    }

    #[inline(always)]
    fn m(&self) -> F16Le {
        self.m.first().copied().unwrap_or_default()
    }

    #[inline(always)]
    fn unpack(&self, codes: &mut [u8; BLOCK]) {
        let Some(planes) = Self::PLANES else {
            return codes.copy_from_slice(&swar::map(&self.qs, |word| word ^ swar::splat(0x80)));
        };
        *codes = planes.nibbles(self);
        for (codes, &bits) in codes.as_chunks_mut::<8>().0.iter_mut().zip(&self.qh) {
            *codes = (u64::from_le_bytes(*codes) | FIFTH_BITS[bits as usize]).to_le_bytes();
        }
    }

    fn pack(d: f32, m: f32, codes: &[u8; BLOCK]) -> Self {
        let mut block = Self::zeroed();
        block.d = F16Le::from_f32(d);
        block.m = [F16Le::from_f32(m); MINS];
        if CODES == BLOCK {
            for (q, code) in block.qs.iter_mut().zip(codes) {
                *q = code ^ 0x80;
            }
            return block;
        }
        let (low, high) = codes.split_at(BLOCK / 2);
        for ((q, low), high) in block.qs.iter_mut().zip(low).zip(high) {
            *q = (low & 15) | (high & 15) << 4;
        }
        for (bits, codes) in block.qh.iter_mut().zip(codes.chunks(8)) {
            *bits = codes.iter().rev().fold(0, |bits, code| bits << 1 | (code >> 4 & 1));
        }
        block
    }
}

/// What tells the formats of the family apart.
pub trait LegacyKind {
    /// The format's name as GGUF spells it.
    const NAME: &'static str;
    /// The block as it lies in the file.
    type Block: LegacyBlock;
    /// The layout class.
    type Tile: Tile;
}

impl LegacyKind for Q40 {
    const NAME: &'static str = "Q4_0";
    type Block = BlockQ40;
    type Tile = FlatTile<4, 8, false>;
}

impl LegacyKind for Q41 {
    const NAME: &'static str = "Q4_1";
    type Block = BlockQ41;
    type Tile = FlatTile<4, 0, true>;
}

impl LegacyKind for Q50 {
    const NAME: &'static str = "Q5_0";
    type Block = BlockQ50;
    type Tile = FlatTile<5, 16, false>;
}

impl LegacyKind for Q51 {
    const NAME: &'static str = "Q5_1";
    type Block = BlockQ51;
    type Tile = FlatTile<5, 0, true>;
}

impl LegacyKind for Q80 {
    const NAME: &'static str = "Q8_0";
    type Block = BlockQ80;
    type Tile = FlatTile<8, 128, false>;
}

impl<const BITS: u32, const MIN: bool> Legacy<BITS, MIN> {
    /// The largest code.
    const MAX_CODE: u8 = ((1 << BITS) - 1) as u8;
}

impl<const BITS: u32, const MIN: bool> QuantBlock for Legacy<BITS, MIN>
where
    Self: LegacyKind,
{
    const NAME: &'static str = <Self as LegacyKind>::NAME;
    const BLOCK: usize = BLOCK;
    type Block = <Self as LegacyKind>::Block;
    type Tile = <Self as LegacyKind>::Tile;
    const SIGNED_CODES_AT: Option<usize> = if BITS == 8 { Some(offset_of!(BlockQ80, qs)) } else { None };
    const PLANES: Option<Planes> = <Self as LegacyKind>::Block::PLANES;

    #[inline(always)]
    fn dequantize(block: &Self::Block, out: &mut [f32]) {
        let mut codes = [0; BLOCK];
        block.unpack(&mut codes);
        let (d, m) = (block.d().to_f32(), block.m().to_f32());
        for (out, &code) in out.iter_mut().zip(&codes) {
            let w = (code as i32 - Self::Tile::BIAS) as f32 * d;
            *out = if MIN { w + m } else { w };
        }
    }

    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [Self::Block]) {
        let variance = sum_of_squares(row) / row.len() as f32;
        for (i, (block, x)) in blocks.iter_mut().zip(row.as_chunks::<BLOCK>().0).enumerate() {
            let importance = importance.and_then(|all| all.as_chunks::<BLOCK>().0.get(i));
            let mut codes = [0; BLOCK];
            let (d, m) = match importance {
                Some(importance) if BITS < 8 => {
                    let weights = error_weights(x, importance, variance);
                    if MIN {
                        let (d, min) = fit_affine(x, &weights, Self::MAX_CODE, WITH_IMPORTANCE, &mut codes);
                        (d, -min)
                    } else {
                        (fit_symmetric(x, &weights, Self::Tile::BIAS, &mut codes), 0.0)
                    }
                }
                _ if BITS == 8 => (spread_bytes(x, &mut codes), 0.0),
                _ if MIN => spread_range(x, Self::MAX_CODE, &mut codes),
                _ => (spread_symmetric(x, Self::Tile::BIAS, &mut codes), 0.0),
            };
            *block = Self::Block::pack(d, m, &codes);
        }
    }

    #[inline(always)]
    fn codes(block: &Self::Block, out: &mut BlockCodes) {
        if let Some(codes) = out.codes.first_chunk_mut() {
            block.unpack(codes);
        }
        [out.d, out.dmin] = Self::scales(block);
    }

    #[inline(always)]
    fn scales(block: &Self::Block) -> [u32; 2] {
        [block.d().to_bits() as u32, block.m().to_bits() as u32]
    }
}

fn inverse_or_zero(d: f32) -> f32 {
    if d != 0.0 { 1.0 / d } else { 0.0 }
}

/// The scale that takes the largest magnitude to `−half`, and the codes under it, rounded half up.
fn spread_symmetric(x: &[f32; BLOCK], half: i32, codes: &mut [u8; BLOCK]) -> f32 {
    let d = largest_magnitude(x) / -half as f32;
    let inverse = inverse_or_zero(d);
    *codes = x.map(|x| (truncate(x * inverse + (half as f32 + 0.5)) as i8).min((2 * half - 1) as i8) as u8);
    d
}

/// The scale and the minimum that take the range to `0..=max_code`, and the codes under them, rounded half up.
fn spread_range(x: &[f32; BLOCK], max_code: u8, codes: &mut [u8; BLOCK]) -> (f32, f32) {
    let min = x.iter().fold(f32::MAX, |min, &x| if x < min { x } else { min });
    let max = x.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
    let d = (max - min) / max_code as f32;
    let inverse = inverse_or_zero(d);
    *codes = x.map(|x| (truncate((x - min) * inverse + 0.5) as i8).min(max_code as i8) as u8);
    (d, min)
}

/// The scale that takes the largest magnitude to 127, and the signed bytes under it (as codes), rounded half away from 0.
fn spread_bytes(x: &[f32; BLOCK], codes: &mut [u8; BLOCK]) -> f32 {
    let d = largest_magnitude(x).abs() / 127.0;
    let inverse = inverse_or_zero(d);
    *codes = x.map(|x| truncate(Float::round(x * inverse)) as u8 ^ 0x80);
    d
}
