//! Quantization formats: one zero-sized type per GGUF type, one file per family.
//!
//! A format says only what is its own: its block as it lies in the file, `dequantize` (the oracle for everything
//! else), `quantize`, and `codes`: how a block becomes small integers with a scale and a minimum per group. Kernels,
//! packing, tests and benches follow from that.

mod float;
mod k_quant;
mod le;
mod legacy;
mod planes;
mod registry;
mod row;
mod search;
mod swar;

pub use float::{BF16, F16, F32, Float, FloatElement};
pub use k_quant::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, BlockQ8K, Q2K, Q3K, Q4K, Q5K, Q6K, Q8K};
pub use le::{Bf16Le, F16Le, F32Le, I16Le};
pub use legacy::{
    BlockLegacy, BlockQ40, BlockQ41, BlockQ50, BlockQ51, BlockQ80, Legacy, LegacyBlock, LegacyKind, Q40, Q41, Q50, Q51,
    Q80,
};
pub(crate) use planes::signed_codes_at;
pub use planes::{Plane, Planes};
pub use row::{dequantize_row, quantize_row, row_bytes};

use crate::kernel::Tile;
use bytemuck::Pod;

/// The integer view of one block, as a kernel wants it: `w = d · scale · (code − BIAS) − dmin · min`.
///
/// `BIAS` is a constant of the format's [`Tile`]. Only the first `BLOCK` codes and the first `BLOCK / GROUP` scales and
/// mins mean anything; a tile without group scales reads none of them.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct BlockCodes {
    /// Unsigned codes in the order of the weights.
    pub codes: [u8; 256],
    /// Integer scale of each group, as stored: above the tile's bias of scales.
    pub scales: [u8; 16],
    /// Integer minimum of each group.
    pub mins: [u8; 16],
    /// Bits of the block's scale: an f16 in the low half or an f32, as the tile says.
    pub d: u32,
    /// Bits of the f16 that multiplies the mins (in a tile of 32-blocks: added as it is).
    pub dmin: u32,
    /// So that `d` starts 32 readable bytes, which kernels interleave at once.
    pad: [u32; 6],
}

impl Default for BlockCodes {
    fn default() -> Self {
        BlockCodes { codes: [0; 256], scales: [0; 16], mins: [0; 16], d: 0, dmin: 0, pad: [0; 6] }
    }
}

/// A quantization format: a zero-sized type that knows its block and how to read and write it.
pub trait QuantBlock: Copy + Default + core::fmt::Debug + Send + Sync + 'static {
    /// The name as GGUF spells it, for example `Q4_K`.
    const NAME: &'static str;
    /// Weights in a block: 32 or 256 (1 for the float formats).
    const BLOCK: usize;
    /// A block as it lies in the file: no padding, alignment 1, so that it can be read at any address.
    type Block: Pod + Send + Sync;
    /// The layout class that the kernels run this format in.
    type Tile: Tile;
    /// Where in a block all its codes lie in order as signed bytes, `code − 128`, if they do: decode reads them there.
    /// Of no use to tiles whose groups have scales of their own.
    const SIGNED_CODES_AT: Option<usize> = None;
    /// Where the bits of a block's codes lie, if they lie in planes: kernels take them from there.
    const PLANES: Option<Planes> = None;

    /// Writes the `BLOCK` weights of `block` to `out`, bit for bit as ggml does.
    ///
    /// `out` has exactly `BLOCK` elements.
    fn dequantize(block: &Self::Block, out: &mut [f32]);

    /// Quantizes a whole row, byte for byte as ggml does; `row.len() == blocks.len() * BLOCK`.
    ///
    /// `importance`, where given, holds one weight per column (as long as `row`): an importance matrix's row.
    ///
    /// NaN and infinities give some block or other (the same one each time) and no panic; ggml's bytes are meant for finite
    /// weights whose scale an f16 can hold.
    fn quantize(row: &[f32], importance: Option<&[f32]>, blocks: &mut [Self::Block]);

    /// Writes the integer view of `block`. Float formats never see this call.
    fn codes(block: &Self::Block, out: &mut BlockCodes);

    /// `d` and `dmin` of the integer view alone.
    #[inline(always)]
    fn scales(block: &Self::Block) -> [u32; 2] {
        let mut out = BlockCodes::default();
        Self::codes(block, &mut out);
        [out.d, out.dmin]
    }
}
