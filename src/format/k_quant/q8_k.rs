//! Q8_K: signed bytes under one f32 scale, with the sums of each 16: the activations' format, here also one for weights.

use super::{SUPERBLOCK, quantize_superblocks};
use crate::format::le::{F32Le, I16Le};
use crate::format::search::{largest_magnitude, nearest};
use crate::format::{BlockCodes, QuantBlock};
use crate::kernel::SuperTile;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// ggml's `Q8_K`: 9.125 bits a weight, `w = d·q` with a signed byte `q = code − 128`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Q8K;

/// A block of [`Q8K`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8K {
    /// The scale.
    pub d: F32Le,
    /// The weights.
    pub qs: [i8; 256],
    /// The sum of each 16 of `qs`.
    pub bsums: [I16Le; 16],
}

const _: () = assert!(size_of::<BlockQ8K>() == 292 && align_of::<BlockQ8K>() == 1);

impl QuantBlock for Q8K {
    const NAME: &'static str = "Q8_K";
    const BLOCK: usize = SUPERBLOCK;
    type Block = BlockQ8K;
    type Tile = SuperTile<8, 128, 256, 0, 0, false>;
    const SIGNED_CODES_AT: Option<usize> = Some(offset_of!(BlockQ8K, qs));

    #[inline(always)]
    fn dequantize(block: &BlockQ8K, out: &mut [f32]) {
        let d = block.d.to_f32();
        for (out, &q) in out.iter_mut().zip(&block.qs) {
            *out = d * q as f32;
        }
    }

    fn quantize(row: &[f32], _importance: Option<&[f32]>, blocks: &mut [BlockQ8K]) {
        quantize_superblocks(row, None, blocks, |x, _| quantize_superblock(x));
    }

    #[inline(always)]
    fn codes(block: &BlockQ8K, out: &mut BlockCodes) {
        for (out, &q) in out.codes.iter_mut().zip(&block.qs) {
            *out = q as u8 ^ 0x80;
        }
        [out.d, out.dmin] = Self::scales(block);
    }

    #[inline(always)]
    fn scales(block: &BlockQ8K) -> [u32; 2] {
        [block.d.to_bits(), 0]
    }
}

fn quantize_superblock(x: &[f32; SUPERBLOCK]) -> BlockQ8K {
    let max = largest_magnitude(x);
    if max == 0.0 {
        return BlockQ8K::zeroed();
    }
    let inverse = -127.0 / max;
    let qs = x.map(|x| nearest(inverse * x).min(127) as i8);
    let mut bsums = [I16Le::default(); 16];
    for (sum, qs) in bsums.iter_mut().zip(qs.as_chunks::<16>().0) {
        *sum = I16Le::new(qs.iter().map(|&q| q as i16).sum());
    }
    BlockQ8K { d: F32Le::from_f32(1.0 / inverse), qs, bsums }
}
