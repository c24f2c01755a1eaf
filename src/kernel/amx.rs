//! Prefill in AMX's tiles: sums of products of two tiles of W and up to 32 columns of x at a time, and what lanes make of them.
//!
//! A few blocks of k are expanded, of a panel or two, and meet all columns while they lie in the first-level cache. Products
//! of codes and scales of groups are what tiles multiply, so that a superblock has one sum: in one byte where they fit, else a
//! panel's low and high bytes are two tiles. While tiles multiply one block, sums of the one before are stored, each only when its
//! tile is wanted again (loads behind a store that waits for a tile would wait too, where their addresses are alike), and lanes
//! scale and add those of the block before that, a part beside each tile.

use super::{
    Columns,
    driver::{IntTask, X_CODES_BYTES, even_part},
    group_columns,
    inputs::{GROUP_COLUMNS, padded_columns},
    tile::{HighBytes, IntTile},
};
use crate::{
    QuantBlock,
    simd::{
        CodeTile, Isa, Level, PANEL_ROWS, TILE_CODES, TILE_COLUMNS,
        amx::{Amx, Sums, Tiles},
    },
};
use core::{mem::MaybeUninit, ops::Range};

/// Columns whose sums of floats are kept at once; beyond, weights are expanded again.
const COLUMNS: usize = 1024;
/// Superblocks of a panel that are expanded at once: as many as stay in the first-level cache, or more of those in one byte for
/// few columns, where the first and the last steps of a chunk, which are half empty, count for more.
const CHUNK: usize = 2;
const FEW_COLUMNS: usize = 96;
const LONG_CHUNK: usize = 8;
/// Columns up to which products of two bytes take longer to make than tiles save.
const TWO_BYTES_COLUMNS: usize = 48;
/// Columns that tiles multiply at once.
const PAIR_COLUMNS: usize = 2 * TILE_COLUMNS;

#[repr(C, align(64))]
struct Scratch<Expanded> {
    /// Of each panel.
    blocks: [[MaybeUninit<Expanded>; LONG_CHUNK]; 2],
    high: [MaybeUninit<HighBytes>; CHUNK],
    /// Of two blocks.
    sums: [[Sums; 2]; 2],
    /// Of each panel.
    acc: [[MaybeUninit<[f32; PANEL_ROWS]>; COLUMNS]; 2],
}

/// Where floats of a panel's rows lie: the first column's, and from each to the next.
#[derive(Clone, Copy)]
struct Floats {
    at: *mut f32,
    stride: usize,
}

/// A chunk of blocks of a panel or two, and the columns that they meet.
struct Chunk<T: IntTile> {
    blocks: Range<usize>,
    columns: Range<usize>,
    expanded: *const T::Expanded,
    high: *const HighBytes,
    /// Of each panel, where sums lie before the first block, in between, and after the last.
    from: [Floats; 2],
    own: [Floats; 2],
    to: [Floats; 2],
}

/// What tiles multiply at once: a block of a chunk, counted from its first, and up to 32 columns, so too.
#[derive(Clone, Copy)]
struct Step {
    at: usize,
    column: usize,
}

impl<F: QuantBlock<Tile = T>, T: IntTile> IntTask<'_, F, T> {
    const PANELS: usize = if T::TWO_BYTES { 1 } else { 2 };

    /// The tiles, if the columns are for them.
    #[inline(always)]
    pub(super) fn amx(&self) -> Option<Amx> {
        let enough = !T::TWO_BYTES || self.x.m > TWO_BYTES_COLUMNS;
        if self.job.level == Level::Amx && !self.x.tiles.is_empty() && enough { Amx::try_new() } else { None }
    }

    /// Multiplies the panels by all columns.
    #[inline(always)]
    pub(super) fn multiply_tiles<I: Isa>(self, isa: I, amx: Amx) {
        const { assert!(!T::IN_TILES || T::BLOCK == 256) };
        let mut scratch = MaybeUninit::<Scratch<T::Expanded>>::uninit();
        let scratch = scratch.as_mut_ptr();
        let mut tiles = amx.tiles(PAIR_COLUMNS);
        let blocks = self.x.k / T::BLOCK;
        // SAFETY: all of it is scratch.
        let (expanded, high, sums) = unsafe {
            (
                (&raw mut (*scratch).blocks).cast::<T::Expanded>(),
                (&raw mut (*scratch).high).cast::<HighBytes>(),
                &raw mut (*scratch).sums,
            )
        };
        // SAFETY: as above.
        let own = [0, 1].map(|p| Floats { at: unsafe { (&raw mut (*scratch).acc[p]).cast() }, stride: PANEL_ROWS });
        let mut zeros = [0.0; PANEL_ROWS];
        let zeros = [Floats { at: zeros.as_mut_ptr(), stride: 0 }; 2];
        for first_column in (0..self.x.m).step_by(COLUMNS) {
            let columns = first_column..self.x.m.min(first_column + COLUMNS);
            let full_groups = padded_columns(columns.len()) == columns.len();
            let slab = even_part(blocks, (X_CODES_BYTES / columns.len() / T::BLOCK).max(LONG_CHUNK));
            let chunk = even_part(slab, if !T::TWO_BYTES && columns.len() <= FEW_COLUMNS { LONG_CHUNK } else { CHUNK });
            let mut slabs = 0..slab;
            loop {
                for first_panel in self.panels.clone().step_by(Self::PANELS) {
                    let panels = Self::PANELS.min(self.panels.end - first_panel);
                    // A missing panel stands for the last one.
                    let panel = |p: usize| first_panel + p.min(panels - 1);
                    // SAFETY: y has the column and the panel.
                    let y = [0, 1].map(|p| unsafe { self.job.y.at(first_column, panel(p) * PANEL_ROWS) });
                    // What a panel lacks to 16 rows and a group to its width is not y's, nor what stands for another panel.
                    let whole =
                        [0, 1].map(|p| p < panels && full_groups && self.job.rows_in(panel(p), 1) == PANEL_ROWS);
                    let in_y =
                        [0, 1].map(|p| if whole[p] { Floats { at: y[p].y, stride: y[p].stride } } else { own[p] });
                    let starts_in = if slabs.start == 0 { zeros } else { in_y };
                    for p in 0..panels {
                        if !whole[p] && slabs.start > 0 {
                            // SAFETY: there is room for the columns, and y has them.
                            unsafe { self.load_part(isa, y[p], self.job.rows_in(panel(p), 1), columns.len(), own[p]) };
                        }
                    }
                    for start in slabs.clone().step_by(chunk) {
                        let blocks = start..slabs.end.min(start + chunk);
                        let ahead = self.blocks_ahead(&blocks, &slabs, Self::PANELS);
                        for p in 0..Self::PANELS {
                            let out = expanded.wrapping_add(p * LONG_CHUNK);
                            // SAFETY: there is room for the chunk of each panel.
                            unsafe { self.expand_products(isa, panel(p), blocks.clone(), ahead, out, high) };
                        }
                        let (is_first, is_last) = (start == slabs.start, blocks.end == slabs.end);
                        let from = if is_first { starts_in } else { own };
                        let to = if is_last { in_y } else { own };
                        let columns = columns.clone();
                        let chunk = Chunk { blocks, columns, expanded, high, from, own, to };
                        // SAFETY: the chunk is expanded, x has the columns, and these rows of y are this task's.
                        unsafe { self.multiply_chunk(isa, &mut tiles, &chunk, sums) };
                    }
                    for p in 0..panels {
                        if !whole[p] {
                            // SAFETY: these rows of y are this task's.
                            unsafe {
                                let sums = core::slice::from_raw_parts(own[p].at.cast(), columns.len());
                                y[p].store_rows(sums, self.job.rows_in(panel(p), 1));
                            }
                        }
                    }
                }
                slabs = slabs.end..blocks.min(slabs.end + slab);
                if slabs.is_empty() {
                    break;
                }
            }
        }
    }

    /// Expands a chunk of a panel into what tiles multiply, and asks for what lies `ahead` blocks behind it.
    ///
    /// # Safety
    /// There is room for the chunk at `out` and, of products of two bytes, at `high`.
    #[inline(always)]
    unsafe fn expand_products<I: Isa>(
        &self,
        isa: I,
        panel: usize,
        chunk: Range<usize>,
        ahead: isize,
        out: *mut T::Expanded,
        high: *mut HighBytes,
    ) {
        let len = chunk.len();
        // SAFETY: the caller's promise.
        unsafe {
            if const { T::FOLDABLE } {
                self.expand::<I, true>(isa, panel, chunk, ahead, out);
            } else {
                self.expand::<I, false>(isa, panel, chunk, ahead, out);
            }
            if const { T::TWO_BYTES } {
                for i in 0..len {
                    T::split(isa, out.add(i), high.add(i));
                }
            }
        }
    }

    /// Multiplies a chunk by all columns.
    ///
    /// # Safety
    /// It is expanded, x has the columns, and their sums are where the chunk says.
    #[inline(always)]
    unsafe fn multiply_chunk<I: Isa>(&self, isa: I, tiles: &mut Tiles, chunk: &Chunk<T>, sums: *mut [[Sums; 2]; 2]) {
        let full = chunk.columns.len() / PAIR_COLUMNS * PAIR_COLUMNS;
        // SAFETY: the caller's promise; other shapes of tiles are for the columns that are left.
        unsafe {
            if full > 0 {
                if tiles.columns() != PAIR_COLUMNS {
                    tiles.configure(PAIR_COLUMNS);
                }
                self.multiply_columns::<I, true>(isa, tiles, chunk, 0..full, sums);
            }
            if full < chunk.columns.len() {
                tiles.configure(chunk.columns.len() - full);
                self.multiply_columns::<I, false>(isa, tiles, chunk, full..chunk.columns.len(), sums);
            }
        }
    }

    /// Multiplies a chunk by some of its columns, as many at once as the tiles are for, which are 32 if `FULL`.
    ///
    /// # Safety
    /// As [`Self::multiply_chunk`].
    #[inline(always)]
    unsafe fn multiply_columns<I: Isa, const FULL: bool>(
        &self,
        isa: I,
        tiles: &mut Tiles,
        chunk: &Chunk<T>,
        columns: Range<usize>,
        sums: *mut [[Sums; 2]; 2],
    ) {
        let len = chunk.blocks.len();
        let steps = columns.len().div_ceil(PAIR_COLUMNS) * len;
        let mut step = Step { at: 0, column: columns.start };
        let (mut before, mut before_that) = (step, step);
        for i in 0..steps + 2 {
            // SAFETY: the caller's promise; `sums` has two.
            unsafe {
                let (stored, added) = (&raw mut (*sums)[i % 2], &raw const (*sums)[(i + 1) % 2]);
                if i >= 2 && i < steps && before_that.at > 0 && before_that.at + 1 < len {
                    self.multiply_block::<I, FULL, true>(
                        isa,
                        tiles,
                        chunk,
                        [step, before_that],
                        [true; 3],
                        stored,
                        added,
                    );
                } else {
                    let does = [i < steps, (1..=steps).contains(&i), i >= 2];
                    self.multiply_block::<I, FULL, false>(isa, tiles, chunk, [step, before_that], does, stored, added);
                }
            }
            (before_that, before) = (before, step);
            step.at += 1;
            if step.at == len {
                step = Step { at: 0, column: step.column + PAIR_COLUMNS };
            }
        }
    }

    /// Multiplies a block, stores the sums of the one before, and adds those of the one before that, whose sums of floats stay
    /// in scratch if it is `BETWEEN` others; each only if said so.
    ///
    /// # Safety
    /// As [`Self::multiply_chunk`]; tiles and `added` hold the sums of those before.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply_block<I: Isa, const FULL: bool, const BETWEEN: bool>(
        &self,
        isa: I,
        tiles: &mut Tiles,
        chunk: &Chunk<T>,
        [step, adding]: [Step; 2],
        [multiplies, stores, adds]: [bool; 3],
        stored: *mut [Sums; 2],
        added: *const [Sums; 2],
    ) {
        let mut x = self.x_tiles(chunk.columns.start + step.column, chunk.blocks.start + step.at);
        let low = chunk.expanded.wrapping_add(step.at);
        let high =
            if T::TWO_BYTES { chunk.high.wrapping_add(step.at).cast() } else { low.wrapping_add(LONG_CHUNK).cast() };
        let mut w: [*const u8; 2] = [low.cast(), high];
        for tile in 0..T::BLOCK / TILE_CODES {
            let does = [multiplies, stores && tile == 0];
            // SAFETY: the caller's promise.
            unsafe {
                Self::slot::<FULL, 0>(tiles, stored, does, tile == 0, x[0], w[0]);
                if adds {
                    self.add_sums::<I, FULL, BETWEEN>(isa, chunk, adding, tile, 0, added);
                }
                Self::slot::<FULL, 1>(tiles, stored, does, tile == 0, x[0], w[1]);
                Self::slot::<FULL, 2>(tiles, stored, does, tile == 0, x[1], w[0]);
                if adds && Self::PANELS == 2 {
                    self.add_sums::<I, FULL, BETWEEN>(isa, chunk, adding, tile, 1, added);
                }
                Self::slot::<FULL, 3>(tiles, stored, does, tile == 0, x[1], w[1]);
            }
            x = x.map(|x| x.wrapping_add(size_of::<CodeTile>()));
            w = w.map(|w| w.wrapping_add(size_of::<CodeTile>()));
        }
    }

    /// Stores sums `Q`, makes them zeros, and adds the products of a tile.
    ///
    /// # Safety
    /// As [`Self::multiply_block`].
    #[inline(always)]
    unsafe fn slot<const FULL: bool, const Q: usize>(
        tiles: &mut Tiles,
        sums: *mut [Sums; 2],
        [multiplies, stores]: [bool; 2],
        clears: bool,
        x: *const u8,
        w: *const u8,
    ) {
        if !FULL && !tiles.has(Q) {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            if stores {
                tiles.store::<Q>(sums);
            }
            if multiplies {
                if clears {
                    tiles.clear::<Q>();
                }
                tiles.multiply::<Q>(x, w);
            }
        }
    }

    /// Where the tiles of block `block` of the 16 columns from `first` on lie, and those of the next 16.
    #[inline(always)]
    fn x_tiles(&self, first: usize, block: usize) -> [*const u8; 2] {
        let group = self.x.k / TILE_CODES;
        let tile = self.x.tiles.as_ptr().wrapping_add(first / TILE_COLUMNS * group + block * (T::BLOCK / TILE_CODES));
        [tile.cast(), tile.wrapping_add(group).cast()]
    }

    /// Scales the sums of a quarter of a step's columns and of a panel, and adds them to those of floats: a quarter beside each
    /// tile of a block, of which there are as many.
    ///
    /// # Safety
    /// As [`Self::multiply_block`], and the sums are those of the step.
    #[inline(always)]
    unsafe fn add_sums<I: Isa, const FULL: bool, const BETWEEN: bool>(
        &self,
        isa: I,
        chunk: &Chunk<T>,
        step: Step,
        quarter: usize,
        panel: usize,
        sums: *const [Sums; 2],
    ) {
        let column = step.column + quarter * GROUP_COLUMNS;
        if !FULL && column >= chunk.columns.len() {
            return;
        }
        let (group, block) = (chunk.columns.start + column, chunk.blocks.start + step.at);
        let x = &self.x;
        // SAFETY: the caller's promise.
        unsafe {
            let weights = chunk.expanded.add(panel * LONG_CHUNK + step.at);
            let sums = [0, 1].map(|stream| (&raw const (*sums)[stream].0[quarter * GROUP_COLUMNS]));
            let sums = if T::TWO_BYTES { sums } else { [sums[panel]; 2] };
            let own = chunk.own[panel].at.add(column * PANEL_ROWS);
            let (mut from, mut to) = ((own.cast_const(), PANEL_ROWS), (own, PANEL_ROWS));
            if !BETWEEN && step.at == 0 {
                let floats = chunk.from[panel];
                from = (floats.at.add(column * floats.stride), floats.stride);
            }
            if !BETWEEN && step.at + 1 == chunk.blocks.len() {
                let floats = chunk.to[panel];
                to = (floats.at.add(column * floats.stride), floats.stride);
            }
            let width = if FULL { GROUP_COLUMNS } else { group_columns(group, x.m).1 };
            match width {
                8 => T::add_sums::<I, 8>(isa, x, Columns { group, first: 0 }, block, weights, sums, from, to),
                4 => T::add_sums::<I, 4>(isa, x, Columns { group, first: 0 }, block, weights, sums, from, to),
                2 => T::add_sums::<I, 2>(isa, x, Columns { group, first: 0 }, block, weights, sums, from, to),
                _ => T::add_sums::<I, 1>(isa, x, Columns { group, first: 0 }, block, weights, sums, from, to),
            }
        }
    }

    /// Copies the sums so far of a panel of fewer rows out of y.
    ///
    /// # Safety
    /// There is room for the columns, which y has.
    #[inline(always)]
    unsafe fn load_part<I: Isa>(&self, isa: I, y: super::Output, rows: usize, columns: usize, to: Floats) {
        for column in 0..columns {
            // SAFETY: the caller's promise.
            unsafe {
                let sums = y.at(column, 0).load::<I, 1, 1>(isa, 1, rows, false);
                isa.store_f32(to.at.add(column * to.stride), sums[0][0]);
            }
        }
    }
}
