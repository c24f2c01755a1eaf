//! The formats that are no quantization: f32, f16 and bf16, a weight to a block.

use super::le::{Bf16Le, F16Le, F32Le};
use super::{BlockCodes, QuantBlock};
use crate::kernel::{FloatTile, Tile};
use bytemuck::Pod;
use core::fmt::Debug;
use core::marker::PhantomData;

/// A floating-point format whose weights are `E`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Float<E>(PhantomData<E>);

/// GGUF's `F32`.
pub type F32 = Float<F32Le>;
/// GGUF's `F16`: quantizing rounds to nearest, ties to even; beyond ±65504 it gives an infinity.
pub type F16 = Float<F16Le>;
/// GGUF's `BF16`: quantizing rounds to nearest, ties to even.
pub type BF16 = Float<Bf16Le>;

/// What tells the floating-point formats apart.
pub trait FloatElement: Pod + Default + Debug + Send + Sync {
    /// The format's name as GGUF spells it.
    const NAME: &'static str;
    /// The layout class.
    type Tile: Tile;
    /// The nearest value of this type.
    fn from_f32(value: f32) -> Self;
    /// Its value, exactly.
    fn to_f32(self) -> f32;
}

impl<E: FloatElement> QuantBlock for Float<E> {
    const NAME: &'static str = E::NAME;
    const BLOCK: usize = 1;
    type Block = E;
    type Tile = E::Tile;

    #[inline(always)]
    fn dequantize(block: &E, out: &mut [f32]) {
        if let Some(out) = out.first_mut() {
            *out = block.to_f32();
        }
    }

    fn quantize(row: &[f32], _importance: Option<&[f32]>, blocks: &mut [E]) {
        for (block, &weight) in blocks.iter_mut().zip(row) {
            *block = E::from_f32(weight);
        }
    }

    #[inline(always)]
    fn codes(_block: &E, _out: &mut BlockCodes) {}
}

impl FloatElement for F32Le {
    const NAME: &'static str = "F32";
    type Tile = FloatTile<32, 8>;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        F32Le::from_f32(value)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        F32Le::to_f32(self)
    }
}

impl FloatElement for F16Le {
    const NAME: &'static str = "F16";
    type Tile = FloatTile<16, 5>;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        F16Le::from_f32(value)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        F16Le::to_f32(self)
    }
}

impl FloatElement for Bf16Le {
    const NAME: &'static str = "BF16";
    type Tile = FloatTile<16, 8>;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Bf16Le::from_f32(value)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        Bf16Le::to_f32(self)
    }
}
