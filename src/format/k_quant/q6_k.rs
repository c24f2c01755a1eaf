//! Q6_K: 6-bit codes around zero, 16 groups of 16 with a signed 8-bit scale each.

use super::symmetric::requantize;
use super::{SUPERBLOCK, dequantize_superblock, quantize_superblocks};
use crate::format::le::F16Le;
use crate::format::search::{NEGLIGIBLE, fit_symmetric, largest_magnitude, nearest};
use crate::format::swar::{self, splat};
use crate::format::{BlockCodes, Plane, Planes, QuantBlock};
use crate::kernel::SuperTile;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// GGUF's `Q6_K`: 6.5625 bits a weight, `w = d·scale·(code − 32)` with a signed scale.
#[derive(Debug, Clone, Copy, Default)]
pub struct Q6K;

/// A block of [`Q6K`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// The low nibbles: byte `l < 64` of half `h` holds weight `l` of the half in its low nibble and weight `l + 64` in the high one.
    pub ql: [u8; 128],
    /// The top two bits: byte `l` of half `h` holds, from the low bits up, those of weights `l`, `l + 32`, `l + 64`, `l + 96` of it.
    pub qh: [u8; 64],
    /// The scale of each group.
    pub scales: [i8; 16],
    /// What multiplies the scales.
    pub d: F16Le,
}

const PLANES: Planes = Planes {
    low: Plane { at: offset_of!(BlockQ6K, ql), bits: 4, stride: 64 },
    high: Some(Plane { at: offset_of!(BlockQ6K, qh), bits: 2, stride: 32 }),
};

const _: () = assert!(size_of::<BlockQ6K>() == 210 && align_of::<BlockQ6K>() == 1);

impl QuantBlock for Q6K {
    const NAME: &'static str = "Q6_K";
    const BLOCK: usize = SUPERBLOCK;
    type Block = BlockQ6K;
    type Tile = SuperTile<6, 32, 16, 8, 128, false>;
    const PLANES: Option<Planes> = Some(PLANES);

    #[inline(always)]
    fn dequantize(block: &BlockQ6K, out: &mut [f32]) {
        dequantize_superblock(Self, block, out);
    }

    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [BlockQ6K]) {
        quantize_superblocks(row, importance, blocks, quantize_superblock);
    }

    #[inline(always)]
    fn codes(block: &BlockQ6K, out: &mut BlockCodes) {
        out.codes = PLANES.codes(block);
        // Adding 128 to a byte flips its sign bit.
        out.scales = swar::map(bytemuck::cast_ref(&block.scales), |scales| scales ^ splat(128));
        out.d = block.d.to_bits() as u32;
    }
}

fn quantize_superblock(x: &[f32; SUPERBLOCK], importance: Option<&[f32; SUPERBLOCK]>) -> BlockQ6K {
    let mut codes = [0; SUPERBLOCK];
    let mut scales = [0.0; 16];
    for (g, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate().take(16) {
        let importance = importance.and_then(|all| all.as_chunks::<16>().0.get(g));
        let weights = importance.copied().unwrap_or_else(|| x.map(|x| x * x));
        scales[g] = fit_symmetric(x, &weights, 32, codes);
    }
    let max = largest_magnitude(&scales);
    if max.abs() < NEGLIGIBLE {
        return BlockQ6K::zeroed();
    }
    let inverse = -128.0 / max;
    let d = F16Le::from_f32(1.0 / inverse);
    let scales = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    requantize(x, d, &scales.map(i32::from), 32, &mut codes);
    BlockQ6K { ql: PLANES.low.pack(&codes), qh: PLANES.pack_high(&codes), scales, d }
}
