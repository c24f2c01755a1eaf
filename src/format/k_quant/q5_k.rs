//! Q5_K: 5-bit codes, 8 groups of 32 with a 6-bit scale and a 6-bit minimum each.

use super::affine::{AffineRule, quantize_affine};
use super::scales::{pack_scales_mins, unpack_scales_mins};
use super::{SUPERBLOCK, dequantize_superblock, quantize_superblocks};
use crate::format::le::F16Le;
use crate::format::search::AffineSearch;
use crate::format::{BlockCodes, Plane, Planes, QuantBlock};
use crate::kernel::SuperTile;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// GGUF's `Q5_K`: 5.5 bits a weight, `w = d·scale·code − dmin·min`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Q5K;

/// A block of [`Q5K`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// What multiplies the scales.
    pub d: F16Le,
    /// What multiplies the minima.
    pub dmin: F16Le,
    /// 8 scales and 8 minima of 6 bits.
    pub scales: [u8; 12],
    /// The fifth bits: bit `g` of byte `l` is weight `32·g + l`'s.
    pub qh: [u8; 32],
    /// The low bits: byte `l` of quarter `j` holds weight `l` of the quarter in the low nibble and weight `l + 32` in the high one.
    pub qs: [u8; 128],
}

const PLANES: Planes = Planes {
    low: Plane { at: offset_of!(BlockQ5K, qs), bits: 4, stride: 32 },
    high: Some(Plane { at: offset_of!(BlockQ5K, qh), bits: 1, stride: 32 }),
};

const _: () = assert!(size_of::<BlockQ5K>() == 176 && align_of::<BlockQ5K>() == 1);

const RULE: AffineRule<8, [u8; 12]> = AffineRule {
    max_code: 31,
    max_scale: 63,
    search: AffineSearch { first: -0.5, step: 0.1, steps: 15, absolute: false },
    floor: true,
    variance: 2.0,
    // ggml caps them here and not in Q4_K: only a level below 0 (whose low byte is large) tells.
    pack: |scales, mins| pack_scales_mins(&scales.map(|s| s.min(63)), &mins.map(|m| m.min(63))),
    unpack: unpack_scales_mins,
};

impl QuantBlock for Q5K {
    const NAME: &'static str = "Q5_K";
    const BLOCK: usize = SUPERBLOCK;
    type Block = BlockQ5K;
    type Tile = SuperTile<5, 0, 32, 6, 0, true>;
    const PLANES: Option<Planes> = Some(PLANES);

    #[inline(always)]
    fn dequantize(block: &BlockQ5K, out: &mut [f32]) {
        dequantize_superblock(Self, block, out);
    }

    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [BlockQ5K]) {
        quantize_superblocks(row, importance, blocks, |x, importance| {
            let superblock = quantize_affine::<32, 8, _>(x, importance, &RULE);
            BlockQ5K {
                d: superblock.d,
                dmin: superblock.dmin,
                scales: superblock.scales,
                qh: PLANES.pack_high(&superblock.codes),
                qs: PLANES.low.pack(&superblock.codes),
            }
        });
    }

    #[inline(always)]
    fn codes(block: &BlockQ5K, out: &mut BlockCodes) {
        out.codes = PLANES.codes(block);
        unpack_scales_mins(&block.scales, &mut out.scales, &mut out.mins);
        out.d = block.d.to_bits() as u32;
        out.dmin = block.dmin.to_bits() as u32;
    }
}
