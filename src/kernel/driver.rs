//! The loops around the microkernels: panels, chunks of k, columns of x.

use super::{
    Columns, GROUP_COLUMNS, Inputs, Output, expand::expand_rows, float, group_columns, native, panel::PackedKernel,
    stream::prefetch, tile::IntTile,
};
use crate::{
    QuantBlock,
    simd::{Isa, IsaTask, Level, PANEL_ROWS, RegisterTile, array_of, is_amd_avx512},
};
use core::{marker::PhantomData, mem::MaybeUninit, ops::Range};

/// A weight matrix's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// `n` rows of blocks as they lie in the file.
    Native(&'a [u8]),
    /// Panels of 16 rows.
    Packed(&'a [u8]),
}

/// What the rows are multiplied by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// Quantized activations: integer kernels.
    Quantized(Inputs<'a>),
    /// `m` rows of f32.
    F32 { values: &'a [f32], m: usize },
}

/// One matmul, checked: every length fits the shapes.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    pub(crate) level: Level,
    pub(crate) weights: Weights<'a>,
    /// Rows of W to multiply; the first is a multiple of 16.
    pub(crate) rows: (usize, usize),
    pub(crate) k: usize,
    pub(crate) x: Operand<'a>,
    /// Element (0, 0) is row `rows.0` of W.
    pub(crate) y: Output,
}

impl Job<'_> {
    /// Rows of x.
    pub(crate) fn m(&self) -> usize {
        match self.x {
            Operand::Quantized(x) => x.m,
            Operand::F32 { m, .. } => m,
        }
    }

    /// Panels that the rows take.
    pub(crate) fn panels(&self) -> usize {
        super::panels_of(self.rows.1 - self.rows.0)
    }

    /// Rows of the panels from `panel` on, at most `panels` of them.
    #[inline(always)]
    pub(super) fn rows_in(&self, panel: usize, panels: usize) -> usize {
        (self.rows.1 - self.rows.0 - panel * PANEL_ROWS).min(panels * PANEL_ROWS)
    }

    /// The packed bytes of `panels`, given the bytes of a panel.
    #[inline(always)]
    pub(super) fn packed_panels<'a>(&self, packed: &'a [u8], panels: Range<usize>, panel_bytes: usize) -> &'a [u8] {
        &packed[(self.rows.0 / PANEL_ROWS + panels.start) * panel_bytes..][..panels.len() * panel_bytes]
    }

    /// Row `row` of `panel` in native blocks; rows past the last stand for the last.
    #[inline(always)]
    pub(super) fn native_row<'a, F: QuantBlock>(&self, native: &'a [u8], panel: usize, row: usize) -> &'a [F::Block] {
        self.native_blocks::<F>(native, (self.rows.0 + panel * PANEL_ROWS + row).min(self.rows.1 - 1), 1)
    }

    /// The first `rows` rows of `panel` in native blocks, one after the other.
    #[inline(always)]
    pub(super) fn native_rows<'a, F: QuantBlock>(&self, native: &'a [u8], panel: usize, rows: usize) -> &'a [F::Block] {
        self.native_blocks::<F>(native, self.rows.0 + panel * PANEL_ROWS, rows)
    }

    /// The blocks of `rows` rows of W from row `first` on.
    #[inline(always)]
    fn native_blocks<'a, F: QuantBlock>(&self, native: &'a [u8], first: usize, rows: usize) -> &'a [F::Block] {
        let row_bytes = self.k / F::BLOCK * size_of::<F::Block>();
        bytemuck::cast_slice(&native[first * row_bytes..][..rows * row_bytes])
    }
}

/// Bytes of scratch for each panel that is expanded at once: k = 4096 of each panel, and all of it stays in L2.
const PANEL_SCRATCH_BYTES: usize = 104 << 10;
/// Panels at once, over all instruction sets.
pub(super) const MAX_PANELS: usize = 2;

/// Codes of x that stay in L2 while chunks of expanded panels go by: all rows of a slab of k.
pub(super) const X_CODES_BYTES: usize = 1 << 20;
/// Codes of x that stay in L2 while packed panels go by: some rows of x, all of k.
const X_ROWS_BYTES: usize = 256 << 10;
/// Fewer columns at once would have memory bring packed panels too often.
const LEAST_COLUMNS: usize = 32;

/// Whether expanded codes may be products with their groups' scales.
#[inline(always)]
const fn folds<T: IntTile, I: Isa>() -> bool {
    T::FOLDABLE && I::FOLDS_SCALES
}

/// Columns up to which packed panels are unpacked in registers, for all columns anew, instead of expanded once. Where unpacking
/// goes beside the dots it costs less than going through memory. Scales of groups are more to unpack, and folded codes
/// leave fewer multiplications.
#[inline(always)]
fn unpacked_columns<T: IntTile, I: Isa>() -> usize {
    match is_amd_avx512::<I>() && !folds::<T, I>() {
        true if T::GROUP == T::BLOCK => usize::MAX,
        true => 128,
        false => 16,
    }
}

/// Columns up to which folding takes longer than the multiplications that it saves.
const UNFOLDED_COLUMNS: usize = 8;

/// How many of the packed `panels` all of `m` columns meet before the next ones come: columns of one run
/// take all panels as one stream; several runs take each panel while it is in the caches.
#[inline(always)]
pub(super) fn panels_at_once<I: Isa>(m: usize, panels: &Range<usize>) -> usize {
    if m <= I::RUN_COLUMNS { panels.len().max(1) } else { 1 }
}

#[repr(C, align(64))]
struct Scratch([MaybeUninit<u8>; PANEL_SCRATCH_BYTES * MAX_PANELS]);

/// [`Tile::multiply`] for integer tiles.
pub(super) fn multiply_int<F: QuantBlock<Tile = T>, T: IntTile>(job: &Job<'_>, panels: Range<usize>) {
    match job.x {
        Operand::Quantized(x) => job.level.dispatch(IntTask::<F, T> { job, x, panels, marker: PhantomData }),
        Operand::F32 { values, .. } => float::multiply::<F>(job, values, panels),
    }
}

pub(super) struct IntTask<'a, F, T> {
    pub job: &'a Job<'a>,
    pub x: Inputs<'a>,
    pub panels: Range<usize>,
    marker: PhantomData<(F, T)>,
}

impl<F: QuantBlock<Tile = T>, T: IntTile> IsaTask for IntTask<'_, F, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        #[cfg(target_arch = "x86_64")]
        if const { crate::simd::is_avx512::<I>() && T::IN_TILES } {
            let amx = self.amx();
            if let Some(amx) = amx {
                return isa.outlined(
                    #[inline(always)]
                    || self.multiply_tiles(isa, amx),
                );
            }
        }
        match self.job.weights {
            Weights::Packed(packed) if self.x.m <= unpacked_columns::<T, I>() => self.multiply_packed(isa, packed),
            // What keeps tens of KiB on the stack touches each of its pages at its start, most of which are no longer in the
            // caches: more than a microsecond that the others do not have to wait for.
            Weights::Native(native) if self.x.m == 1 => isa.outlined(
                #[inline(always)]
                || native::decode::<F, T, I>(isa, self.job, native, &self.x, self.panels),
            ),
            _ => isa.outlined(
                #[inline(always)]
                || {
                    if const { folds::<T, I>() } && self.x.m > UNFOLDED_COLUMNS {
                        self.expand_and_multiply::<I, true>(isa);
                    } else {
                        self.expand_and_multiply::<I, false>(isa);
                    }
                },
            ),
        }
    }
}

impl<F: QuantBlock<Tile = T>, T: IntTile> IntTask<'_, F, T> {
    /// Codes are unpacked in registers, a panel is read from its start to its end: for as many columns as stay in L2.
    #[inline(always)]
    fn multiply_packed<I: Isa>(self, isa: I, packed: &[u8]) {
        let panel_bytes = self.x.k / T::BLOCK * T::TILE_BYTES;
        let columns_in_l2 = (X_ROWS_BYTES / self.x.k.max(1)).max(LEAST_COLUMNS);
        let groups_at_once = even_part(self.x.m.div_ceil(GROUP_COLUMNS), columns_in_l2 / GROUP_COLUMNS);
        let columns_at_once = GROUP_COLUMNS * groups_at_once.max(1);
        let panels_at_once = panels_at_once::<I>(self.x.m, &self.panels);
        for first_column in (0..self.x.m).step_by(columns_at_once) {
            for first_panel in self.panels.clone().step_by(panels_at_once) {
                let mut kernel = PackedKernel::<T> {
                    panels: self.job.packed_panels(packed, first_panel..first_panel + panels_at_once, panel_bytes),
                    panel_bytes,
                    x: &self.x,
                    group: 0,
                    rows: self.job.rows_in(first_panel, panels_at_once),
                    y: self.job.y,
                    row: first_panel * PANEL_ROWS,
                    tile: PhantomData,
                };
                for group in (first_column..self.x.m.min(first_column + columns_at_once)).step_by(GROUP_COLUMNS) {
                    kernel.group = group;
                    // SAFETY: the panels are whole, x has the group, and these rows of y are this task's.
                    unsafe { isa.column_tile(group_columns(group, self.x.m), &mut kernel) };
                }
            }
        }
    }

    /// Any number of columns: slabs of k, in which chunks of a few panels are expanded once and multiplied by all columns.
    #[inline(always)]
    fn expand_and_multiply<I: Isa, const FOLDED: bool>(self, isa: I) {
        const { assert!(I::PANELS <= MAX_PANELS) };
        let mut scratch = Scratch([MaybeUninit::uninit(); _]);
        let expanded = scratch.0.as_mut_ptr().cast::<T::Expanded>();
        let stride = PANEL_SCRATCH_BYTES / size_of::<T::Expanded>();
        let blocks = self.x.k / T::BLOCK;
        let slab = even_part(blocks, (X_CODES_BYTES / self.x.m / T::BLOCK).max(stride));
        let chunk = even_part(slab, stride);
        let mut slabs = 0..slab;
        loop {
            for first_panel in self.panels.clone().step_by(I::PANELS) {
                let panels = I::PANELS.min(self.panels.end - first_panel);
                let mut start = slabs.start;
                loop {
                    let chunk = start..slabs.end.min(start + chunk);
                    let ahead = self.blocks_ahead(&chunk, &slabs, I::PANELS);
                    for p in 0..I::PANELS {
                        // A missing panel stands for the last one: its sums are not stored.
                        let panel = first_panel + p.min(panels - 1);
                        // SAFETY: a chunk has at most `stride` blocks, and there is scratch for PANELS · stride.
                        unsafe { self.expand::<I, FOLDED>(isa, panel, chunk.clone(), ahead, expanded.add(p * stride)) };
                    }
                    start = chunk.end;
                    let mut kernel = ChunkKernel::<T, FOLDED> {
                        panels: expanded,
                        stride,
                        x: &self.x,
                        group: 0,
                        blocks: chunk,
                        rows: self.job.rows_in(first_panel, panels),
                        y: self.job.y,
                        row: first_panel * PANEL_ROWS,
                    };
                    for group in (0..self.x.m).step_by(GROUP_COLUMNS) {
                        kernel.group = group;
                        // SAFETY: the chunk is expanded, x has the group, rows are inside y, and these are this task's.
                        unsafe { isa.register_tile(group_columns(group, self.x.m).1, &mut kernel) };
                    }
                    if start >= slabs.end {
                        break;
                    }
                }
            }
            slabs = slabs.end..blocks.min(slabs.end + slab);
            if slabs.is_empty() {
                break;
            }
        }
    }

    /// From the blocks of a chunk to those that are expanded next: the next chunk of the slab, or the first of `panels` further
    /// on.
    #[inline(always)]
    pub(super) fn blocks_ahead(&self, chunk: &Range<usize>, slab: &Range<usize>, panels: usize) -> isize {
        if chunk.end < slab.end {
            return chunk.len() as isize;
        }
        let rows = if matches!(self.job.weights, Weights::Native(_)) { PANEL_ROWS } else { 1 };
        (panels * rows * (self.x.k / T::BLOCK)) as isize - (chunk.start - slab.start) as isize
    }

    /// Expands a chunk of one panel, and asks for what lies `ahead` blocks behind it.
    ///
    /// # Safety
    /// `out` has room for the chunk's blocks.
    #[inline(always)]
    pub(super) unsafe fn expand<I: Isa, const FOLDED: bool>(
        &self,
        isa: I,
        panel: usize,
        chunk: Range<usize>,
        ahead: isize,
        out: *mut T::Expanded,
    ) {
        // A function of its own: the compiler takes far longer for one that holds all loops.
        let (job, panel_bytes) = (self.job, self.x.k / T::BLOCK * T::TILE_BYTES);
        isa.outlined(
            #[inline(always)]
            move || match job.weights {
                Weights::Packed(packed) => {
                    let tiles = job.packed_panels(packed, panel..panel + 1, panel_bytes);
                    for (i, block) in chunk.enumerate() {
                        let tile = &tiles[block * T::TILE_BYTES..][..T::TILE_BYTES];
                        let next = tile.as_ptr().wrapping_offset(ahead * T::TILE_BYTES as isize);
                        prefetch(isa, next, T::TILE_BYTES);
                        // SAFETY: a whole tile, and the caller vouches for `out`.
                        unsafe { T::expand_packed::<I, FOLDED>(isa, tile.as_ptr(), out.add(i)) };
                    }
                }
                Weights::Native(native) => {
                    let rows: [&[F::Block]; PANEL_ROWS] =
                        array_of(|row| &job.native_row::<F>(native, panel, row)[chunk.clone()]);
                    // SAFETY: the caller vouches for `out`.
                    unsafe { expand_rows::<F, T, I, FOLDED>(isa, &rows, ahead, out) };
                }
            },
        );
    }
}

/// The size of the parts that `blocks` are cut into, as few as may be of at most `limit`.
pub(super) fn even_part(blocks: usize, limit: usize) -> usize {
    blocks.div_ceil(blocks.div_ceil(limit).max(1))
}

/// A chunk of expanded panels times columns of x.
struct ChunkKernel<'a, T: IntTile, const FOLDED: bool> {
    panels: *const T::Expanded,
    stride: usize,
    x: &'a Inputs<'a>,
    /// The first column of the group of columns.
    group: usize,
    blocks: Range<usize>,
    rows: usize,
    y: Output,
    row: usize,
}

impl<T: IntTile, const FOLDED: bool> RegisterTile for ChunkKernel<'_, T, FOLDED> {
    #[inline(always)]
    unsafe fn run<I: Isa, const MR: usize, const NR: usize, const W: usize>(&mut self, isa: I, first: usize) {
        let column = self.group + first;
        if column >= self.x.m {
            return;
        }
        // By value: the tile's loop is to find them in registers.
        let (panels, stride, x, blocks, rows) = (self.panels, self.stride, *self.x, self.blocks.clone(), self.rows);
        let columns = Columns { group: self.group, first };
        // SAFETY: only columns of x are loaded and stored.
        let y = unsafe { self.y.at(column, self.row) };
        // A function of its own: the compiler takes far longer for one that holds all tiles.
        isa.outlined(
            #[inline(always)]
            // SAFETY: the driver vouches for panels, the group and rows; only columns of x are loaded and stored.
            move || unsafe {
                let (first_chunk, left) = (blocks.start == 0, x.m - column);
                let columns_a_block = const { if T::BLOCK < 256 { 1 } else { 2 } };
                let acc = y.load::<I, MR, NR>(isa, left, rows, first_chunk);
                let acc = T::multiply_expanded::<I, MR, NR, W, FOLDED>(
                    isa,
                    panels,
                    stride,
                    &x,
                    columns,
                    blocks,
                    acc,
                    // A burst of all columns would keep the weights waiting.
                    #[inline(always)]
                    |block| {
                        for column in block * columns_a_block..(block + 1) * columns_a_block {
                            if !first_chunk {
                                y.prefetch_behind::<I, MR, NR>(isa, column, left);
                            }
                        }
                    },
                );
                y.store::<I, MR, NR>(isa, left, rows, acc);
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::even_part;

    #[test]
    fn parts_are_few_and_even() {
        for (blocks, limit, part) in
            [(64, 75, 64), (64, 40, 32), (35, 8, 7), (35, 6, 6), (9, 8, 5), (1, 8, 1), (0, 8, 0)]
        {
            assert_eq!(even_part(blocks, limit), part, "{blocks} blocks in parts of at most {limit}");
        }
    }
}
