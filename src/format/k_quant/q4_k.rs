//! Q4_K: 4-bit codes, 8 groups of 32 with a 6-bit scale and a 6-bit minimum each.

use super::affine::{AffineRule, quantize_affine};
use super::scales::{pack_scales_mins, unpack_scales_mins};
use super::{SUPERBLOCK, dequantize_superblock, quantize_superblocks};
use crate::format::le::F16Le;
use crate::format::search::AffineSearch;
use crate::format::{BlockCodes, Plane, Planes, QuantBlock};
use crate::kernel::SuperTile;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// GGUF's `Q4_K`: 4.5 bits a weight, `w = d·scale·code − dmin·min`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Q4K;

/// A block of [`Q4K`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// What multiplies the scales.
    pub d: F16Le,
    /// What multiplies the minima.
    pub dmin: F16Le,
    /// 8 scales and 8 minima of 6 bits.
    pub scales: [u8; 12],
    /// Codes: byte `l` of quarter `j` holds weight `l` of the quarter in the low nibble and weight `l + 32` in the high one.
    pub qs: [u8; 128],
}

const PLANES: Planes = Planes { low: Plane { at: offset_of!(BlockQ4K, qs), bits: 4, stride: 32 }, high: None };

const _: () = assert!(size_of::<BlockQ4K>() == 144 && align_of::<BlockQ4K>() == 1);

const RULE: AffineRule<8, [u8; 12]> = AffineRule {
    max_code: 15,
    max_scale: 63,
    search: AffineSearch { first: -1.0, step: 0.1, steps: 20, absolute: false },
    floor: true,
    variance: 2.0,
    pack: pack_scales_mins,
    unpack: unpack_scales_mins,
};

impl QuantBlock for Q4K {
    const NAME: &'static str = "Q4_K";
    const BLOCK: usize = SUPERBLOCK;
    type Block = BlockQ4K;
    type Tile = SuperTile<4, 0, 32, 6, 0, true>;
    const PLANES: Option<Planes> = Some(PLANES);

    #[inline(always)]
    fn dequantize(block: &BlockQ4K, out: &mut [f32]) {
        dequantize_superblock(Self, block, out);
    }

    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [BlockQ4K]) {
        quantize_superblocks(row, importance, blocks, |x, importance| {
            let superblock = quantize_affine::<32, 8, _>(x, importance, &RULE);
            BlockQ4K {
                d: superblock.d,
                dmin: superblock.dmin,
                scales: superblock.scales,
                qs: PLANES.low.pack(&superblock.codes),
            }
        });
    }

    #[inline(always)]
    fn codes(block: &BlockQ4K, out: &mut BlockCodes) {
        out.codes = PLANES.codes(block);
        unpack_scales_mins(&block.scales, &mut out.scales, &mut out.mins);
        out.d = block.d.to_bits() as u32;
        out.dmin = block.dmin.to_bits() as u32;
    }
}
