//! Blocks of 32 with a float scale (and minimum): `y += (Σ(code − BIAS)·x)·d·dx [+ m·(dx·Σx)]` per block.

mod operands;
mod row;

use super::{
    Columns, Inputs,
    driver::{self, Job},
    native::Window,
    pack::pack_blocks,
    packed::{UNIT_CODES, UNIT_STEPS, unit_bytes, unpack_code},
    stream::{keep_order, prefetch},
    tile::{FlatTile, IntTile, Tile},
};
use crate::{
    QuantBlock,
    activation::Kinds,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES, array_of},
};
use core::ops::Range;
use operands::{Expanded, ExpandedBlock, Operands, PackedBlock};

/// Bytes of 16 f16.
const HALVES_BYTES: usize = PANEL_ROWS * 2;

/// The bias that is left for the sums once the instruction set has centred 8-bit codes itself.
pub(super) const fn remaining_bias<I: Isa>(bits: u32, bias: i32) -> i32 {
    if bits == 8 && I::CENTERS_8BIT { bias - 128 } else { bias }
}

/// `bias · neg_sum` in every lane, where `neg_sum` lies at `at`.
///
/// # Safety
/// 4 bytes at `at` are readable.
#[inline(always)]
pub(super) unsafe fn biased<I: Isa>(isa: I, bias: i32, at: *const i32) -> I::V {
    if bias == 0 {
        return isa.splat(0);
    }
    // SAFETY: the caller vouches for `at`.
    let neg_sum = unsafe { isa.broadcast(at.cast()) };
    if bias > 0 && bias.count_ones() == 1 {
        isa.shl(neg_sum, bias.trailing_zeros())
    } else {
        isa.mul(neg_sum, isa.splat(bias))
    }
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> FlatTile<BITS, BIAS, MIN> {
    const CODES_BYTES: usize = unit_bytes(BITS, UNIT_CODES);
    /// What gives four codes the bias 128.
    const TO_ONE_BIAS: i32 = ((128 - BIAS) as u32).wrapping_mul(0x0101_0101) as i32;

    /// Codes with the bias 128.
    #[inline(always)]
    fn to_one_bias<I: Isa>(isa: I, codes: I::V) -> I::V {
        if Self::TO_ONE_BIAS == 0 { codes } else { isa.add(codes, isa.splat(Self::TO_ONE_BIAS)) }
    }

    /// Whether `columns` starts that take the bias 128 away cost less than those for the bias of packed codes.
    const fn starts_packed<I: Isa>(columns: usize) -> bool {
        I::WHOLE_BYTES && BIAS != 0 && (Self::TO_ONE_BIAS == 0 || columns >= 4)
    }

    /// The integer view of one row of a packed block: what `pack` was given.
    fn unpack_row(tile: &[u8], row: usize, out: &mut BlockCodes) {
        let (unit, scales) = tile.split_at(Self::CODES_BYTES);
        for (i, code) in out.codes[..UNIT_CODES].iter_mut().enumerate() {
            *code = unpack_code::<BITS, UNIT_CODES>(unit, row, i);
        }
        let half = |at: usize| u16::from_le_bytes([scales[at], scales[at + 1]]) as u32;
        out.d = half(row * 2);
        out.dmin = if MIN { half(HALVES_BYTES + row * 2) } else { 0 };
    }

    /// One block's product added to the sums: what decode and prefill share.
    ///
    /// # Safety
    /// `x` holds the columns and block `block`; the weights have `MR` registers of rows.
    #[inline(always)]
    unsafe fn accumulate<I: Isa, const MR: usize, const NR: usize, const W: usize, O: Operands<I>>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: &O,
        acc: &mut [[I::F; NR]; MR],
    ) {
        // SAFETY: entries of the columns and of `block` of k / 32, and registers of rows, which the caller vouches for.
        unsafe {
            let at = columns.at(x.k / UNIT_CODES, block);
            let codes = x.arrays.codes.as_ptr().add(columns.at(x.k / 4, block * UNIT_STEPS));
            let bias = const { remaining_bias::<I>(BITS, BIAS) };
            let init: [I::V; NR] = array_of(
                #[inline(always)]
                |j| {
                    if O::ONE_BIAS {
                        return isa.broadcast(x.arrays.starts.as_ptr().add(at + j).cast());
                    }
                    isa.add(biased(isa, bias, x.arrays.neg_sums.as_ptr().add(at + j)), isa.splat(I::SUM_ORIGIN))
                },
            );
            let mut sums = [init; MR];
            if O::ONE_BIAS {
                isa.dot::<8, UNIT_STEPS, MR, NR>(
                    &mut sums,
                    #[inline(always)]
                    |step, i| weights.codes(step, i),
                    #[inline(always)]
                    |step, j| isa.broadcast(codes.add(step * W + j).cast()),
                );
            } else {
                isa.dot::<BITS, UNIT_STEPS, MR, NR>(
                    &mut sums,
                    #[inline(always)]
                    |step, i| weights.codes(step, i),
                    #[inline(always)]
                    |step, j| isa.broadcast(codes.add(step * W + j).cast()),
                );
            }
            let scales: [[I::F; 3]; MR] = array_of(
                #[inline(always)]
                |i| weights.scales(i),
            );
            for j in 0..NR {
                let dx = isa.splat_f32(*x.arrays.d.as_ptr().add(at + j));
                for i in 0..MR {
                    let [d, origin, m] = scales[i];
                    let mut term = isa.mul_f32(isa.scale_sum(sums[i][j], d, origin), dx);
                    if MIN {
                        let d_sum = isa.splat_f32(*x.arrays.d_sums.as_ptr().add(at + j));
                        term = isa.add_f32(term, isa.mul_f32(m, d_sum));
                    }
                    acc[i][j] = isa.add_f32(acc[i][j], term);
                }
            }
            isa.set_aside(acc);
        }
    }

    /// Stores the scales of a register of an expanded block.
    ///
    /// # Safety
    /// `out` points to a writable block, `rows` is a register's first row.
    #[inline(always)]
    unsafe fn store_scales<I: Isa>(isa: I, out: *mut Expanded, rows: usize, d: I::F, m: I::F) {
        // SAFETY: a register's rows end at 16.
        unsafe {
            isa.store_f32((&raw mut (*out).d).cast::<f32>().add(rows), d);
            isa.store_f32((&raw mut (*out).origin).cast::<f32>().add(rows), isa.scale_origin(d));
            if MIN {
                isa.store_f32((&raw mut (*out).m).cast::<f32>().add(rows), m);
            }
        }
    }
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> Tile for FlatTile<BITS, BIAS, MIN> {
    const BLOCK: usize = UNIT_CODES;
    const BITS: u32 = BITS;
    const BIAS: i32 = BIAS;
    const GROUP: usize = UNIT_CODES;
    const MIN: bool = MIN;
    const KINDS: Kinds = Kinds::BLOCK32;
    const KERNEL: &'static str = match (BITS, MIN) {
        (4, false) => "flat4",
        (4, true) => "flat4-min",
        (5, false) => "flat5",
        (5, true) => "flat5-min",
        (8, false) => "flat8",
        _ => "flat",
    };
    const TILE_BYTES: usize = Self::CODES_BYTES + HALVES_BYTES * (1 + MIN as usize);

    fn multiply<F: QuantBlock<Tile = Self>>(job: &Job<'_>, panels: Range<usize>) {
        driver::multiply_int::<F, Self>(job, panels);
    }

    #[inline(always)]
    fn pack<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, rows: &[&[F::Block]], out: &mut [u8]) {
        pack_blocks::<F, I>(
            isa,
            rows,
            out,
            #[inline(always)]
            |block, tile| {
                let (unit, halves) = tile.split_at_mut(Self::CODES_BYTES);
                let unit = unit.as_mut_ptr();
                // SAFETY: the unit is whole.
                unsafe {
                    block.pack_codes::<BITS, UNIT_CODES>(
                        1,
                        #[inline(always)]
                        |_| unit,
                    );
                }
                for row in 0..PANEL_ROWS {
                    let [d, m] = block.scales(row);
                    halves[row * 2..][..2].copy_from_slice(&(d as u16).to_le_bytes());
                    if MIN {
                        halves[HALVES_BYTES + row * 2..][..2].copy_from_slice(&(m as u16).to_le_bytes());
                    }
                }
            },
        );
    }

    fn dequantize_packed(tile: &[u8], row: usize, out: &mut [f32]) {
        let mut block = BlockCodes::default();
        Self::unpack_row(tile, row, &mut block);
        let [d, m] = [block.d, block.dmin].map(|bits| half::f16::from_bits(bits as u16).to_f32_const());
        for (out, &code) in out.iter_mut().zip(&block.codes) {
            let w = (code as i32 - BIAS) as f32 * d;
            *out = if MIN { w + m } else { w };
        }
    }
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> IntTile for FlatTile<BITS, BIAS, MIN> {
    type Expanded = Expanded;
    type Operand = row::Operand;

    #[inline(always)]
    unsafe fn expand_packed<I: Isa, const FOLDED: bool>(isa: I, tile: *const u8, out: *mut Expanded) {
        // SAFETY: reads stay inside the tile, writes inside the expanded block.
        unsafe {
            for r in 0..I::REGISTERS {
                let row = r * I::LANES;
                // No columns yet: the codes as they are packed.
                let packed = PackedBlock::<I, BITS, BIAS, MIN, 0> { isa, tile, row };
                for step in 0..UNIT_STEPS {
                    let codes = Self::expanded_codes(isa, packed.codes(step, 0));
                    isa.store((&raw mut (*out).codes).cast::<u8>().add(step * VECTOR_BYTES + row * 4), codes);
                }
                let [d, _, m] = packed.scales(0);
                Self::store_scales(isa, out, row, d, m);
            }
        }
    }

    #[inline(always)]
    fn expanded_codes<I: Isa>(isa: I, codes: I::V) -> I::V {
        if I::WHOLE_BYTES { Self::to_one_bias(isa, codes) } else { codes }
    }

    #[inline(always)]
    unsafe fn expand_scales<I: Isa, const FOLDED: bool>(isa: I, views: &[BlockCodes; PANEL_ROWS], out: *mut Expanded) {
        let halves: [u16; PANEL_ROWS] = array_of(
            #[inline(always)]
            |row| views[row].d as u16,
        );
        let pairs: [u32; PANEL_ROWS] = array_of(
            #[inline(always)]
            |row| views[row].d | views[row].dmin << 16,
        );
        for first in (0..PANEL_ROWS).step_by(I::LANES) {
            // SAFETY: a register's rows end at 16.
            unsafe {
                if MIN {
                    let [d, m] = isa.widen_f16_halves(isa.load(pairs.as_ptr().add(first).cast()));
                    Self::store_scales(isa, out, first, d, m);
                } else {
                    let d = isa.load_f16(halves.as_ptr().add(first).cast());
                    Self::store_scales(isa, out, first, d, d);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_expanded<I: Isa, const MR: usize, const NR: usize, const W: usize, const FOLDED: bool>(
        isa: I,
        panels: *const Expanded,
        stride: usize,
        x: &Inputs<'_>,
        columns: Columns<W>,
        blocks: Range<usize>,
        mut acc: [[I::F; NR]; MR],
        before: impl Fn(usize),
    ) -> [[I::F; NR]; MR] {
        for (at, block) in blocks.enumerate() {
            before(at);
            // SAFETY: the caller vouches for the panels and for x.
            unsafe {
                let weights = ExpandedBlock::<I, MIN> { isa, first: panels.add(at), stride };
                Self::accumulate::<I, MR, NR, W, _>(isa, x, columns, block, &weights, &mut acc);
            }
        }
        acc
    }

    #[inline(always)]
    unsafe fn multiply_tile<I: Isa, const MR: usize, const NR: usize, const W: usize, const AHEAD: bool>(
        isa: I,
        (tile, ahead): (*const u8, *const u8),
        row: usize,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        acc: &mut [[I::F; NR]; MR],
    ) {
        if row == 0 {
            if AHEAD {
                prefetch(isa, ahead, Self::TILE_BYTES);
            } else {
                keep_order();
            }
        }
        let weights = PackedBlock::<I, BITS, BIAS, MIN, NR> { isa, tile, row };
        // SAFETY: the caller's promise is the same.
        unsafe { Self::accumulate::<I, MR, NR, W, _>(isa, x, columns, block, &weights, acc) };
    }

    #[inline(always)]
    fn operand<F: QuantBlock<Tile = Self>, I: Isa>(x: &Inputs<'_>, first: usize, window: &mut Window) -> row::Operand {
        row::Operand::new::<F, I>(x, first, window)
    }

    #[inline(always)]
    unsafe fn run_terms<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        x: row::Operand,
        x_blocks: Range<usize>,
        terms: *mut f32,
    ) {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::terms_of_run::<F, I>(isa, blocks, x, x_blocks, terms) }
    }
}
