//! Superblocks of 256 with integer group scales: `y += dx·(d·Σ_g scale_g·Σ(code − BIAS)·x − dmin·Σ_g min_g·Σx)`.
//!
//! Both inner sums are exact in i32: at most 16 groups · 128 · (16 · 63 · 127) < 2³¹ for 6-bit codes.

mod in_place;
mod layout;
mod operands;
mod packed_block;
mod product;
mod row;

use super::{
    Columns, Inputs,
    driver::{self, Job},
    flat::biased,
    native::Window,
    pack::pack_blocks,
    packed::{LONG_RUNS, UNIT_STEPS, pair_of_four, unit_runs, unpack_code, unpack_pair, unpack_value},
    stream::keep_order,
    tile::{HighBytes, IntTile, SuperTile, Tile},
};
use crate::{
    QuantBlock,
    activation::Kinds,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, array_of, is_avx512},
};
use core::ops::Range;
use operands::{Expanded, ExpandedBlock, Operands};
use packed_block::PackedBlock;

const BLOCK: usize = 256;

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    const VALID: () = {
        assert!(GROUP == 16 || GROUP == 32 || (GROUP == BLOCK && !Self::SCALED), "groups of 16 or 32, or no scales");
        assert!(!(MIN && BIAS != 0), "minima and a bias at once");
        assert!(!MIN || Self::SCALED, "minima without scales");
        assert!(matches!(SCALE_BITS, 0 | 4 | 6 | 8), "scales of 4, 6 or 8 bits");
        assert!(SCALE_BIAS <= 128 && (1 << SCALE_BITS) - SCALE_BIAS <= 128, "scales that fit an i8");
    };

    /// Calls `body` with each run of eight steps; those of a unit are written out, so that where in it they lie is known.
    #[inline(always)]
    fn for_runs(mut body: impl FnMut(usize)) {
        let runs = const { unit_runs(BITS, GROUP) };
        for unit in 0..Self::UNITS {
            body(unit * runs);
            if const { unit_runs(BITS, GROUP) > 1 } {
                const { assert!(LONG_RUNS == 4) };
                body(unit * runs + 1);
                body(unit * runs + 2);
                body(unit * runs + 3);
            }
        }
    }

    /// Calls `body` with each pair of groups, which in long units are runs.
    #[inline(always)]
    fn for_pairs(mut body: impl FnMut(usize)) {
        if const { unit_runs(BITS, GROUP) > 1 } {
            return Self::for_runs(
                #[inline(always)]
                |p| {
                    keep_order();
                    body(p);
                },
            );
        }
        for p in 0..Self::PAIRS {
            body(p);
        }
    }

    /// The integer view of one row of a packed block: what `pack` was given.
    fn unpack_row(tile: &[u8], row: usize, out: &mut BlockCodes) {
        for (unit, codes) in out.codes.chunks_exact_mut(4 * Self::UNIT_STEPS).enumerate() {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = unpack_code::<BITS, GROUP>(&tile[Self::unit_at(unit)..], row, i);
            }
        }
        let groups = 2 * Self::PAIRS;
        for i in 0..2 * Self::STORED_PAIRS {
            let value = unpack_value(SCALE_BITS, Self::STORED_PAIRS, (tile, Self::pairs_at), row, i);
            if i < groups {
                out.scales[i] = value as u8;
            } else {
                out.mins[i - groups] = value as u8;
            }
        }
        let half = |at: usize| u16::from_le_bytes([tile[at], tile[at + 1]]) as u32;
        let d = Self::D_AT;
        out.d = if Self::SCALED { half(d + row * 2) } else { half(d + row * 4) | half(d + row * 4 + 2) << 16 };
        out.dmin = if MIN { half(Self::DMIN_AT + row * 2) } else { 0 };
    }

    /// What the smallest and the largest product of a code and a scale are.
    const PRODUCTS: (i32, i32) = {
        let codes = [-BIAS, (1 << BITS) - 1 - BIAS];
        let scales = [-SCALE_BIAS, (1 << SCALE_BITS) - 1 - SCALE_BIAS];
        let (mut low, mut high) = (codes[0] * scales[0], codes[0] * scales[0]);
        let mut i = 1;
        while i < 4 {
            let product = codes[i / 2] * scales[i % 2];
            low = if product < low { product } else { low };
            high = if product > high { product } else { high };
            i += 1;
        }
        (low, high)
    };

    /// Pair `index` of those stored in a packed tile, of the register whose first row is `row`.
    ///
    /// # Safety
    /// `tile` points to a packed tile, and the register's rows end at 16.
    #[inline(always)]
    unsafe fn stored_pair<I: Isa>(isa: I, tile: *const u8, row: usize, index: usize) -> I::V {
        // SAFETY: the tile has the vectors of its pairs.
        unsafe {
            unpack_pair::<I, SCALE_BITS>(
                isa,
                #[inline(always)]
                |v| tile.add(Self::pairs_at(v) + row * 4),
                Self::STORED_PAIRS,
                index,
            )
        }
    }

    /// The integer scales of a pair of groups as stored, without their bias.
    #[inline(always)]
    fn unbiased<I: Isa>(isa: I, pair: I::V) -> I::V {
        if SCALE_BIAS == 0 { pair } else { isa.sub_i16(pair, isa.splat(SCALE_BIAS | SCALE_BIAS << 16)) }
    }

    /// Stores a pair of integer scales of a register of an expanded block, in both of its forms.
    ///
    /// # Safety
    /// `out` points to a writable block, `row` is a register's first row.
    #[inline(always)]
    unsafe fn store_pair<I: Isa>(isa: I, out: *mut Expanded, p: usize, row: usize, pair: I::V) {
        // SAFETY: p is below the arrays' lengths and a register's rows end at 16.
        unsafe {
            isa.store((&raw mut (*out).scale_pairs[p]).cast::<u8>().add(row * 4), pair);
            for (half, scale) in isa.split_scales(pair).into_iter().enumerate() {
                isa.store((&raw mut (*out).scales[p][half]).cast::<u8>().add(row * 4), scale);
            }
        }
    }

    /// Multiplies expanded codes by their groups' scales where products fit a byte.
    ///
    /// # Safety
    /// `out` is an expanded block.
    #[inline(always)]
    unsafe fn fold<I: Isa>(isa: I, out: *mut Expanded) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::multiply_by_scales(
                isa,
                out,
                #[inline(always)]
                |_, _, even, odd| isa.or(even, isa.shl(odd, 8)),
            );
        }
    }

    /// Multiplies expanded codes by their groups' scales. `join` is given a step, where in it, in bytes, a register's rows
    /// begin, and the products of the even and of the odd codes there above the smallest, as u16; it gives the codes.
    ///
    /// # Safety
    /// `out` is an expanded block.
    #[inline(always)]
    unsafe fn multiply_by_scales<I: Isa>(isa: I, out: *mut Expanded, join: impl Fn(usize, usize, I::V, I::V) -> I::V) {
        let (bytes, bias) = (isa.splat(0x00FF_00FF), isa.splat(BIAS | BIAS << 16));
        let low = isa.splat(Self::PRODUCTS.0 & 0xFFFF | Self::PRODUCTS.0 << 16);
        let steps = GROUP / 4;
        for r in 0..I::REGISTERS {
            let at = r * I::LANES * 4;
            for p in 0..Self::PAIRS {
                // SAFETY: pairs and steps are below their arrays' lengths, and rows end at 16.
                unsafe {
                    let pair = isa.load((&raw const (*out).scale_pairs[p]).cast::<u8>().add(at));
                    let (first, second) = (isa.and(pair, isa.splat(0xFFFF)), isa.shr(pair, 16));
                    for (half, scale) in [(0, first), (1, second)] {
                        let scale = isa.or(scale, isa.shl(scale, 16));
                        let product = |codes| {
                            let code = isa.and(codes, bytes);
                            let product = isa.mul_i16(if BIAS == 0 { code } else { isa.sub_i16(code, bias) }, scale);
                            if Self::PRODUCTS.0 == 0 { product } else { isa.sub_i16(product, low) }
                        };
                        for step in (2 * p + half) * steps..(2 * p + half + 1) * steps {
                            let to = (&raw mut (*out).codes[step]).cast::<u8>().add(at);
                            let codes = isa.load(to);
                            isa.store(to, join(step, at, product(codes), product(isa.shr(codes, 8))));
                        }
                    }
                }
            }
        }
    }
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> Tile for SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    const BLOCK: usize = BLOCK;
    const BITS: u32 = BITS;
    const BIAS: i32 = BIAS;
    const GROUP: usize = GROUP;
    const MIN: bool = MIN;
    const KINDS: Kinds = Kinds::BLOCK256;
    const KERNEL: &'static str = match (BITS, GROUP) {
        (2, 16) => "super2x16",
        (3, 16) => "super3x16",
        (4, 32) => "super4x32",
        (5, 32) => "super5x32",
        (6, 16) => "super6x16",
        (8, 256) => "super8",
        _ => "super",
    };
    const TILE_BYTES: usize = Self::BYTES;

    fn multiply<F: QuantBlock<Tile = Self>>(job: &Job<'_>, panels: Range<usize>) {
        const { Self::VALID };
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
                let start = tile.as_mut_ptr();
                // SAFETY: the tile has its units and the vectors of the pairs of scales and minima.
                unsafe {
                    if Self::SCALED {
                        block.pack_pairs::<SCALE_BITS>(
                            Self::PAIRS,
                            if MIN { Self::PAIRS } else { 0 },
                            #[inline(always)]
                            |v| start.add(Self::pairs_at(v)),
                        );
                    }
                    block.pack_codes::<BITS, GROUP>(
                        Self::UNITS,
                        #[inline(always)]
                        |unit| start.add(Self::unit_at(unit)),
                    );
                }
                let (d, dmin) = tile[Self::D_AT..].split_at_mut(Self::DMIN_AT - Self::D_AT);
                for row in 0..PANEL_ROWS {
                    let [of_scales, of_mins] = block.scales(row);
                    if Self::SCALED {
                        d[row * 2..][..2].copy_from_slice(&(of_scales as u16).to_le_bytes());
                    } else {
                        d[row * 4..][..4].copy_from_slice(&of_scales.to_le_bytes());
                    }
                    if MIN {
                        dmin[row * 2..][..2].copy_from_slice(&(of_mins as u16).to_le_bytes());
                    }
                }
            },
        );
    }

    fn dequantize_packed(tile: &[u8], row: usize, out: &mut [f32]) {
        let mut block = BlockCodes::default();
        Self::unpack_row(tile, row, &mut block);
        let widen = |bits: u32| half::f16::from_bits(bits as u16).to_f32_const();
        let d = if Self::SCALED { widen(block.d) } else { f32::from_bits(block.d) };
        for (group, (out, codes)) in out.chunks_exact_mut(GROUP).zip(block.codes.chunks_exact(GROUP)).enumerate() {
            let scale = if Self::SCALED { d * (block.scales[group] as i32 - SCALE_BIAS) as f32 } else { d };
            let min = if MIN { widen(block.dmin) * block.mins[group] as f32 } else { 0.0 };
            for (out, &code) in out.iter_mut().zip(codes) {
                let w = scale * (code as i32 - BIAS) as f32;
                *out = if MIN { w - min } else { w };
            }
        }
    }
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> IntTile for SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    type Expanded = Expanded;
    type Operand = row::Operand;

    // As bytes above the smallest product: the sums are the same integers, and a superblock becomes one group.
    const FOLDABLE: bool = Self::SCALED && Self::PRODUCTS.1 - Self::PRODUCTS.0 < 256;
    const TWO_BYTES: bool = Self::SCALED && !Self::FOLDABLE;

    #[inline(always)]
    unsafe fn split<I: Isa>(isa: I, out: *mut Expanded, high: *mut HighBytes) {
        const { assert!(Self::PRODUCTS.1 - Self::PRODUCTS.0 < 1 << 16) };
        let bytes = isa.splat(0x00FF_00FF);
        // SAFETY: the caller's promise.
        unsafe {
            Self::multiply_by_scales(
                isa,
                out,
                #[inline(always)]
                |step, at, even, odd| {
                    let upper = isa.splat(0xFF00_FF00u32 as i32);
                    let above = isa.or(isa.and(isa.shr(even, 8), bytes), isa.and(odd, upper));
                    isa.store((&raw mut (*high)[step]).cast::<u8>().add(at), above);
                    isa.or(isa.and(even, bytes), isa.and(isa.shl(odd, 8), upper))
                },
            );
        }
    }

    #[inline(always)]
    unsafe fn add_sums<I: Isa, const W: usize>(
        isa: I,
        x: &Inputs<'_>,
        columns: Columns<W>,
        block: usize,
        weights: *const Expanded,
        [low, high]: [*const [i32; PANEL_ROWS]; 2],
        from: (*const f32, usize),
        to: (*mut f32, usize),
    ) {
        const { assert!(!is_avx512::<I>() || I::REGISTERS == 1) };
        let bias = const { Self::bias::<I>(Self::SCALED) };
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc: [[I::F; W]; 1] = [array_of(
                #[inline(always)]
                |j| isa.load_f32(from.0.add(j * from.1)),
            )];
            let neg_sums = x.arrays.neg_sums.as_ptr().add(columns.at(x.k / BLOCK, block));
            let sums: [I::V; W] = array_of(
                #[inline(always)]
                |j| {
                    let mut sum = isa.load(low.add(j).cast());
                    if const { Self::TWO_BYTES } {
                        sum = isa.add(sum, isa.shl(isa.load(high.add(j).cast()), 8));
                    }
                    if bias == 0 { sum } else { isa.add(biased(isa, bias, neg_sums.add(j)), sum) }
                },
            );
            let weights = ExpandedBlock::new(isa, weights, 0);
            Self::add_terms::<I, 1, W, W, 0, W>(isa, x, columns, block, &weights, &[sums], &mut acc);
            for j in 0..W {
                isa.store_f32(to.0.add(j * to.1), acc[0][j]);
            }
        }
    }

    #[inline(always)]
    unsafe fn expand_packed<I: Isa, const FOLDED: bool>(isa: I, tile: *const u8, out: *mut Expanded) {
        // SAFETY: reads stay inside the tile, writes inside the expanded block, whose registers end at row 16.
        unsafe {
            for r in 0..I::REGISTERS {
                let row = r * I::LANES;
                let packed = PackedBlock::<I, Self, 1, false>::new(isa, tile, row, tile);
                Self::for_runs(
                    #[inline(always)]
                    |run| {
                        for step in run * UNIT_STEPS..(run + 1) * UNIT_STEPS {
                            let to = (&raw mut (*out).codes[step]).cast::<u8>().add(row * 4);
                            isa.store(to, packed.codes(step, 0));
                        }
                    },
                );
                for p in 0..Self::PAIRS {
                    if Self::SCALED {
                        Self::store_pair(isa, out, p, row, packed.scale_pair(p, 0));
                    }
                    if MIN {
                        isa.store((&raw mut (*out).min_pairs[p]).cast::<u8>().add(row * 4), packed.min_pair(p, 0));
                    }
                }
                isa.store_f32((&raw mut (*out).d).cast::<f32>().add(row), packed.d(0));
                if MIN {
                    isa.store_f32((&raw mut (*out).dmin).cast::<f32>().add(row), packed.dmin(0));
                }
            }
            if FOLDED {
                Self::fold(isa, out);
            }
        }
    }

    #[inline(always)]
    unsafe fn expand_scales<I: Isa, const FOLDED: bool>(isa: I, views: &[BlockCodes; PANEL_ROWS], out: *mut Expanded) {
        // SAFETY: 16 bytes follow each field read, writes stay inside the expanded block, whose registers end at row 16.
        unsafe {
            for first in (0..PANEL_ROWS).step_by(I::LANES) {
                if Self::SCALED {
                    let scales = isa.transpose_rows(
                        #[inline(always)]
                        |row| (&raw const views.get_unchecked(first + row).scales).cast(),
                    );
                    for p in 0..Self::PAIRS {
                        Self::store_pair(isa, out, p, first, Self::unbiased(isa, pair_of_four(isa, scales[p / 2], p)));
                    }
                }
                if MIN {
                    let mins = isa.transpose_rows(
                        #[inline(always)]
                        |row| (&raw const views.get_unchecked(first + row).mins).cast(),
                    );
                    for p in 0..Self::PAIRS {
                        isa.store(
                            (&raw mut (*out).min_pairs[p]).cast::<u8>().add(first * 4),
                            pair_of_four(isa, mins[p / 2], p),
                        );
                    }
                }
                let [d, dmin, ..] = isa.transpose_rows(
                    #[inline(always)]
                    |row| (&raw const views.get_unchecked(first + row).d).cast(),
                );
                let [d, dmin] = if Self::SCALED {
                    isa.widen_f16_halves(isa.or(d, isa.shl(dmin, 16)))
                } else {
                    [isa.bits_f32(d); 2]
                };
                isa.store_f32((&raw mut (*out).d).cast::<f32>().add(first), d);
                if MIN {
                    isa.store_f32((&raw mut (*out).dmin).cast::<f32>().add(first), dmin);
                }
            }
            if FOLDED {
                Self::fold(isa, out);
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
                let operands = ExpandedBlock::new(isa, panels.add(at), stride);
                Self::accumulate::<I, MR, NR, W, FOLDED>(isa, x, columns, block, &operands, &mut acc);
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
        // SAFETY: the caller's promise is the same.
        unsafe {
            let weights = PackedBlock::<I, Self, MR, AHEAD>::new(isa, tile, row, ahead);
            Self::accumulate_packed::<I, MR, NR, W, AHEAD>(isa, x, columns, block, &weights, acc);
        }
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
