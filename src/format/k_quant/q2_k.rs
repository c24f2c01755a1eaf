//! Q2_K: 2-bit codes, 16 groups of 16, a 4-bit scale and a 4-bit minimum each.

use super::affine::{AffineRule, quantize_affine};
use super::{SUPERBLOCK, dequantize_superblock, quantize_superblocks};
use crate::format::le::F16Le;
use crate::format::search::AffineSearch;
use crate::format::swar;
use crate::format::{BlockCodes, Plane, Planes, QuantBlock};
use crate::kernel::SuperTile;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// GGUF's `Q2_K`: 2.625 bits a weight, `w = d·scale·code − dmin·min`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Q2K;

/// A block of [`Q2K`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// The scale (low nibble) and the minimum (high nibble) of each group.
    pub scales: [u8; 16],
    /// Codes: byte `l` of half `h` holds, from the low bits up, weights `l`, `l + 32`, `l + 64`, `l + 96` of the half.
    pub qs: [u8; 64],
    /// What multiplies the scales.
    pub d: F16Le,
    /// What multiplies the minima.
    pub dmin: F16Le,
}

const PLANES: Planes = Planes { low: Plane { at: offset_of!(BlockQ2K, qs), bits: 2, stride: 32 }, high: None };

const _: () = assert!(size_of::<BlockQ2K>() == 84 && align_of::<BlockQ2K>() == 1);

const RULE: AffineRule<16, [u8; 16]> = AffineRule {
    max_code: 3,
    max_scale: 15,
    search: AffineSearch { first: -0.5, step: 0.1, steps: 15, absolute: true },
    floor: false,
    variance: 1.0,
    pack: |scales, mins| core::array::from_fn(|g| scales[g] | mins[g] << 4),
    unpack: unpack_scales_mins,
};

impl QuantBlock for Q2K {
    const NAME: &'static str = "Q2_K";
    const BLOCK: usize = SUPERBLOCK;
    type Block = BlockQ2K;
    type Tile = SuperTile<2, 0, 16, 4, 0, true>;
    const PLANES: Option<Planes> = Some(PLANES);

    #[inline(always)]
    fn dequantize(block: &BlockQ2K, out: &mut [f32]) {
        dequantize_superblock(Self, block, out);
    }

    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [BlockQ2K]) {
        quantize_superblocks(row, importance, blocks, |x, importance| {
            let superblock = quantize_affine::<16, 16, _>(x, importance, &RULE);
            BlockQ2K {
                scales: superblock.scales,
                qs: PLANES.low.pack(&superblock.codes),
                d: superblock.d,
                dmin: superblock.dmin,
            }
        });
    }

    #[inline(always)]
    fn codes(block: &BlockQ2K, out: &mut BlockCodes) {
        out.codes = PLANES.codes(block);
        unpack_scales_mins(&block.scales, &mut out.scales, &mut out.mins);
        out.d = block.d.to_bits() as u32;
        out.dmin = block.dmin.to_bits() as u32;
    }
}

#[inline(always)]
fn unpack_scales_mins(bytes: &[u8; 16], scales: &mut [u8; 16], mins: &mut [u8; 16]) {
    *scales = swar::low_nibbles(bytes);
    *mins = swar::high_nibbles(bytes);
}
