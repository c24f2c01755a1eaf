//! The K-quants: superblocks of 256 weights whose groups have small integer scales (and minima) under one f16 each.

mod affine;
mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;
mod q8_k;
mod scales;
mod symmetric;

pub use q2_k::{BlockQ2K, Q2K};
pub use q3_k::{BlockQ3K, Q3K};
pub use q4_k::{BlockQ4K, Q4K};
pub use q5_k::{BlockQ5K, Q5K};
pub use q6_k::{BlockQ6K, Q6K};
pub use q8_k::{BlockQ8K, Q8K};

use super::le::F16Le;
use super::{BlockCodes, QuantBlock};
use crate::kernel::SuperTile;

/// Weights in a superblock.
const SUPERBLOCK: usize = 256;

/// The weights of a superblock: `(d·(scale − SCALE_BIAS))·(code − BIAS) − dmin·min`, each operation rounded, as ggml does.
#[inline(always)]
fn dequantize_superblock<
    F,
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
>(
    _format: F,
    block: &F::Block,
    out: &mut [f32],
) where
    F: QuantBlock<Tile = SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>>,
{
    let mut view = BlockCodes::default();
    F::codes(block, &mut view);
    let d = F16Le::from_bits(view.d as u16).to_f32();
    let dmin = F16Le::from_bits(view.dmin as u16).to_f32();
    let groups = view.codes.as_chunks::<GROUP>().0.iter().zip(view.scales).zip(view.mins);
    for (((codes, scale), min), out) in groups.zip(out.as_chunks_mut::<GROUP>().0) {
        let scale = d * (scale as i32 - SCALE_BIAS) as f32;
        let min = dmin * min as f32;
        for (out, &code) in out.iter_mut().zip(codes) {
            let w = scale * (code as i32 - BIAS) as f32;
            *out = if MIN { w - min } else { w };
        }
    }
}

/// Quantizes superblock after superblock with its part of the importance matrix's row.
fn quantize_superblocks<B>(
    row: &[f32],
    importance: Option<&[f32]>,
    blocks: &mut [B],
    quantize: impl Fn(&[f32; SUPERBLOCK], Option<&[f32; SUPERBLOCK]>) -> B,
) {
    for (i, (block, x)) in blocks.iter_mut().zip(row.as_chunks().0).enumerate() {
        *block = quantize(x, importance.and_then(|all| all.as_chunks().0.get(i)));
    }
}
