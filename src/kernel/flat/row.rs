//! Decode from native blocks of 32: lanes are codes of one row, then blocks of that row.

use super::{
    super::{
        Inputs,
        native::{NativeBlock, TERMS},
        packed::UNIT_CODES,
        tile::FlatTile,
    },
    remaining_bias,
};
use crate::{
    QuantBlock,
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
type Operand = (*const u8, *const f32, *const f32, *const i32);

/// What x has for the blocks from `first` on.
///
/// # Safety
/// x has one column and as many blocks.
#[inline(always)]
unsafe fn operand(x: &Inputs<'_>, first: usize) -> Operand {
    let arrays = &x.arrays;
    // SAFETY: the caller's promise.
    unsafe {
        (
            arrays.codes.as_ptr().cast::<u8>().add(first * UNIT_CODES),
            arrays.d.as_ptr().add(first),
            arrays.d_sums.as_ptr().add(first),
            arrays.neg_sums.as_ptr().add(first),
        )
    }
}

impl Tail {
    /// [`IntTile::tail`](super::super::tile::IntTile::tail).
    #[inline(always)]
    pub(super) fn new<I: Isa>(x: &Inputs<'_>, len: usize) -> Tail {
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
        tail
    }

    /// All of it.
    #[inline(always)]
    fn operand(&self) -> Operand {
        (self.codes.as_ptr().cast(), self.d.as_ptr(), self.d_sums.as_ptr(), self.neg_sums.as_ptr())
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
        x: &Inputs<'_>,
        first: usize,
        tail: Option<&Tail>,
        terms: *mut f32,
    ) -> usize {
        let len = rows[0].len();
        let whole = len - len % I::LANES;
        for (row, blocks) in rows.iter().enumerate() {
            for (i, blocks) in blocks[..whole].chunks_exact(I::LANES).enumerate() {
                let at = i * I::LANES;
                // SAFETY: x has as many blocks from there on, and the terms are a row's.
                unsafe {
                    Self::terms::<F, I>(
                        isa,
                        #[inline(always)]
                        |b| &blocks[b],
                        operand(x, first + at),
                        terms.add(row * TERMS + at),
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
        (codes, dx, d_sums, neg_sums): Operand,
        terms: *mut f32,
    ) {
        // The registers that hold a span of blocks, and the blocks in it.
        let (registers, len) = ((UNIT_CODES / 4).div_ceil(I::LANES), I::LANES.div_ceil(UNIT_CODES / 4));
        // With a minimum, which lies beside the scale in the block, both in the halves of a lane: one load for the two.
        let (mut d, mut both) = ([0u16; PANEL_ROWS], [0u32; PANEL_ROWS]);
        let mut sums = [isa.splat(0); 8];
        // SAFETY: registers of LANES blocks are inside x, and the arrays have room for one.
        unsafe {
            for s in 0..8 / registers {
                let (mut units, mut fifth_bits) = ([[0; UNIT_CODES]; 2], 0u64);
                for b in 0..len {
                    let block = NativeBlock::<F>::read(isa, block(s * len + b));
                    if MIN {
                        both[s * len + b] = block.view.d & 0xFFFF | block.view.dmin << 16;
                    } else {
                        d[s * len + b] = block.view.d as u16;
                    }
                    units[b] = block.codes().cast::<[u8; UNIT_CODES]>().read();
                    fifth_bits |= (block.fifth_bits as u64) << (b * UNIT_CODES);
                }
                for r in 0..registers {
                    let mut sum = [[isa.splat(0)]];
                    let i = s * registers + r;
                    isa.dot::<BITS, 1, 1, 1>(
                        &mut sum,
                        #[inline(always)]
                        |_, _| {
                            let first = r * I::LANES * 4;
                            let codes = isa.load(units.as_ptr().cast::<u8>().add(first));
                            if F::FIFTH_BITS {
                                isa.or(codes, isa.spread_fifth_bits(fifth_bits >> first))
                            } else {
                                NativeBlock::<F>::unsigned(isa, codes)
                            }
                        },
                        #[inline(always)]
                        |_, _| isa.load(codes.add(i * I::LANES * 4)),
                    );
                    sums[i] = sum[0][0];
                }
            }
            let mut sums = isa.sum_eights(sums);
            let bias = const { remaining_bias::<I>(BITS, BIAS) };
            if bias != 0 {
                sums = isa.add(sums, isa.mul(isa.load(neg_sums.cast()), isa.splat(bias)));
            }
            let both = isa.load(both.as_ptr().cast());
            let d = if MIN { isa.widen_f16(isa.and(both, isa.splat(0xFFFF))) } else { isa.load_f16(d.as_ptr().cast()) };
            let sums = isa.add(sums, isa.splat(I::SUM_ORIGIN));
            let mut term = isa.mul_f32(isa.scale_sum(sums, d, isa.scale_origin(d)), isa.load_f32(dx));
            if MIN {
                let m = isa.widen_f16(isa.shr(both, 16));
                term = isa.add_f32(term, isa.mul_f32(m, isa.load_f32(d_sums)));
            }
            isa.store_f32(terms, term);
        }
    }
}
