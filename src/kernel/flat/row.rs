//! Decode from native blocks of 32: lanes are codes of one row, then blocks of that row.
//!
//! Of nibbles a register takes the low ones of LANES / 4 blocks at once, the next one the high ones, so that each block has
//! four lanes; of x, lower and upper halves of blocks lie apart. Other codes are taken in their order, eight lanes to a block.
//!
//! Instructions for 64 products with AVX-512, from the assembly: 13 (Q4_0, Q4_1), a third of them inserts that put blocks and
//! their scales together; with fifth bits 24, of which 10 make masks in general registers. What limits them on Zen 4 are its
//! four vector ports, of which one of 512 bits holds one for two cycles, and its loads, of which one of 512 bits takes 1.3
//! cycles and 1.6 across two lines: 38 cycles for 16 blocks of Q4_0, from L2.

use super::{
    super::{
        Inputs,
        native::{NativeBlock, Window, fill_around},
        packed::UNIT_CODES,
        stream::{SIDE_BY_SIDE, Streams, prefetch, reads_side_by_side},
        tile::FlatTile,
    },
    remaining_bias,
};
use crate::{
    QuantBlock,
    format::Planes,
    simd::{Isa, PANEL_ROWS},
};
use bytemuck::Zeroable;
use core::{mem::MaybeUninit, ops::Range, slice};

/// What blocks meet of x, from the first one on.
#[derive(Clone, Copy)]
pub struct Operand {
    codes: *const u8,
    /// Bytes from a block's lower codes to its upper ones, where registers take these apart.
    upper: usize,
    d: *const f32,
    d_sums: *const f32,
    neg_sums: *const i32,
}

/// The scale of each block; with a minimum, which lies beside it in the block, both in the halves of a lane: one load for
/// the two.
struct Scales {
    d: [u16; PANEL_ROWS],
    both: [u32; PANEL_ROWS],
}

/// What a register's blocks and x's codes make together, before it is added across lanes.
struct Products<I: Isa> {
    /// Of nibbles the first four.
    lanes: [I::V; 8],
    scales: Scales,
    x: Operand,
    terms: *mut f32,
}

/// Whether registers of `F`'s meet x's codes in another order than the row's.
const fn reorders<F: QuantBlock, I: Isa>() -> bool {
    Planes::of::<F>().is_some() && I::LANES > 4
}

/// Bytes from a block's codes to those of the next one, or from its lower codes.
const fn stride<F: QuantBlock, I: Isa>() -> usize {
    if reorders::<F, I>() { UNIT_CODES / 2 } else { UNIT_CODES }
}

impl Operand {
    /// [`IntTile::operand`](super::super::tile::IntTile::operand).
    #[inline(always)]
    pub(super) fn new<F: QuantBlock, I: Isa>(x: &Inputs<'_>, first: usize, window: &mut Window) -> Operand {
        let arrays = &x.arrays;
        let codes = Window::codes_of(x, first * UNIT_CODES);
        let (runs, blocks) = (codes.as_chunks::<{ UNIT_CODES / 2 }>().0, codes.len() / UNIT_CODES);
        let mut operand = Operand {
            codes: codes.as_ptr(),
            upper: UNIT_CODES / 2,
            d: arrays.d.as_ptr().wrapping_add(first),
            d_sums: arrays.d_sums.as_ptr().wrapping_add(first),
            neg_sums: arrays.neg_sums.as_ptr().wrapping_add(first),
        };
        // Registers that take blocks of two rows go around; of the second one, they take fewer than LANES.
        let around = if blocks.is_multiple_of(I::LANES) { 0 } else { I::LANES - 1 };
        let places = blocks + around;
        if const { reorders::<F, I>() } {
            operand.upper = places * UNIT_CODES / 2;
            let (to, _) = window.codes.as_chunks_mut::<{ UNIT_CODES / 2 }>();
            for i in 0..places {
                let block = i % blocks;
                to[i] = runs[2 * block].map(MaybeUninit::new);
                to[places + i] = runs[2 * block + 1].map(MaybeUninit::new);
            }
            operand.codes = window.codes.as_ptr().cast();
        } else if around > 0 {
            fill_around(codes, &mut window.codes[..places * UNIT_CODES]);
            operand.codes = window.codes.as_ptr().cast();
        }
        if around > 0 {
            let numbers = first..first + blocks;
            operand.d = window.around(0, &arrays.d[numbers.clone()], places);
            operand.d_sums = window.around(1, &arrays.d_sums[numbers.clone()], places);
            operand.neg_sums = window.around(2, &arrays.neg_sums[numbers], places);
        }
        operand
    }

    /// From block `block` on.
    #[inline(always)]
    fn from<F: QuantBlock, I: Isa>(self, block: usize) -> Operand {
        Operand {
            codes: self.codes.wrapping_add(block * stride::<F, I>()),
            upper: self.upper,
            d: self.d.wrapping_add(block),
            d_sums: self.d_sums.wrapping_add(block),
            neg_sums: self.neg_sums.wrapping_add(block),
        }
    }
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> FlatTile<BITS, BIAS, MIN> {
    /// [`IntTile::run_terms`](super::super::tile::IntTile::run_terms).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn terms_of_run<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        x: Operand,
        x_blocks: Range<usize>,
        terms: *mut f32,
    ) {
        let part = blocks.len() / SIDE_BY_SIDE;
        let has_parts = blocks.len().is_multiple_of(SIDE_BY_SIDE)
            && part.is_multiple_of(x_blocks.len())
            && part.is_multiple_of(I::LANES);
        // SAFETY: the caller's promise is the same; parts are whole rows and whole registers.
        unsafe {
            if reads_side_by_side::<I>() && has_parts {
                Self::terms_of_parts::<F, I, SIDE_BY_SIDE>(isa, blocks, x, x_blocks, terms);
            } else {
                Self::terms_of_parts::<F, I, 1>(isa, blocks, x, x_blocks, terms);
            }
        }
    }

    /// [`Self::terms_of_run`], with the run's `PARTS` parts read side by side.
    ///
    /// # Safety
    /// As there, and several parts have as many whole rows and whole registers each.
    #[inline(always)]
    unsafe fn terms_of_parts<F: QuantBlock<Tile = Self>, I: Isa, const PARTS: usize>(
        isa: I,
        blocks: &[F::Block],
        x: Operand,
        x_blocks: Range<usize>,
        terms: *mut f32,
    ) {
        let (part, block_bytes) = (blocks.len() / PARTS, size_of::<F::Block>());
        let parts = Streams { first: blocks.as_ptr().cast(), part_bytes: part * block_bytes, count: PARTS };
        let step = I::LANES % x_blocks.len();
        let mut at = x_blocks.start;
        // Adding across lanes is a long chain of instructions. While it waits it keeps those of the next blocks out: it comes
        // after them, where registers can hold it.
        let adds_later = I::LANES > 4;
        let mut waiting = None;
        for first in (0..part - part % I::LANES).step_by(I::LANES) {
            for i in parts.indices::<PARTS>() {
                // SAFETY: the part has a register's blocks there; the rest is the caller's promise.
                unsafe {
                    let (blocks, ahead) = parts.at::<PARTS>(i, first * block_bytes);
                    let blocks = slice::from_raw_parts(blocks.cast::<F::Block>(), I::LANES);
                    let to = terms.add(i * part + first);
                    let products = Self::products::<F, I>(isa, blocks, ahead, x.from::<F, I>(at), to);
                    let before = if adds_later { waiting.replace(products) } else { Some(products) };
                    if let Some(before) = before {
                        Self::finish::<F, I>(isa, before);
                    }
                }
            }
            at += step;
            at -= if at < x_blocks.end { 0 } else { x_blocks.len() };
        }
        if let Some(products) = waiting {
            // SAFETY: as above.
            unsafe { Self::finish::<F, I>(isa, products) };
        }
        let (whole, last) = blocks.split_at(blocks.len() - blocks.len() % I::LANES);
        if !last.is_empty() {
            let mut padded = [F::Block::zeroed(); PANEL_ROWS];
            padded[..last.len()].copy_from_slice(last);
            let ahead = whole.as_ptr_range().end.cast();
            // SAFETY: of a register that nothing follows there is room for all.
            unsafe {
                let (x, to) = (x.from::<F, I>(at), terms.add(whole.len()));
                Self::finish::<F, I>(isa, Self::products::<F, I>(isa, &padded[..I::LANES], ahead, x, to));
            }
        }
    }

    /// The products of `LANES` blocks, whose terms have their place at `terms`; as many bytes at `ahead` are asked for meanwhile.
    ///
    /// # Safety
    /// x has as many.
    #[inline(always)]
    unsafe fn products<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        ahead: *const u8,
        x: Operand,
        terms: *mut f32,
    ) -> Products<I> {
        let scales = Scales { d: [0; PANEL_ROWS], both: [0; PANEL_ROWS] };
        let mut products = Products { lanes: [isa.splat(0); 8], scales, x, terms };
        // SAFETY: the caller's promise.
        unsafe {
            match const { Planes::of::<F>() } {
                Some(planes) => {
                    prefetch(isa, ahead, size_of_val(blocks));
                    Self::multiply_nibbles::<F, I>(isa, blocks, planes, &mut products);
                }
                None => Self::multiply_in_order::<F, I>(isa, blocks, ahead, &mut products),
            }
        }
        products
    }

    /// Keeps the scale, and the minimum if there is one, of block `b`.
    #[inline(always)]
    fn keep(scales: &mut Scales, b: usize, d: u32, m: u32) {
        if MIN {
            scales.both[b] = d & 0xFFFF | m << 16;
        } else {
            scales.d[b] = d as u16;
        }
    }

    /// Eight lanes for each block: its products with x's codes, which are in their order; each block asks for its own bytes at
    /// `ahead`.
    ///
    /// # Safety
    /// x has as many.
    #[inline(always)]
    unsafe fn multiply_in_order<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        ahead: *const u8,
        Products { lanes, scales, x, .. }: &mut Products<I>,
    ) {
        let block_bytes = size_of::<F::Block>();
        // The registers that hold a span of blocks, and the blocks in it.
        let (registers, len) = ((UNIT_CODES / 4).div_ceil(I::LANES), I::LANES.div_ceil(UNIT_CODES / 4));
        // SAFETY: registers of LANES blocks are inside x.
        unsafe {
            for s in 0..8 / registers {
                let mut units = [[0; UNIT_CODES]; 2];
                for b in 0..len {
                    prefetch(isa, ahead.wrapping_add((s * len + b) * block_bytes), block_bytes);
                    let block = NativeBlock::<F>::read(isa, &blocks[s * len + b]);
                    Self::keep(scales, s * len + b, block.view.d, block.view.dmin);
                    units[b] = block.codes().cast::<[u8; UNIT_CODES]>().read();
                }
                for r in 0..registers {
                    let mut sum = [[isa.splat(0)]];
                    let i = s * registers + r;
                    isa.dot::<BITS, 1, 1, 1>(
                        &mut sum,
                        #[inline(always)]
                        |_, _| {
                            let codes = isa.load(units.as_ptr().cast::<u8>().add(r * I::LANES * 4));
                            NativeBlock::<F>::unsigned(isa, codes)
                        },
                        #[inline(always)]
                        |_, _| isa.load(x.codes.add(i * I::LANES * 4)),
                    );
                    lanes[i] = sum[0][0];
                }
            }
        }
    }

    /// Four lanes for each block: its products with x's codes, lower and upper halves apart.
    ///
    /// # Safety
    /// x has as many.
    #[inline(always)]
    unsafe fn multiply_nibbles<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        planes: Planes,
        Products { lanes, scales, x, .. }: &mut Products<I>,
    ) {
        let together = I::LANES / 4;
        for g in 0..4 {
            for b in g * together..(g + 1) * together {
                let [d, m] = F::scales(&blocks[b]);
                Self::keep(scales, b, d, m);
            }
            // SAFETY: the nibbles and the fifth bits are inside the block, registers of x inside x.
            unsafe {
                let pairs = isa.load_sixteens(
                    #[inline(always)]
                    |i| bytes(&blocks[g * together + i]).add(planes.low.at),
                );
                let mask = isa.splat(0x0F0F_0F0F);
                let mut codes = [isa.and(pairs, mask), isa.and(isa.shr(pairs, 4), mask)];
                if let Some(plane) = planes.high {
                    codes = isa.add_sixteens(
                        codes,
                        #[inline(always)]
                        |i| bytes(&blocks[g * together + i]).add(plane.at),
                    );
                }
                let mut sum = [[isa.splat(0)]];
                isa.dot::<BITS, 2, 1, 1>(
                    &mut sum,
                    #[inline(always)]
                    |half, _| codes[half],
                    #[inline(always)]
                    |half, _| isa.load(x.codes.add(g * together * stride::<F, I>() + half * x.upper)),
                );
                lanes[g] = sum[0][0];
            }
        }
    }

    /// The terms of blocks from their products.
    ///
    /// # Safety
    /// x has as many blocks, and `terms` room.
    #[inline(always)]
    unsafe fn finish<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, Products { lanes, scales, x, terms }: Products<I>) {
        let mut sums = match const { Planes::of::<F>() } {
            Some(_) => isa.sum_fours([lanes[0], lanes[1], lanes[2], lanes[3]]),
            None => isa.sum_eights(lanes),
        };
        let bias = const { remaining_bias::<I>(BITS, BIAS) };
        // SAFETY: the arrays have room for a register; the rest is the caller's promise.
        unsafe {
            if bias != 0 {
                sums = isa.add(sums, isa.mul(isa.load(x.neg_sums.cast()), isa.splat(bias)));
            }
            let [d, m] = if MIN {
                isa.widen_f16_halves(isa.load(scales.both.as_ptr().cast()))
            } else {
                [isa.load_f16(scales.d.as_ptr().cast()); 2]
            };
            let sums = isa.add(sums, isa.splat(I::SUM_ORIGIN));
            let mut term = isa.mul_f32(isa.scale_sum(sums, d, isa.scale_origin(d)), isa.load_f32(x.d));
            if MIN {
                term = isa.add_f32(term, isa.mul_f32(m, isa.load_f32(x.d_sums)));
            }
            isa.store_f32(terms, term);
        }
    }
}

/// Where a block starts.
#[inline(always)]
fn bytes<B>(block: &B) -> *const u8 {
    (&raw const *block).cast()
}
