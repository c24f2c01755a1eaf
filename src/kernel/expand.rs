//! Native blocks of 16 rows, expanded for the microkernels.
//!
//! Codes of small blocks that lie in planes of bits, and signed bytes, come from the rows' bytes as they lie: these are
//! transposed, and the bits become codes with lanes as rows. Those of other formats become the integer view first.

use super::{prefetch::LINE_BYTES, prefetch::prefetch, tile::IntTile, tile::Tile};
use crate::{
    QuantBlock,
    format::{BlockCodes, Planes, signed_codes_at},
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::{hint::black_box, marker::PhantomData};

/// Bytes of each row that are transposed at once.
const PIECE: usize = 16;
/// Steps of codes that a piece of bytes, or of some bits of them, makes.
const PIECE_STEPS: usize = PIECE / 4;

/// Expands the blocks of 16 rows, and asks for those that lie `ahead` blocks behind.
///
/// # Safety
/// Each row has as many blocks as the first, for which there is room at `out`.
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
            let blocks = Blocks::<F, I> { isa, rows, block, ahead, steps: out.cast(), format: PhantomData };
            blocks.read(&mut views);
            match const { CodesAt::of::<F>() } {
                CodesAt::Bytes(at) => blocks.signed(at),
                CodesAt::Nibbles(planes) => blocks.nibbles(planes),
                CodesAt::View => blocks.viewed(&views),
            }
            T::expand_scales::<I, FOLDED>(isa, &views, out);
        }
    }
}

/// Where codes are taken from.
enum CodesAt {
    /// Signed bytes of the block, from this one on.
    Bytes(usize),
    /// Nibbles, and fifth bits, of a block of 32.
    Nibbles(Planes),
    /// The integer view: rows of superblocks come faster one after the other, so that they wait for memory in turn.
    View,
}

impl CodesAt {
    const fn of<F: QuantBlock>() -> CodesAt {
        match (signed_codes_at::<F>(), Planes::of::<F>()) {
            (Some(at), _) => CodesAt::Bytes(at),
            (_, Some(planes)) if F::BLOCK == 32 => CodesAt::Nibbles(planes),
            _ => CodesAt::View,
        }
    }
}

/// A block of each of 16 rows, and where its expanded codes go.
struct Blocks<'a, F: QuantBlock, I> {
    isa: I,
    rows: &'a [&'a [F::Block]; PANEL_ROWS],
    block: usize,
    /// From the block to the one that is asked for meanwhile, in blocks.
    ahead: isize,
    steps: *mut u8,
    format: PhantomData<F>,
}

impl<F: QuantBlock<Tile: IntTile>, I: Isa> Blocks<'_, F, I> {
    /// Small blocks, as many as a line holds, are asked for at once.
    const ASKED_AT_ONCE: usize = {
        let blocks = LINE_BYTES / size_of::<F::Block>();
        if blocks > 1 { blocks } else { 1 }
    };

    /// The block of a row.
    ///
    /// # Safety
    /// `row` is below 16.
    #[inline(always)]
    unsafe fn block(&self, row: usize) -> *const F::Block {
        // SAFETY: the caller's promise, and rows have the block.
        unsafe { self.rows.get_unchecked(row).as_ptr().add(self.block) }
    }

    /// Asks for what lies ahead of the block of a row.
    ///
    /// # Safety
    /// `row` is below 16.
    #[inline(always)]
    unsafe fn ask(&self, row: usize) {
        // SAFETY: the caller's promise.
        let next = unsafe { self.block(row) }.wrapping_offset(self.ahead);
        prefetch(self.isa, next.cast(), Self::ASKED_AT_ONCE * size_of::<F::Block>());
    }

    /// Reads the views of the blocks, without codes that lie in them.
    ///
    /// # Safety
    /// The rows have the block.
    #[inline(always)]
    unsafe fn read(&self, views: &mut [BlockCodes; PANEL_ROWS]) {
        let asks = self.block.is_multiple_of(Self::ASKED_AT_ONCE);
        for (row, view) in views.iter_mut().enumerate() {
            // SAFETY: there are 16 rows.
            let block = unsafe {
                if asks {
                    self.ask(row);
                }
                &*self.block(row)
            };
            if !matches!(const { CodesAt::of::<F>() }, CodesAt::View) && F::Tile::GROUP == F::BLOCK {
                [view.d, view.dmin] = F::scales(block);
            } else {
                F::codes(block, view);
            }
        }
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
