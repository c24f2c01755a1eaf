//! Q3_K: 3-bit codes around zero, 16 groups of 16 with a signed 6-bit scale each.

use super::scales::{pack_scales, unpack_scales};
use super::symmetric::requantize;
use super::{SUPERBLOCK, dequantize_superblock, quantize_superblocks};
use crate::format::le::F16Le;
use crate::format::search::{
    error_weights, fit_symmetric, fit_symmetric_by_descent, largest_magnitude, nearest, sum, sum_of_squares,
};
use crate::format::{BlockCodes, Plane, Planes, QuantBlock};
use crate::kernel::SuperTile;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// GGUF's `Q3_K`: 3.4375 bits a weight, `w = d·(scale − 32)·(code − 4)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Q3K;

/// A block of [`Q3K`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// The third bits: bit `j` of byte `l` is weight `32·j + l`'s.
    pub hmask: [u8; 32],
    /// The low two bits: byte `l` of half `h` holds, from the low bits up, weights `l`, `l + 32`, `l + 64`, `l + 96` of it.
    pub qs: [u8; 64],
    /// 16 scales of 6 bits, 32 more than their value.
    pub scales: [u8; 12],
    /// What multiplies the scales.
    pub d: F16Le,
}

const PLANES: Planes = Planes {
    low: Plane { at: offset_of!(BlockQ3K, qs), bits: 2, stride: 32 },
    high: Some(Plane { at: offset_of!(BlockQ3K, hmask), bits: 1, stride: 32 }),
};

const _: () = assert!(size_of::<BlockQ3K>() == 110 && align_of::<BlockQ3K>() == 1);

impl QuantBlock for Q3K {
    const NAME: &'static str = "Q3_K";
    const BLOCK: usize = SUPERBLOCK;
    type Block = BlockQ3K;
    type Tile = SuperTile<3, 4, 16, 6, 32, false>;
    const PLANES: Option<Planes> = Some(PLANES);

    #[inline(always)]
    fn dequantize(block: &BlockQ3K, out: &mut [f32]) {
        dequantize_superblock(Self, block, out);
    }

    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [BlockQ3K]) {
        quantize_superblocks(row, importance, blocks, quantize_superblock);
    }

    #[inline(always)]
    fn codes(block: &BlockQ3K, out: &mut BlockCodes) {
        out.codes = PLANES.codes(block);
        unpack_scales(&block.scales, &mut out.scales);
        out.d = block.d.to_bits() as u32;
    }
}

fn quantize_superblock(x: &[f32; SUPERBLOCK], importance: Option<&[f32; SUPERBLOCK]>) -> BlockQ3K {
    let mut codes = [0; SUPERBLOCK];
    let (mut scales, mut group_weights) = ([0.0; 16], [0.0; 16]);
    let variance = 2.0 * sum_of_squares(x) / SUPERBLOCK as f32;
    for (g, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate().take(16) {
        scales[g] = match importance.and_then(|all| all.as_chunks::<16>().0.get(g)) {
            Some(importance) => {
                let weights = error_weights(x, importance, variance);
                group_weights[g] = sum(&weights);
                fit_symmetric(x, &weights, 4, codes)
            }
            None => fit_symmetric_by_descent(x, 4, codes),
        };
    }
    let mut scale_codes = [0; 16];
    let d = if importance.is_some() {
        fit_symmetric(&scales, &group_weights, 32, &mut scale_codes)
    } else {
        let max = largest_magnitude(&scales);
        if max != 0.0 {
            let inverse = -32.0 / max;
            scale_codes = scales.map(|scale| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8);
            1.0 / inverse
        } else {
            0.0
        }
    };
    let d = F16Le::from_f32(d);
    requantize(x, d, &scale_codes.map(|scale| scale as i32 - 32), 4, &mut codes);
    BlockQ3K { hmask: PLANES.pack_high(&codes), qs: PLANES.low.pack(&codes), scales: pack_scales(&scale_codes), d }
}
