//! Where the microkernels take a block of 16 rows from: a packed tile, unpacked in registers, or a block in scratch.

use super::{
    super::{
        packed::{UNIT_CODES, UNIT_STEPS, unpack_step},
        tile::FlatTile,
    },
    HALVES_BYTES,
};
use crate::simd::{Isa, PANEL_ROWS, VECTOR_BYTES};

/// A block of 16 rows, ready to multiply.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Expanded {
    pub codes: [u8; UNIT_STEPS * VECTOR_BYTES],
    pub d: [f32; PANEL_ROWS],
    /// Of d, as [`Isa::scale_origin`] gives it.
    pub origin: [f32; PANEL_ROWS],
    pub m: [f32; PANEL_ROWS],
}

/// A block's codes and scales, wherever they lie.
pub trait Operands<I: Isa> {
    /// Whether the codes have the bias 128, whatever that of the class is.
    const ONE_BIAS: bool;

    /// Step `step` of the codes of register `i` of rows.
    ///
    /// # Safety
    /// There are such a step and register.
    unsafe fn codes(&self, step: usize, i: usize) -> I::V;

    /// d, its origin and, in a class with minima, m of register `i` of rows.
    ///
    /// # Safety
    /// There is such a register.
    unsafe fn scales(&self, i: usize) -> [I::F; 3];
}

/// The expanded blocks of the panels that a register tile covers; that of the next panel is `stride` behind.
pub struct ExpandedBlock<I, const MIN: bool> {
    pub isa: I,
    pub first: *const Expanded,
    pub stride: usize,
}

impl<I: Isa, const MIN: bool> ExpandedBlock<I, MIN> {
    #[inline(always)]
    fn block(&self, i: usize) -> *const Expanded {
        self.first.wrapping_add(i / I::REGISTERS * self.stride)
    }
}

impl<I: Isa, const MIN: bool> Operands<I> for ExpandedBlock<I, MIN> {
    const ONE_BIAS: bool = I::WHOLE_BYTES;

    #[inline(always)]
    unsafe fn codes(&self, step: usize, i: usize) -> I::V {
        let row = i % I::REGISTERS * I::LANES;
        // SAFETY: the blocks are expanded; there are eight steps, and rows end at 16.
        unsafe { self.isa.load((&raw const (*self.block(i)).codes).cast::<u8>().add(step * VECTOR_BYTES + row * 4)) }
    }
    #[inline(always)]
    unsafe fn scales(&self, i: usize) -> [I::F; 3] {
        let (block, row) = (self.block(i), i % I::REGISTERS * I::LANES);
        // SAFETY: the blocks are expanded; rows end at 16.
        unsafe {
            let d = self.isa.load_f32((&raw const (*block).d).cast::<f32>().add(row));
            let m = if MIN { self.isa.load_f32((&raw const (*block).m).cast::<f32>().add(row)) } else { d };
            [d, self.isa.load_f32((&raw const (*block).origin).cast::<f32>().add(row)), m]
        }
    }
}

/// A packed block, of which the rows from `row` on are wanted, for `NR` columns.
pub struct PackedBlock<I, const BITS: u32, const BIAS: i32, const MIN: bool, const NR: usize> {
    pub isa: I,
    pub tile: *const u8,
    pub row: usize,
}

impl<I: Isa, const BITS: u32, const BIAS: i32, const MIN: bool, const NR: usize> Operands<I>
    for PackedBlock<I, BITS, BIAS, MIN, NR>
{
    const ONE_BIAS: bool = FlatTile::<BITS, BIAS, MIN>::starts_packed::<I>(NR);

    #[inline(always)]
    unsafe fn codes(&self, step: usize, i: usize) -> I::V {
        // SAFETY: the unit is the first of the tile; a register's rows end at 16.
        let codes = unsafe {
            unpack_step::<I, BITS, UNIT_CODES>(self.isa, self.tile.add((self.row + i * I::LANES) * 4), step, 0)
        };
        if Self::ONE_BIAS { FlatTile::<BITS, BIAS, MIN>::to_one_bias(self.isa, codes) } else { codes }
    }
    #[inline(always)]
    unsafe fn scales(&self, i: usize) -> [I::F; 3] {
        // SAFETY: the scales are behind the codes, the minima behind them; a register's rows end at 16.
        unsafe {
            let scales = self.tile.add(FlatTile::<BITS, BIAS, MIN>::CODES_BYTES + (self.row + i * I::LANES) * 2);
            let d = self.isa.load_f16(scales);
            let m = if MIN { self.isa.load_f16(scales.add(HALVES_BYTES)) } else { d };
            [d, self.isa.scale_origin(d), m]
        }
    }
}
