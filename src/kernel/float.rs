//! Products in f32: float formats, and every format over f32 activations.
//!
//! Weights are dequantized for a chunk of k of one panel at a time (never a whole matrix), interleaved, and multiplied by
//! all columns of x; floats, for a few columns, as they are read (`panel`, `row`). A row's sum runs over k in order, each product
//! rounded before it is added.
//!
//! Instructions for 64 products of the 2 × 8 tile with AVX-512: four multiplications, four additions, half a load of weights and
//! two broadcasts of x. Multiplications and additions limit it: Intel's servers start two of them a cycle, Zen 4 one of each.

mod panel;
mod row;
mod turn;

use super::{
    GROUP_COLUMNS, Output, Weights,
    driver::{Job, MAX_PANELS, Operand},
    group_columns,
    panel_writer::PanelWriter,
    stream::{AHEAD_BYTES, LINE_BYTES, ask_for_bursts, prefetch},
    tile::{FloatTile, Tile},
};
use crate::{
    QuantBlock,
    activation::Kinds,
    simd::{Isa, IsaTask, PANEL_ROWS, RegisterTile, VECTOR_BYTES, array_of},
};
use core::ops::Range;
use panel::PanelTask;
use row::RowTask;

/// Columns of W in a chunk: a multiple of every block, and with its interleaved copy 32 KiB.
const CHUNK: usize = 256;

/// A chunk of 16 rows.
#[repr(C, align(64))]
struct Rows([[f32; CHUNK]; PANEL_ROWS]);

/// A chunk of 16 rows, lanes of rows.
#[repr(C, align(64))]
struct Interleaved([[f32; PANEL_ROWS]; CHUNK]);

/// Multiplies the rows of `panels` by `values` (`[m, k]`), whatever the format.
pub(super) fn multiply<F: QuantBlock>(job: &Job<'_>, values: &[f32], panels: Range<usize>) {
    job.level.dispatch(FloatTask::<F> { job, values, panels, marker: core::marker::PhantomData });
}

struct FloatTask<'a, F> {
    job: &'a Job<'a>,
    values: &'a [f32],
    panels: Range<usize>,
    marker: core::marker::PhantomData<F>,
}

impl<F: QuantBlock> IsaTask for FloatTask<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (k, m) = (self.job.k, self.job.m());
        let mut rows = Rows([[0.0; CHUNK]; PANEL_ROWS]);
        let mut interleaved = [const { Interleaved([[0.0; PANEL_ROWS]; CHUNK]) }; MAX_PANELS];
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            let panels = I::PANELS.min(self.panels.end - panel);
            let valid = self.job.rows_in(panel, panels);
            let mut start = 0;
            loop {
                let chunk = start..k.min(start + CHUNK);
                for (p, out) in interleaved.iter_mut().enumerate().take(I::PANELS) {
                    self.interleave(isa, panel + p.min(panels - 1), chunk.clone(), &mut rows, out);
                }
                let mut kernel = FloatKernel {
                    panels: &interleaved,
                    x: self.values,
                    k,
                    m,
                    group: 0,
                    chunk: chunk.clone(),
                    rows: valid,
                    y: self.job.y,
                    row: panel * PANEL_ROWS,
                };
                for group in (0..m).step_by(GROUP_COLUMNS) {
                    kernel.group = group;
                    // SAFETY: x has the group, rows are inside y, and these are this task's.
                    unsafe { isa.register_tile(group_columns(group, m).1, &mut kernel) };
                }
                start = chunk.end;
                if start >= k {
                    break;
                }
            }
            panel += panels;
        }
    }
}

impl<F: QuantBlock> FloatTask<'_, F> {
    /// The chunk's weights of 16 rows, interleaved; `rows` is scratch.
    #[inline(always)]
    fn interleave<I: Isa>(&self, isa: I, panel: usize, chunk: Range<usize>, rows: &mut Rows, out: &mut Interleaved) {
        let blocks = chunk.start / F::BLOCK..chunk.end / F::BLOCK;
        match self.job.weights {
            Weights::Native(native) => {
                for (row, out) in rows.0.iter_mut().enumerate() {
                    let blocks = &self.job.native_row::<F>(native, panel, row)[blocks.clone()];
                    // As many of the row's blocks behind these.
                    prefetch(isa, blocks.as_ptr_range().end.cast(), size_of_val(blocks));
                    F::Tile::dequantize_native::<F, I>(isa, blocks, out);
                }
            }
            Weights::Packed(packed) => {
                let tile_bytes = F::Tile::TILE_BYTES;
                let tiles = self.job.packed_panels(packed, panel..panel + 1, self.job.k / F::BLOCK * tile_bytes);
                let tiles = &tiles[blocks.start * tile_bytes..blocks.end * tile_bytes];
                if F::Tile::widen_packed(isa, tiles, &mut out.0) {
                    return;
                }
                for (row, out) in rows.0.iter_mut().enumerate() {
                    for (tile, out) in tiles.chunks_exact(tile_bytes).zip(out.chunks_exact_mut(F::BLOCK)) {
                        F::Tile::dequantize_packed(tile, row, out);
                    }
                }
            }
        }
        for step in (0..chunk.len()).step_by(8) {
            // SAFETY: CHUNK is a multiple of 8: 32 bytes in each row, 8 vectors at `out`.
            unsafe {
                let from = (&raw const rows.0[0]).cast::<u8>().add(step * 4);
                isa.interleave_rows::<PANEL_ROWS>(from, CHUNK * 4, (&raw mut out.0[step]).cast());
            }
        }
    }
}

struct FloatKernel<'a> {
    panels: &'a [Interleaved; MAX_PANELS],
    x: &'a [f32],
    k: usize,
    m: usize,
    /// The first column of the group of columns.
    group: usize,
    chunk: Range<usize>,
    rows: usize,
    y: Output,
    row: usize,
}

impl RegisterTile for FloatKernel<'_> {
    #[inline(always)]
    unsafe fn run<I: Isa, const MR: usize, const NR: usize, const W: usize>(&mut self, isa: I, first: usize) {
        let column = self.group + first;
        if column >= self.m {
            return;
        }
        // SAFETY: the driver vouches for the group and for rows; a column past the last stands for it and is not stored.
        unsafe {
            let (y, columns) = (self.y.at(column, self.row), self.m - column);
            let mut acc = y.load::<I, MR, NR>(isa, columns, self.rows, self.chunk.start == 0);
            let x: [*const f32; NR] = array_of(
                #[inline(always)]
                |j| self.x.as_ptr().add((column + j).min(self.m - 1) * self.k + self.chunk.start),
            );
            let w = self.panels.as_ptr().cast::<f32>();
            for step in 0..self.chunk.len() {
                let weights: [I::F; MR] = array_of(
                    #[inline(always)]
                    |i| {
                        let panel = w.add(i / I::REGISTERS * CHUNK * PANEL_ROWS);
                        isa.load_f32(panel.add(step * PANEL_ROWS + i % I::REGISTERS * I::LANES))
                    },
                );
                for j in 0..NR {
                    let xs = isa.splat_f32(*x[j].add(step));
                    for i in 0..MR {
                        acc[i][j] = isa.add_f32(acc[i][j], isa.mul_f32(weights[i], xs));
                    }
                }
            }
            y.store::<I, MR, NR>(isa, columns, self.rows, acc);
        }
    }
}

impl<const BITS: u32, const EXPONENT_BITS: u32> FloatTile<BITS, EXPONENT_BITS> {
    const BYTES: usize = BITS as usize / 8;

    /// `LANES` weights.
    ///
    /// # Safety
    /// They are readable at `from`.
    #[inline(always)]
    unsafe fn widen_lanes<I: Isa>(isa: I, from: *const u8) -> I::F {
        // SAFETY: the caller's promise.
        unsafe {
            match (BITS, EXPONENT_BITS) {
                (16, 5) => isa.load_f16(from),
                (16, _) => isa.load_bf16(from),
                _ => isa.load_f32(from.cast()),
            }
        }
    }

    /// A weight from its little-endian bytes.
    #[inline(always)]
    fn widen(bytes: &[u8]) -> f32 {
        match (bytes, EXPONENT_BITS) {
            (&[a, b], 5) => half::f16::from_le_bytes([a, b]).to_f32_const(),
            (&[a, b], _) => f32::from_le_bytes([0, 0, a, b]),
            (&[a, b, c, d], _) => f32::from_le_bytes([a, b, c, d]),
            _ => 0.0,
        }
    }
}

impl<const BITS: u32, const EXPONENT_BITS: u32> Tile for FloatTile<BITS, EXPONENT_BITS> {
    const BLOCK: usize = 1;
    const BITS: u32 = BITS;
    const BIAS: i32 = 0;
    const GROUP: usize = 1;
    const MIN: bool = false;
    const KINDS: Kinds = Kinds::F32;
    const KERNEL: &'static str = match (BITS, EXPONENT_BITS) {
        (32, _) => "f32",
        (16, 5) => "f16",
        (16, 8) => "bf16",
        _ => "float",
    };
    const TILE_BYTES: usize = BITS as usize / 8 * PANEL_ROWS;

    fn multiply<F: QuantBlock<Tile = Self>>(job: &Job<'_>, panels: Range<usize>) {
        match (job.x, job.weights) {
            (Operand::F32 { values, m }, Weights::Packed(packed)) if m <= GROUP_COLUMNS => {
                job.level.dispatch(PanelTask::<BITS, EXPONENT_BITS> { job, packed, values, m, panels });
            }
            (Operand::F32 { values, m }, Weights::Native(native)) if m <= GROUP_COLUMNS => {
                let rows = job.native_rows::<F>(native, panels.start, job.rows_in(panels.start, panels.len()));
                let rows = bytemuck::cast_slice(rows);
                let left = job.level.dispatch(RowTask::<BITS, EXPONENT_BITS> { job, rows, values, m, panels });
                if !left.is_empty() {
                    multiply::<F>(job, values, left);
                }
            }
            (Operand::F32 { values, .. }, _) => multiply::<F>(job, values, panels),
            (Operand::Quantized(_), _) => {}
        }
    }

    #[inline(always)]
    fn pack<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, rows: &[&[F::Block]], out: &mut [u8]) {
        let row_bytes = out.len() / PANEL_ROWS;
        let mut whole = 0;
        if let Ok(rows) = <&[&[F::Block]; PANEL_ROWS]>::try_from(rows) {
            whole = row_bytes - row_bytes % LINE_BYTES;
            let mut writer = PanelWriter::new(&mut out[..whole * PANEL_ROWS]);
            for line in (0..whole).step_by(LINE_BYTES) {
                ask_for_bursts(
                    isa,
                    #[inline(always)]
                    |row| rows[row].as_ptr().cast(),
                    row_bytes,
                    line,
                );
                writer.write(
                    isa,
                    LINE_BYTES * PANEL_ROWS,
                    #[inline(always)]
                    // SAFETY: rows are as long as the tiles of `out`, and have the line.
                    |tiles| unsafe {
                        Self::turn::<I, false>(
                            isa,
                            #[inline(always)]
                            |row| rows[row].as_ptr().cast::<u8>().add(line),
                            tiles.as_mut_ptr(),
                        );
                    },
                );
            }
        }
        for (block, tile) in out.chunks_exact_mut(Self::TILE_BYTES).enumerate().skip(whole / Self::BYTES) {
            let mut tile = tile.chunks_exact_mut(Self::BYTES);
            for (row, out) in rows.iter().zip(&mut tile) {
                out.copy_from_slice(bytemuck::bytes_of(&row[block]));
            }
            tile.for_each(|missing| missing.fill(0));
        }
    }

    #[inline(always)]
    fn dequantize_native<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, blocks: &[F::Block], out: &mut [f32]) {
        let bytes: &[u8] = bytemuck::cast_slice(blocks);
        let (lanes, tail) = out[..blocks.len()].split_at_mut(blocks.len() / I::LANES * I::LANES);
        let mut from = bytes.chunks_exact(I::LANES * Self::BYTES);
        for (out, from) in lanes.chunks_exact_mut(I::LANES).zip(&mut from) {
            // SAFETY: both chunks hold LANES elements.
            unsafe { isa.store_f32(out.as_mut_ptr(), Self::widen_lanes(isa, from.as_ptr())) };
        }
        for (out, from) in tail.iter_mut().zip(from.remainder().chunks_exact(Self::BYTES)) {
            *out = Self::widen(from);
        }
    }

    #[inline(always)]
    fn widen_packed<I: Isa>(isa: I, tiles: &[u8], out: &mut [[f32; PANEL_ROWS]]) -> bool {
        for (out, tile) in out.iter_mut().zip(tiles.chunks_exact(Self::TILE_BYTES)) {
            prefetch(isa, tile.as_ptr().wrapping_add(AHEAD_BYTES), Self::TILE_BYTES);
            for rows in (0..PANEL_ROWS).step_by(I::LANES) {
                // SAFETY: a tile and a step hold 16 rows.
                unsafe {
                    let lanes = Self::widen_lanes(isa, tile.as_ptr().add(rows * Self::BYTES));
                    isa.store_f32(out.as_mut_ptr().add(rows), lanes);
                }
            }
        }
        true
    }

    #[inline(always)]
    fn dequantize_packed(tile: &[u8], row: usize, out: &mut [f32]) {
        out[0] = Self::widen(&tile[row * Self::BYTES..][..Self::BYTES]);
    }
}

const _: () = assert!(VECTOR_BYTES == PANEL_ROWS * size_of::<f32>());
