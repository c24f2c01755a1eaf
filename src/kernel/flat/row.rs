//! Decode from native blocks of 32: lanes are codes of one row, then blocks of that row.
//!
//! Of nibbles a register takes the low ones of LANES / 4 blocks at once, the next one the high ones, so that each block has
//! four lanes; of x, codes lie in the same order. Other codes are taken in their order, eight lanes to a block.
//!
//! Instructions for 64 products with AVX-512, from the assembly: 11.4 (Q4_0) and 11.9 (Q4_1), a third of them inserts that put
//! blocks and their scales together. What limits them on Zen 4 are its four vector ports, of which one of 512 bits holds one for
//! two cycles: 43 cycles for 16 blocks of Q4_0, from L2.

use super::{
    super::{
        Inputs,
        native::{self, NativeBlock, TERMS, Window},
        packed::UNIT_CODES,
        prefetch::prefetch_ahead,
        tile::FlatTile,
    },
    remaining_bias,
};
use crate::{
    QuantBlock,
    format::Planes,
    simd::{Isa, PANEL_ROWS},
};

/// What blocks that end a row meet of x: its last blocks, once for each of as many rows as fill a register.
#[repr(C, align(64))]
pub struct Tail {
    codes: [[i8; UNIT_CODES]; PANEL_ROWS],
    d: [f32; PANEL_ROWS],
    d_sums: [f32; PANEL_ROWS],
    neg_sums: [i32; PANEL_ROWS],
}

/// Codes, scales, and sums scaled and negated of blocks of x.
#[derive(Clone, Copy)]
struct Operand {
    codes: *const u8,
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

/// Whether registers of `F`'s meet x's codes in another order than the row's.
const fn reorders<F: QuantBlock, I: Isa>() -> bool {
    Planes::of::<F>().is_some() && I::LANES > 4
}

/// x's codes from block `first` on as registers of `F`'s meet them; where code 0 would be.
#[inline(always)]
pub(super) fn order<F: QuantBlock, I: Isa>(x: &Inputs<'_>, first: usize, window: &mut Window) -> *const u8 {
    if const { reorders::<F, I>() } {
        window.fill::<{ UNIT_CODES / 2 }>(x, first * UNIT_CODES, I::LANES / 4, 2)
    } else {
        x.arrays.codes.as_ptr().cast()
    }
}

impl Tail {
    /// [`IntTile::tail`](super::super::tile::IntTile::tail).
    #[inline(always)]
    pub(super) fn new<F: QuantBlock, I: Isa>(x: &Inputs<'_>, len: usize) -> Tail {
        let mut tail = Tail {
            codes: [[0; UNIT_CODES]; PANEL_ROWS],
            d: [0.0; PANEL_ROWS],
            d_sums: [0.0; PANEL_ROWS],
            neg_sums: [0; PANEL_ROWS],
        };
        let blocks = x.k / UNIT_CODES;
        let last = blocks - len..blocks;
        let codes: &[i8] =
            bytemuck::cast_slice(&x.arrays.codes[last.start * UNIT_CODES / 4..last.end * UNIT_CODES / 4]);
        for at in (0..I::LANES / len * len).step_by(len) {
            tail.codes[at..at + len].as_flattened_mut().copy_from_slice(codes);
            tail.d[at..at + len].copy_from_slice(&x.arrays.d[last.clone()]);
            tail.d_sums[at..at + len].copy_from_slice(&x.arrays.d_sums[last.clone()]);
            tail.neg_sums[at..at + len].copy_from_slice(&x.arrays.neg_sums[last.clone()]);
        }
        if const { reorders::<F, I>() } {
            let codes = tail.codes;
            let codes = bytemuck::cast_slice(codes.as_flattened());
            let to = tail.codes.as_flattened_mut().as_mut_ptr().cast();
            // SAFETY: there is room for as many.
            unsafe { native::interleave_runs::<{ UNIT_CODES / 2 }>(codes, to, I::LANES / 4, 2) };
        }
        tail
    }

    /// All of it.
    #[inline(always)]
    fn operand(&self) -> Operand {
        Operand {
            codes: self.codes.as_ptr().cast(),
            d: self.d.as_ptr(),
            d_sums: self.d_sums.as_ptr(),
            neg_sums: self.neg_sums.as_ptr(),
        }
    }
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> FlatTile<BITS, BIAS, MIN> {
    /// [`IntTile::row_terms`](super::super::tile::IntTile::row_terms): row by row, then what is left of several rows at once.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn terms_of_rows<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        rows: &[&[F::Block]],
        (x, codes): (&Inputs<'_>, *const u8),
        first: usize,
        tail: Option<&Tail>,
        terms: *mut f32,
    ) -> usize {
        let len = rows[0].len();
        let whole = len - len % I::LANES;
        for (row, blocks) in rows.iter().enumerate() {
            for (i, blocks) in blocks[..whole].chunks_exact(I::LANES).enumerate() {
                let at = first + i * I::LANES;
                ask_ahead::<F, I>(isa, blocks);
                // SAFETY: x has as many blocks from there on, and the terms are a row's.
                unsafe {
                    let x = Operand {
                        codes: codes.wrapping_add(at * UNIT_CODES),
                        d: x.arrays.d.as_ptr().add(at),
                        d_sums: x.arrays.d_sums.as_ptr().wrapping_add(at),
                        neg_sums: x.arrays.neg_sums.as_ptr().add(at),
                    };
                    Self::terms::<F, I>(
                        isa,
                        #[inline(always)]
                        |b| &blocks[b],
                        x,
                        terms.add(row * TERMS + i * I::LANES),
                    );
                }
            }
        }
        if let Some(tail) = tail.filter(|_| whole < len) {
            let tail_len = len - whole;
            let together = I::LANES / tail_len;
            for (batch, rows) in rows.chunks(together).enumerate() {
                // Lanes that are left over repeat the first block: nobody reads their terms.
                let mut blocks = [&rows[0][0]; PANEL_ROWS];
                for (blocks, row) in blocks.chunks_exact_mut(tail_len).zip(rows) {
                    ask_ahead::<F, I>(isa, &row[whole..]);
                    for (block, from) in blocks.iter_mut().zip(&row[whole..]) {
                        *block = from;
                    }
                }
                let mut lanes = [0.0f32; PANEL_ROWS];
                // SAFETY: the tail has LANES blocks and there is room for as many terms; the rows' are the caller's promise.
                unsafe {
                    Self::terms::<F, I>(
                        isa,
                        #[inline(always)]
                        |b| blocks[b],
                        tail.operand(),
                        lanes.as_mut_ptr(),
                    );
                    for (row, lanes) in lanes.chunks_exact(tail_len).take(rows.len()).enumerate() {
                        let terms = terms.add((batch * together + row) * TERMS + whole);
                        core::ptr::copy_nonoverlapping(lanes.as_ptr(), terms, tail_len);
                    }
                }
            }
        }
        TERMS
    }

    /// The terms of `LANES` blocks.
    ///
    /// # Safety
    /// x has as many, and `terms` room.
    #[inline(always)]
    unsafe fn terms<'b, F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: impl Fn(usize) -> &'b F::Block,
        x: Operand,
        terms: *mut f32,
    ) {
        let mut scales = Scales { d: [0; PANEL_ROWS], both: [0; PANEL_ROWS] };
        // SAFETY: the caller's promise.
        unsafe {
            let sums = match const { Planes::of::<F>() } {
                Some(planes) => Self::sums_of_nibbles::<F, I>(isa, block, planes, x.codes, &mut scales),
                None => Self::sums_in_order::<F, I>(isa, block, x.codes, &mut scales),
            };
            Self::finish(isa, sums, &scales, x, terms);
        }
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

    /// Lane b: the sum of block b's products with x's codes, which are in their order.
    ///
    /// # Safety
    /// x has as many.
    #[inline(always)]
    unsafe fn sums_in_order<'b, F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: impl Fn(usize) -> &'b F::Block,
        x: *const u8,
        scales: &mut Scales,
    ) -> I::V {
        // The registers that hold a span of blocks, and the blocks in it.
        let (registers, len) = ((UNIT_CODES / 4).div_ceil(I::LANES), I::LANES.div_ceil(UNIT_CODES / 4));
        let mut sums = [isa.splat(0); 8];
        // SAFETY: registers of LANES blocks are inside x.
        unsafe {
            for s in 0..8 / registers {
                let mut units = [[0; UNIT_CODES]; 2];
                for b in 0..len {
                    let block = NativeBlock::<F>::read(isa, block(s * len + b));
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
                        |_, _| isa.load(x.add(i * I::LANES * 4)),
                    );
                    sums[i] = sum[0][0];
                }
            }
        }
        isa.sum_eights(sums)
    }

    /// Lane b: the sum of block b's products with x's codes, which lie as [`order`] has them.
    ///
    /// # Safety
    /// x has as many.
    #[inline(always)]
    unsafe fn sums_of_nibbles<'b, F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: impl Fn(usize) -> &'b F::Block,
        planes: Planes,
        x: *const u8,
        scales: &mut Scales,
    ) -> I::V {
        let together = I::LANES / 4;
        let mut sums = [isa.splat(0); 4];
        for g in 0..4 {
            for b in g * together..(g + 1) * together {
                let [d, m] = F::scales(block(b));
                Self::keep(scales, b, d, m);
            }
            // SAFETY: the nibbles, and 16 bytes from the fifth bits on, are inside the block, registers of x inside x.
            unsafe {
                let pairs = isa.load_sixteens(
                    #[inline(always)]
                    |i| bytes(block(g * together + i)).add(planes.low.at),
                );
                let mask = isa.splat(0x0F0F_0F0F);
                let mut codes = [isa.and(pairs, mask), isa.and(isa.shr(pairs, 4), mask)];
                if let Some(plane) = planes.high {
                    let bits = isa.load_sixteens(
                        #[inline(always)]
                        |i| bytes(block(g * together + i)).add(plane.at),
                    );
                    codes = [
                        isa.or(codes[0], isa.spread_sixteens(bits, 0)),
                        isa.or(codes[1], isa.spread_sixteens(bits, 1)),
                    ];
                }
                let mut sum = [[isa.splat(0)]];
                isa.dot::<BITS, 2, 1, 1>(
                    &mut sum,
                    #[inline(always)]
                    |half, _| codes[half],
                    #[inline(always)]
                    |half, _| isa.load(x.add((2 * g + half) * I::LANES * 4)),
                );
                sums[g] = sum[0][0];
            }
        }
        isa.sum_fours(sums)
    }

    /// The terms of blocks from the sums of their products.
    ///
    /// # Safety
    /// x has as many, and `terms` room.
    #[inline(always)]
    unsafe fn finish<I: Isa>(isa: I, mut sums: I::V, scales: &Scales, x: Operand, terms: *mut f32) {
        let bias = const { remaining_bias::<I>(BITS, BIAS) };
        // SAFETY: the arrays have room for a register; the rest is the caller's promise.
        unsafe {
            if bias != 0 {
                sums = isa.add(sums, isa.mul(isa.load(x.neg_sums.cast()), isa.splat(bias)));
            }
            let both = isa.load(scales.both.as_ptr().cast());
            let d = if MIN {
                isa.widen_f16(isa.and(both, isa.splat(0xFFFF)))
            } else {
                isa.load_f16(scales.d.as_ptr().cast())
            };
            let sums = isa.add(sums, isa.splat(I::SUM_ORIGIN));
            let mut term = isa.mul_f32(isa.scale_sum(sums, d, isa.scale_origin(d)), isa.load_f32(x.d));
            if MIN {
                let m = isa.widen_f16(isa.shr(both, 16));
                term = isa.add_f32(term, isa.mul_f32(m, isa.load_f32(x.d_sums)));
            }
            isa.store_f32(terms, term);
        }
    }
}

/// Asks for what comes after blocks of nibbles; [`NativeBlock::read`] does for others.
#[inline(always)]
fn ask_ahead<F: QuantBlock, I: Isa>(isa: I, blocks: &[F::Block]) {
    if const { Planes::of::<F>().is_some() } {
        prefetch_ahead(isa, blocks.as_ptr().cast(), size_of_val(blocks));
    }
}

/// Where a block starts.
#[inline(always)]
fn bytes<B>(block: &B) -> *const u8 {
    (&raw const *block).cast()
}
