//! Superblocks of 256 with integer group scales: `y += dx·(d·Σ_g scale_g·Σ(code − BIAS)·x − dmin·Σ_g min_g·Σx)`.
//!
//! Both inner sums are exact in i32: at most 16 groups · 128 · (16 · 63 · 127) < 2³¹ for 6-bit codes.

use super::{
    Inputs,
    driver::{self, Job},
    flat::{biased, remaining_bias},
    planes::{
        UNIT_CODES, UNIT_STEPS, pack_pairs, pack_unit, pairs_bytes, unit_bytes, unpack_code, unpack_pair, unpack_unit,
        unpack_value,
    },
    tile::{IntTile, SuperTile, Tile},
};
use crate::{
    QuantBlock,
    activation::Kinds,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::{array::from_fn, ops::Range};

const BLOCK: usize = 256;
const UNITS: usize = BLOCK / UNIT_CODES;
/// Pairs of groups, at most: 256 / 16 / 2.
const MAX_PAIRS: usize = 8;

/// A superblock of 16 rows, ready to multiply.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Expanded {
    codes: [u8; UNITS * UNIT_STEPS * VECTOR_BYTES],
    header: Header,
}

/// A superblock's scales: what the microkernel reads besides codes. Values are lanes of rows.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Header {
    /// Of each group, as the instruction set prepared them.
    scales: [[i32; PANEL_ROWS]; 2 * MAX_PAIRS],
    /// Of each pair of groups: the minima, or the scales that carry a bias.
    pairs: [[i32; PANEL_ROWS]; MAX_PAIRS],
    d: [f32; PANEL_ROWS],
    dmin: [f32; PANEL_ROWS],
}

impl Header {
    const EMPTY: Header = Header {
        scales: [[0; PANEL_ROWS]; 2 * MAX_PAIRS],
        pairs: [[0; PANEL_ROWS]; MAX_PAIRS],
        d: [0.0; PANEL_ROWS],
        dmin: [0.0; PANEL_ROWS],
    };
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    const SCALED: bool = SCALE_BITS != 0;
    /// Pairs of groups.
    const PAIRS: usize = BLOCK / GROUP / 2;
    /// Pairs stored: of scales, then of minima.
    const STORED_PAIRS: usize = if Self::SCALED { Self::PAIRS * (1 + MIN as usize) } else { 0 };
    const PAIRS_BYTES: usize = pairs_bytes(SCALE_BITS, Self::STORED_PAIRS);
    const D_BYTES: usize = PANEL_ROWS * if Self::SCALED { 2 } else { 4 };
    const DMIN_BYTES: usize = if MIN { PANEL_ROWS * 2 } else { 0 };
    const HEADER_BYTES: usize = Self::PAIRS_BYTES + Self::D_BYTES + Self::DMIN_BYTES;

    const VALID: () = {
        assert!(GROUP == 16 || GROUP == 32 || (GROUP == BLOCK && !Self::SCALED), "groups of 16 or 32, or no scales");
        assert!(!(MIN && BIAS != 0), "minima and a bias at once");
        assert!(!MIN || Self::SCALED, "minima without scales");
        assert!(matches!(SCALE_BITS, 0 | 4 | 6 | 8), "scales of 4, 6 or 8 bits");
    };

    /// The integer view of one row of a packed block: what `pack` was given.
    fn unpack_row(tile: &[u8], row: usize, out: &mut BlockCodes) {
        let (header, units) = tile.split_at(Self::HEADER_BYTES);
        let (pairs, d) = header.split_at(Self::PAIRS_BYTES);
        for (unit, codes) in units.chunks_exact(unit_bytes(BITS)).zip(out.codes.chunks_exact_mut(UNIT_CODES)) {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = unpack_code(BITS, unit, row, i);
            }
        }
        let groups = 2 * Self::PAIRS;
        for i in 0..2 * Self::STORED_PAIRS {
            let value = unpack_value(SCALE_BITS, Self::STORED_PAIRS, pairs, row, i);
            if i < groups {
                out.scales[i] = value;
            } else {
                out.mins[i - groups] = value;
            }
        }
        let half = |at: usize| u16::from_le_bytes([d[at], d[at + 1]]) as u32;
        out.d = if Self::SCALED { half(row * 2) } else { half(row * 4) | half(row * 4 + 2) << 16 };
        out.dmin = if MIN { half(Self::D_BYTES + row * 2) } else { 0 };
    }

    /// Whether a bias is left that the instruction set wants summed over pairs of scales.
    const fn bias_in_pairs<I: Isa>() -> bool {
        Self::SCALED && !I::BIAS_AS_INIT && remaining_bias::<I>(BITS, BIAS) != 0
    }

    /// Fills in the header for one register of rows, from its stored pairs.
    ///
    /// # Safety
    /// The register's rows are inside the header.
    #[inline(always)]
    unsafe fn prepare<I: Isa>(
        isa: I,
        rows: usize,
        pair: impl Fn(usize) -> I::V,
        d: I::F,
        dmin: I::F,
        out: *mut Header,
    ) {
        // SAFETY: `rows` is below 16 and a register's lanes end at 16; group and pair indices are below their arrays'.
        unsafe {
            let scale_at = |group: usize| (&raw mut (*out).scales[group]).cast::<u8>().add(rows * 4);
            let pair_at = |index: usize| (&raw mut (*out).pairs[index]).cast::<u8>().add(rows * 4);
            if Self::SCALED {
                let (half, bias) = (isa.splat(0xFFFF), isa.splat(SCALE_BIAS));
                for p in 0..Self::PAIRS {
                    let both = pair(p);
                    let mut low = isa.and(both, half);
                    let mut high = isa.shr(both, 16);
                    if SCALE_BIAS != 0 {
                        (low, high) = (isa.sub(low, bias), isa.sub(high, bias));
                    }
                    isa.store(scale_at(2 * p), isa.prepare_scale(low));
                    isa.store(scale_at(2 * p + 1), isa.prepare_scale(high));
                    if Self::bias_in_pairs::<I>() {
                        isa.store(pair_at(p), isa.or(isa.and(low, half), isa.shl(high, 16)));
                    }
                }
            }
            if MIN {
                for p in 0..Self::PAIRS {
                    isa.store(pair_at(p), pair(Self::PAIRS + p));
                }
                isa.store_f32((&raw mut (*out).dmin).cast::<f32>().add(rows), dmin);
            }
            isa.store_f32((&raw mut (*out).d).cast::<f32>().add(rows), d);
        }
    }

    /// The header of a packed tile.
    ///
    /// # Safety
    /// `tile` points to a tile, `out` to a header.
    #[inline(always)]
    unsafe fn unpack_header<I: Isa>(isa: I, tile: *const u8, rows: usize, out: *mut Header) {
        // SAFETY: pairs, d and dmin lie at the tile's start, in this order.
        unsafe {
            let d_at = tile.add(Self::PAIRS_BYTES);
            let d =
                if Self::SCALED { isa.load_f16(d_at.add(rows * 2)) } else { isa.load_f32(d_at.add(rows * 4).cast()) };
            let dmin = if MIN { isa.load_f16(d_at.add(Self::D_BYTES + rows * 2)) } else { d };
            Self::prepare(
                isa,
                rows,
                #[inline(always)]
                |p| unpack_pair::<I, SCALE_BITS>(isa, tile.add(rows * 4), Self::STORED_PAIRS, p),
                d,
                dmin,
                out,
            );
        }
    }

    /// One superblock's product added to the sums: what decode and prefill share. `w(unit, step, i)` gives codes.
    ///
    /// # Safety
    /// `x` holds column `column + NR − 1` and superblock `block`; the headers are filled in.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn accumulate<I: Isa, const MR: usize, const NR: usize, U>(
        isa: I,
        x: &Inputs<'_>,
        column: usize,
        block: usize,
        header: [*const Header; MR],
        rows: impl Fn(usize) -> usize,
        unit_codes: impl Fn(usize) -> U,
        w: impl Fn(&U, usize, usize) -> I::V,
        acc: &mut [[I::F; NR]; MR],
    ) {
        let superblocks = x.k / BLOCK;
        // SAFETY: indices are (column + j) of m and `block` of k / 256, in steps of the arrays' own lengths.
        unsafe {
            let at: [usize; NR] = from_fn(
                #[inline(always)]
                |j| (column + j) * superblocks + block,
            );
            let codes: [*const u8; NR] = from_fn(
                #[inline(always)]
                |j| x.codes.as_ptr().add(at[j] * BLOCK).cast(),
            );
            let neg_sums: [*const i32; NR] = from_fn(
                #[inline(always)]
                |j| x.neg_sums.as_ptr().add(at[j] * (BLOCK / 16)),
            );
            let bias = remaining_bias::<I>(BITS, BIAS);
            let scale = |group: usize| -> [I::V; MR] {
                from_fn(
                    #[inline(always)]
                    |i| isa.load((&raw const (*header[i]).scales[group]).cast::<u8>().add(rows(i) * 4)),
                )
            };
            let mut sums = [[isa.splat(0); NR]; MR];
            for unit in 0..UNITS {
                let unpacked = unit_codes(unit);
                if GROUP == 16 {
                    for half in 0..2 {
                        let group = unit * 2 + half;
                        let init = from_fn(
                            #[inline(always)]
                            |j| if I::BIAS_AS_INIT { biased(isa, bias, neg_sums[j].add(group)) } else { isa.splat(0) },
                        );
                        isa.dot_scaled::<BITS, { UNIT_STEPS / 2 }, MR, NR>(
                            &mut sums,
                            init,
                            scale(group),
                            #[inline(always)]
                            |step, i| w(&unpacked, half * (UNIT_STEPS / 2) + step, i),
                            #[inline(always)]
                            |step, j| isa.broadcast(codes[j].add(group * 16 + step * 4)),
                        );
                    }
                    continue;
                }
                let init: [I::V; NR] = from_fn(
                    #[inline(always)]
                    |j| {
                        if bias == 0 || (Self::SCALED && !I::BIAS_AS_INIT) {
                            return isa.splat(0);
                        }
                        let low = biased(isa, bias, neg_sums[j].add(2 * unit));
                        isa.add(low, biased(isa, bias, neg_sums[j].add(2 * unit + 1)))
                    },
                );
                if Self::SCALED {
                    isa.dot_scaled::<BITS, UNIT_STEPS, MR, NR>(
                        &mut sums,
                        init,
                        scale(unit),
                        #[inline(always)]
                        |step, i| w(&unpacked, step, i),
                        #[inline(always)]
                        |step, j| isa.broadcast(codes[j].add(unit * UNIT_CODES + step * 4)),
                    );
                } else {
                    let dots = isa.dot::<BITS, UNIT_STEPS, MR, NR>(
                        init,
                        #[inline(always)]
                        |step, i| w(&unpacked, step, i),
                        #[inline(always)]
                        |step, j| isa.broadcast(codes[j].add(unit * UNIT_CODES + step * 4)),
                    );
                    for i in 0..MR {
                        for j in 0..NR {
                            sums[i][j] = isa.add(sums[i][j], dots[i][j]);
                        }
                    }
                }
            }
            let group_sums = |j: usize, p: usize| {
                let (all, count) = if GROUP == 16 { (x.sums16, BLOCK / 16) } else { (x.sums32, BLOCK / 32) };
                isa.broadcast(all.as_ptr().add(at[j] * count + 2 * p).cast())
            };
            let pair_dot = |i: usize, j: usize| {
                let mut sum = isa.splat(0);
                for p in 0..Self::PAIRS {
                    let pair = isa.load((&raw const (*header[i]).pairs[p]).cast::<u8>().add(rows(i) * 4));
                    sum = isa.dot_i16(sum, pair, group_sums(j, p));
                }
                sum
            };
            for j in 0..NR {
                let dx = isa.splat_f32(*x.d.as_ptr().add(at[j]));
                for i in 0..MR {
                    let mut sum = sums[i][j];
                    if Self::bias_in_pairs::<I>() {
                        sum = isa.sub(sum, isa.mul(pair_dot(i, j), isa.splat(bias)));
                    }
                    let d = isa.load_f32((&raw const (*header[i]).d).cast::<f32>().add(rows(i)));
                    let mut term = isa.mul_f32(d, isa.to_f32(sum));
                    if MIN {
                        let dmin = isa.load_f32((&raw const (*header[i]).dmin).cast::<f32>().add(rows(i)));
                        term = isa.sub_f32(term, isa.mul_f32(dmin, isa.to_f32(pair_dot(i, j))));
                    }
                    acc[i][j] = isa.add_f32(acc[i][j], isa.mul_f32(term, dx));
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
    const TILE_BYTES: usize = Self::HEADER_BYTES + UNITS * unit_bytes(BITS);

    fn multiply<F: QuantBlock<Tile = Self>>(job: &Job<'_>, panels: Range<usize>) {
        const { Self::VALID };
        driver::multiply_int::<F, Self>(job, panels);
    }

    fn pack<F: QuantBlock<Tile = Self>>(rows: &[F::Block], out: &mut [u8]) {
        let codes = driver::codes_of::<F>(rows);
        let (header, units) = out.split_at_mut(Self::HEADER_BYTES);
        let (pairs, d) = header.split_at_mut(Self::PAIRS_BYTES);
        let groups = 2 * Self::PAIRS;
        let value = |row: usize, i: usize| {
            (if i < groups { codes[row].scales[i] } else { codes[row].mins[i - groups] }) as u16 as u32
        };
        pack_pairs(SCALE_BITS, Self::STORED_PAIRS, value, pairs);
        for (row, block) in codes.iter().enumerate() {
            if Self::SCALED {
                d[row * 2..][..2].copy_from_slice(&(block.d as u16).to_le_bytes());
            } else {
                d[row * 4..][..4].copy_from_slice(&block.d.to_le_bytes());
            }
            if MIN {
                d[Self::D_BYTES + row * 2..][..2].copy_from_slice(&(block.dmin as u16).to_le_bytes());
            }
        }
        for (unit, out) in units.chunks_exact_mut(unit_bytes(BITS)).enumerate() {
            pack_unit(BITS, |row| &codes[row].codes.as_chunks().0[unit], out);
        }
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

    #[inline(always)]
    unsafe fn expand_packed<I: Isa>(isa: I, tile: *const u8, out: *mut Expanded) {
        // SAFETY: reads stay inside the tile, writes inside the expanded block.
        unsafe {
            for r in 0..I::REGISTERS {
                let rows = r * I::LANES;
                Self::unpack_header(isa, tile, rows, &raw mut (*out).header);
                for unit in 0..UNITS {
                    let from = tile.add(Self::HEADER_BYTES + unit * unit_bytes(BITS) + rows * 4);
                    let to = (&raw mut (*out).codes).cast::<u8>().add(unit * UNIT_STEPS * VECTOR_BYTES + rows * 4);
                    for (step, v) in unpack_unit::<I, BITS>(isa, from).into_iter().enumerate() {
                        isa.store(to.add(step * VECTOR_BYTES), v);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn expand_codes<I: Isa>(isa: I, rows: &[BlockCodes; PANEL_ROWS], out: *mut Expanded) {
        const INTERLEAVED: usize = UNIT_STEPS * VECTOR_BYTES;
        let stride = size_of::<BlockCodes>();
        // SAFETY: 32 bytes follow each field read, writes stay inside the expanded block.
        unsafe {
            for unit in 0..UNITS {
                let from = (&raw const rows[0].codes).cast::<u8>().add(unit * UNIT_CODES);
                let to = (&raw mut (*out).codes).cast::<u8>().add(unit * INTERLEAVED);
                isa.interleave_rows(from, stride, to);
            }
            let (mut scales, mut mins, mut floats) = ([0u8; INTERLEAVED], [0u8; INTERLEAVED], [0u8; INTERLEAVED]);
            if Self::SCALED {
                isa.interleave_rows((&raw const rows[0].scales).cast(), stride, scales.as_mut_ptr());
            }
            if MIN {
                isa.interleave_rows((&raw const rows[0].mins).cast(), stride, mins.as_mut_ptr());
            }
            isa.interleave_rows((&raw const rows[0].d).cast(), stride, floats.as_mut_ptr());
            for r in 0..I::REGISTERS {
                let at = r * I::LANES * 4;
                let bits = isa.load(floats.as_ptr().add(at));
                let d = if Self::SCALED { isa.widen_f16(bits) } else { isa.bits_f32(bits) };
                let dmin = if MIN { isa.widen_f16(isa.load(floats.as_ptr().add(VECTOR_BYTES + at))) } else { d };
                Self::prepare(
                    isa,
                    r * I::LANES,
                    #[inline(always)]
                    |p| {
                        if p < Self::PAIRS {
                            isa.load(scales.as_ptr().add(p * VECTOR_BYTES + at))
                        } else {
                            isa.load(mins.as_ptr().add((p - Self::PAIRS) * VECTOR_BYTES + at))
                        }
                    },
                    d,
                    dmin,
                    &raw mut (*out).header,
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_expanded<I: Isa, const MR: usize, const NR: usize>(
        isa: I,
        panels: *const Expanded,
        stride: usize,
        x: &Inputs<'_>,
        column: usize,
        blocks: Range<usize>,
        mut acc: [[I::F; NR]; MR],
    ) -> [[I::F; NR]; MR] {
        for (at, block) in blocks.enumerate() {
            // SAFETY: the caller vouches for the panels and for x.
            unsafe {
                let panel: [*const Expanded; MR] = from_fn(
                    #[inline(always)]
                    |i| panels.add(i / I::REGISTERS * stride + at),
                );
                let header = from_fn(
                    #[inline(always)]
                    |i| &raw const (*panel[i]).header,
                );
                Self::accumulate::<I, MR, NR, _>(
                    isa,
                    x,
                    column,
                    block,
                    header,
                    #[inline(always)]
                    |i| i % I::REGISTERS * I::LANES,
                    #[inline(always)]
                    |unit| unit * UNIT_STEPS * VECTOR_BYTES,
                    #[inline(always)]
                    |unit, step, i| {
                        let rows = i % I::REGISTERS * I::LANES;
                        isa.load((&raw const (*panel[i]).codes).cast::<u8>().add(unit + step * VECTOR_BYTES + rows * 4))
                    },
                    &mut acc,
                );
            }
        }
        acc
    }

    #[inline(always)]
    unsafe fn multiply_packed<I: Isa>(
        isa: I,
        panel: *const u8,
        blocks: usize,
        x: &Inputs<'_>,
        column: usize,
        out: *mut f32,
    ) {
        // 16 registers are the most that a panel takes (one lane each).
        let mut acc = [[[isa.splat_f32(0.0)]]; PANEL_ROWS];
        let mut header = Header::EMPTY;
        for block in 0..blocks {
            // SAFETY: the caller vouches for the tiles and for x.
            unsafe {
                let tile = panel.add(block * Self::TILE_BYTES);
                for (r, acc) in acc.iter_mut().enumerate().take(I::REGISTERS) {
                    let rows = r * I::LANES;
                    Self::unpack_header(isa, tile, rows, &raw mut header);
                    Self::accumulate::<I, 1, 1, _>(
                        isa,
                        x,
                        column,
                        block,
                        [&raw const header],
                        #[inline(always)]
                        |_| rows,
                        #[inline(always)]
                        |unit| {
                            let at = Self::HEADER_BYTES + unit * unit_bytes(BITS) + rows * 4;
                            unpack_unit::<I, BITS>(isa, tile.add(at))
                        },
                        #[inline(always)]
                        |codes, step, _| codes[step],
                        acc,
                    );
                }
            }
        }
        for (r, acc) in acc.iter().enumerate().take(I::REGISTERS) {
            // SAFETY: the caller vouches for 16 floats.
            unsafe { isa.store_f32(out.add(r * I::LANES), acc[0][0]) };
        }
    }
}
