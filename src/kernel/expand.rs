//! Native blocks of 16 rows, expanded for the microkernels.
//!
//! Codes that lie in planes of bits, or as signed bytes, come from the rows' bytes as they lie: these are transposed, and the
//! bits become codes with lanes as rows. Those of other formats become the integer view first.

use super::{prefetch::LINE_BYTES, prefetch::prefetch, tile::IntTile, tile::Tile};
use crate::{
    QuantBlock,
    format::{BlockCodes, Planes},
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::{hint::black_box, marker::PhantomData};

/// Bytes of each row that are transposed at once.
const PIECE: usize = 16;
/// Steps of codes that a piece of bytes, or of some bits of them, makes.
const PIECE_STEPS: usize = PIECE / 4;

/// What a block of each of 16 rows has beside codes.
pub struct RowScales {
    /// Integer scales of groups, as stored.
    pub scales: [[u8; 16]; PANEL_ROWS],
    /// Integer minima of groups.
    pub mins: [[u8; 16]; PANEL_ROWS],
    /// [`BlockCodes::d`].
    pub d: [u32; PANEL_ROWS],
    /// [`BlockCodes::dmin`].
    pub dmin: [u32; PANEL_ROWS],
}

/// Expands the blocks of 16 rows, which have as many each, and asks for those that lie `ahead` blocks behind.
///
/// # Safety
/// `out` has room for as many blocks as a row has.
#[inline(always)]
pub(super) unsafe fn expand_rows<F: QuantBlock<Tile = T>, T: IntTile, I: Isa, const FOLDED: bool>(
    isa: I,
    rows: &[&[F::Block]; PANEL_ROWS],
    ahead: isize,
    out: *mut T::Expanded,
) {
    let mut views = [BlockCodes::default(); PANEL_ROWS];
    for block in 0..rows[0].len() {
        // Left to itself the compiler counts 16 addresses up, most of which it spills.
        let block = black_box(block);
        // SAFETY: the caller vouches for `out`; rows have this block.
        unsafe {
            let out = out.add(block);
            let blocks = Blocks::<F, I> { isa, rows, block, steps: out.cast(), format: PhantomData };
            blocks.prefetch(ahead);
            let scales = blocks.scales(&mut views);
            if let Some(at) = F::SIGNED_CODES_AT {
                blocks.signed(at);
            } else if let Some(planes) = const { Planes::of::<F>() } {
                if F::BLOCK == 32 { blocks.nibbles(planes) } else { blocks.planes(planes) }
            } else {
                blocks.viewed(&views);
            }
            T::expand_scales::<I, FOLDED>(isa, &scales, out);
        }
    }
}

/// A block of each of 16 rows, and where its expanded codes go.
struct Blocks<'a, F: QuantBlock, I> {
    isa: I,
    rows: &'a [&'a [F::Block]; PANEL_ROWS],
    block: usize,
    steps: *mut u8,
    format: PhantomData<F>,
}

impl<F: QuantBlock<Tile: IntTile>, I: Isa> Blocks<'_, F, I> {
    /// The block of a row.
    ///
    /// # Safety
    /// `row` is below 16.
    #[inline(always)]
    unsafe fn block(&self, row: usize) -> *const F::Block {
        // SAFETY: the caller's promise, and rows have the block.
        unsafe { self.rows.get_unchecked(row).as_ptr().add(self.block) }
    }

    /// Asks for the blocks that lie `ahead` blocks behind.
    ///
    /// # Safety
    /// The rows have the block.
    #[inline(always)]
    unsafe fn prefetch(&self, ahead: isize) {
        // Of smaller blocks the CPU finds the way by itself.
        if size_of::<F::Block>() >= LINE_BYTES {
            for row in 0..PANEL_ROWS {
                // SAFETY: there are 16 rows.
                let next = unsafe { self.block(row) }.wrapping_offset(ahead);
                prefetch(self.isa, next.cast(), size_of::<F::Block>());
            }
        }
    }

    /// Scales and minima of the blocks, and the whole view of those whose codes do not lie in the block.
    ///
    /// # Safety
    /// The rows have the block.
    #[inline(always)]
    unsafe fn scales(&self, views: &mut [BlockCodes; PANEL_ROWS]) -> RowScales {
        let in_place = F::SIGNED_CODES_AT.is_some() || F::PLANES.is_some();
        let none = [[0; 16]; PANEL_ROWS];
        let mut scales = RowScales { scales: none, mins: none, d: [0; PANEL_ROWS], dmin: [0; PANEL_ROWS] };
        for row in 0..PANEL_ROWS {
            // SAFETY: there are 16 rows.
            let block = unsafe { &*self.block(row) };
            if in_place && F::Tile::GROUP == F::BLOCK {
                [scales.d[row], scales.dmin[row]] = F::scales(block);
                continue;
            }
            // Codes of its own nobody reads, so that nothing makes them.
            let mut own = BlockCodes::default();
            let view = if in_place { &mut own } else { &mut views[row] };
            F::codes(block, view);
            (scales.scales[row], scales.mins[row]) = (view.scales, view.mins);
            (scales.d[row], scales.dmin[row]) = (view.d, view.dmin);
        }
        scales
    }

    /// Bytes `at` to `at + 15` of the blocks of the rows from `first` on.
    ///
    /// # Safety
    /// The block has them.
    #[inline(always)]
    unsafe fn piece(&self, first: usize, at: usize) -> [I::V; PIECE_STEPS] {
        // SAFETY: the caller's promise; a register's rows end at 16.
        unsafe {
            self.isa.transpose_rows(
                #[inline(always)]
                |row| self.block(first + row).cast::<u8>().add(at),
            )
        }
    }

    /// Stores codes `4 · step` to `4 · step + 3` of the rows from `first` on.
    ///
    /// # Safety
    /// An expanded block has the step, and a register's rows end at 16.
    #[inline(always)]
    unsafe fn store(&self, first: usize, step: usize, codes: I::V) {
        let codes = F::Tile::expanded_codes(self.isa, codes);
        // SAFETY: the caller's promise.
        unsafe { self.isa.store(self.steps.add(step * VECTOR_BYTES + first * 4), codes) };
    }

    /// Codes that lie as signed bytes from byte `at` on.
    ///
    /// # Safety
    /// The expanded block is writable.
    #[inline(always)]
    unsafe fn signed(&self, at: usize) {
        const {
            if let Some(at) = F::SIGNED_CODES_AT {
                assert!(at + F::BLOCK <= size_of::<F::Block>());
            }
        }
        let sign = self.isa.splat(0x8080_8080u32 as i32);
        for piece in 0..F::BLOCK / PIECE {
            for first in (0..PANEL_ROWS).step_by(I::LANES) {
                // SAFETY: the block has all its codes.
                unsafe {
                    for (i, codes) in self.piece(first, at + piece * PIECE).into_iter().enumerate() {
                        self.store(first, piece * PIECE_STEPS + i, self.isa.xor(codes, sign));
                    }
                }
            }
        }
    }

    /// Nibbles, and fifth bits, of a block of 32.
    ///
    /// # Safety
    /// The expanded block is writable.
    #[inline(always)]
    unsafe fn nibbles(&self, planes: Planes) {
        let (isa, mask) = (self.isa, self.isa.splat(0x0F0F_0F0F));
        for first in (0..PANEL_ROWS).step_by(I::LANES) {
            // SAFETY: the block has 16 bytes from the start of either plane on.
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
                        self.store(first, step, codes);
                    }
                }
            }
        }
    }

    /// Planes of a superblock.
    ///
    /// # Safety
    /// The expanded block is writable.
    #[inline(always)]
    unsafe fn planes(&self, planes: Planes) {
        let (isa, low) = (self.isa, planes.low);
        let mask = |bits: u8| isa.splat(0x0101_0101 * bits as i32);
        // Codes whose high bits lie in the same chunk.
        let span = if let Some(high) = planes.high { high.span() } else { F::BLOCK };
        for first in (0..PANEL_ROWS).step_by(I::LANES) {
            for start in (0..F::BLOCK).step_by(span) {
                for within in [0, PIECE] {
                    // SAFETY: planes lie inside the block, and an expanded one has 64 steps.
                    unsafe {
                        let high = planes.high.map(
                            #[inline(always)]
                            |plane| self.piece(first, plane.place(start + within).0),
                        );
                        let bytes = span * low.bits as usize / 8;
                        for byte in (within..bytes).step_by(2 * PIECE) {
                            let pieces = self.piece(first, low.at + start * low.bits as usize / 8 + byte);
                            let code = start + byte / low.stride * low.span() + byte % low.stride;
                            for part in 0..8 / low.bits {
                                let code = code + part as usize * low.stride;
                                for (i, &piece) in pieces.iter().enumerate() {
                                    let mut codes = isa.and(isa.shr(piece, part * low.bits), mask(low.mask()));
                                    if let (Some(plane), Some(high)) = (planes.high, high) {
                                        let bits = isa.and(isa.shr(high[i], plane.place(code).1), mask(plane.mask()));
                                        codes = isa.or(codes, isa.shl(bits, low.bits));
                                    }
                                    self.store(first, code / 4 + i, codes);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Codes of the integer view.
    ///
    /// # Safety
    /// The expanded block is writable.
    #[inline(always)]
    unsafe fn viewed(&self, views: &[BlockCodes; PANEL_ROWS]) {
        for piece in 0..F::BLOCK / PIECE {
            for first in (0..PANEL_ROWS).step_by(I::LANES) {
                // SAFETY: a view has 256 codes, a register's rows end at 16.
                unsafe {
                    let steps = self.isa.transpose_rows(
                        #[inline(always)]
                        |row| views.get_unchecked(first + row).codes.as_ptr().add(piece * PIECE),
                    );
                    for (i, codes) in steps.into_iter().enumerate() {
                        self.store(first, piece * PIECE_STEPS + i, codes);
                    }
                }
            }
        }
    }
}
