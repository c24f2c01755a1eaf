//! Native blocks of 16 rows, whose codes become registers with lanes of rows.

use super::{
    packed::{UNIT_CODES, UNIT_STEPS},
    tile::Tile,
};
use crate::{
    QuantBlock,
    format::{BlockCodes, Planes, signed_codes_at},
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::marker::PhantomData;

/// Codes of a block, at most.
const MAX_BLOCK: usize = 256;
/// Bytes of each row that are transposed at once.
pub const PIECE: usize = 16;
/// Steps of codes that a piece of bytes, or of some bits of them, makes.
pub const PIECE_STEPS: usize = PIECE / 4;

/// Where codes are taken from.
pub enum CodesAt {
    /// Signed bytes of the block, from this one on.
    Bytes(usize),
    /// Nibbles, and fifth bits, of a block of 32.
    Nibbles(Planes),
    /// The integer view.
    View,
}

impl CodesAt {
    pub const fn of<F: QuantBlock>() -> CodesAt {
        match (signed_codes_at::<F>(), Planes::of::<F>()) {
            (Some(at), _) => CodesAt::Bytes(at),
            (_, Some(planes)) if F::BLOCK == 32 => CodesAt::Nibbles(planes),
            _ => CodesAt::View,
        }
    }
}

/// A block of each of 16 rows.
pub struct RowBlocks<'a, F: QuantBlock, I> {
    isa: I,
    rows: &'a [&'a [F::Block]; PANEL_ROWS],
    block: usize,
    format: PhantomData<F>,
}

impl<'a, F: QuantBlock, I: Isa> RowBlocks<'a, F, I> {
    /// Block `block` of the rows.
    ///
    /// # Safety
    /// All rows have it.
    #[inline(always)]
    pub unsafe fn new(isa: I, rows: &'a [&'a [F::Block]; PANEL_ROWS], block: usize) -> Self {
        RowBlocks { isa, rows, block, format: PhantomData }
    }

    /// The block of a row.
    ///
    /// # Safety
    /// `row` is below 16.
    #[inline(always)]
    pub unsafe fn block(&self, row: usize) -> *const F::Block {
        // SAFETY: the caller's promise, and that of `new`.
        unsafe { self.rows.get_unchecked(row).as_ptr().add(self.block) }
    }

    /// Reads what the integer view of a row's block has beside codes.
    ///
    /// # Safety
    /// `row` is below 16.
    #[inline(always)]
    pub unsafe fn read_scales(&self, row: usize, view: &mut BlockCodes) {
        // SAFETY: the caller's promise, and that of `new`.
        let block = unsafe { &*self.block(row) };
        if F::Tile::GROUP == F::BLOCK {
            [view.d, view.dmin] = F::scales(block);
            return;
        }
        // The compiler leaves out what makes the codes.
        let mut read = BlockCodes::default();
        F::codes(block, &mut read);
        (view.d, view.dmin, view.scales, view.mins) = (read.d, read.dmin, read.scales, read.mins);
    }

    /// Bytes `at` to `at + 15` of the blocks of the rows from `first` on.
    ///
    /// # Safety
    /// The block has them, and a register's rows end at 16.
    #[inline(always)]
    unsafe fn piece(&self, first: usize, at: usize) -> [I::V; PIECE_STEPS] {
        // SAFETY: the caller's promise.
        unsafe {
            self.isa.transpose_rows(
                #[inline(always)]
                |row| self.block(first + row).cast::<u8>().add(at),
            )
        }
    }

    /// Writes the steps of the block's codes, of which `finish` makes something else, or nothing if they are in no place that
    /// [`CodesAt`] knows.
    ///
    /// # Safety
    /// The steps of a block are writable at `steps`.
    #[inline(always)]
    pub unsafe fn codes(&self, steps: *mut u8, finish: impl Fn(I::V) -> I::V) {
        // SAFETY: the caller's promise, and codes lie there.
        unsafe {
            match const { CodesAt::of::<F>() } {
                CodesAt::Bytes(at) => self.signed(at, steps, finish),
                CodesAt::Nibbles(planes) => self.nibbles(planes, steps, finish),
                CodesAt::View => {}
            }
        }
    }

    /// Codes that lie as signed bytes from byte `at` on.
    ///
    /// # Safety
    /// As [`Self::codes`].
    #[inline(always)]
    unsafe fn signed(&self, at: usize, steps: *mut u8, finish: impl Fn(I::V) -> I::V) {
        let sign = self.isa.splat(0x8080_8080u32 as i32);
        // SAFETY: the block has all its codes, and the steps are the caller's.
        unsafe {
            self.turn(
                at,
                F::BLOCK,
                steps,
                #[inline(always)]
                |codes| finish(self.isa.xor(codes, sign)),
            );
        }
    }

    /// Writes `bytes` bytes of the blocks, whole pieces from byte `at` on, with lanes of rows: four of each row in a vector, of
    /// which `finish` makes something else.
    ///
    /// # Safety
    /// The block has them, and there is room for them at `out`.
    #[inline(always)]
    pub unsafe fn turn(&self, at: usize, bytes: usize, out: *mut u8, finish: impl Fn(I::V) -> I::V) {
        for piece in 0..bytes / PIECE {
            for first in (0..PANEL_ROWS).step_by(I::LANES) {
                // SAFETY: the caller's promise; a register's rows end at 16.
                unsafe {
                    for (i, bytes) in self.piece(first, at + piece * PIECE).into_iter().enumerate() {
                        self.isa.store(place(out, piece * PIECE_STEPS + i, first), finish(bytes));
                    }
                }
            }
        }
    }

    /// Nibbles, and fifth bits, of a block of 32.
    ///
    /// # Safety
    /// As [`Self::codes`].
    #[inline(always)]
    unsafe fn nibbles(&self, planes: Planes, steps: *mut u8, finish: impl Fn(I::V) -> I::V) {
        let (isa, mask) = (self.isa, self.isa.splat(0x0F0F_0F0F));
        for first in (0..PANEL_ROWS).step_by(I::LANES) {
            // SAFETY: the block has 16 bytes from the start of either plane on, and the steps are the caller's.
            unsafe {
                let bits = planes.high.map(
                    #[inline(always)]
                    |plane| self.piece(first, plane.at)[0],
                );
                let nibbles = self.piece(first, planes.low.at);
                for half in 0..2 {
                    for (i, &nibbles) in nibbles.iter().enumerate() {
                        let step = half * PIECE_STEPS + i;
                        let mut codes = isa.and(isa.shr(nibbles, 4 * half as u32), mask);
                        if let Some(bits) = bits {
                            // Each of four bits to bit 4 of its byte: the products do not overlap.
                            let four = isa.and(isa.shr(bits, 4 * step as u32), isa.splat(0xF));
                            let fifth = isa.and(isa.mul(four, isa.splat(0x0204_0810)), isa.splat(0x1010_1010));
                            codes = isa.or(codes, fifth);
                        }
                        isa.store(place(steps, step, first), finish(codes));
                    }
                }
            }
        }
    }
}

/// What `finish` is of codes that are to stay as they are.
#[inline(always)]
pub fn same<V>(codes: V) -> V {
    codes
}

/// Where the codes of step `step` lie, of rows from `first` on.
#[inline(always)]
pub fn place(steps: *mut u8, step: usize, first: usize) -> *mut u8 {
    steps.wrapping_add(step * VECTOR_BYTES + first * 4)
}

/// Eight steps of codes of 16 rows: for each step four codes of each row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct UnitSteps(pub [[u8; VECTOR_BYTES]; UNIT_STEPS]);

impl UnitSteps {
    pub const ZERO: UnitSteps = UnitSteps([[0; VECTOR_BYTES]; UNIT_STEPS]);
}

/// The steps of all codes that a block may have.
#[derive(Debug, Clone, Copy)]
pub struct Steps([UnitSteps; MAX_BLOCK / UNIT_CODES]);

impl Steps {
    pub const ZERO: Steps = Steps([UnitSteps::ZERO; MAX_BLOCK / UNIT_CODES]);

    /// Those of a unit that a block may have.
    #[inline(always)]
    pub fn unit(&self, unit: usize) -> &UnitSteps {
        &self.0[unit]
    }
}
