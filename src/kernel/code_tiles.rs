//! The codes of x as AMX multiplies them: 64 codes of 16 columns side by side.

use super::{GROUP_COLUMNS, SharedMut};
use crate::simd::{CodeTile, Level, TILE_CODES, TILE_COLUMNS};
use alloc::vec::Vec;

/// Columns up to which registers of lanes are as fast.
const COLUMNS_OF_LANES: usize = 16;

/// Groups of 16 columns that `m` columns have in tiles, where they are multiplied so.
pub(super) fn tile_groups(m: usize) -> usize {
    if m > COLUMNS_OF_LANES { m.div_ceil(TILE_COLUMNS) } else { 0 }
}

/// Tiles of a group of columns of `k` codes.
pub(super) const fn tiles_of(k: usize) -> usize {
    k.div_ceil(TILE_CODES)
}

/// Tiles `[groups of 16 columns, k / 64]`, rounded up, or none. The buffer is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct CodeTiles {
    tiles: Vec<CodeTile>,
    /// Of a group of columns.
    steps: usize,
}

impl CodeTiles {
    /// Makes room for what `level` multiplies of `m` columns of `k` codes.
    pub fn resize_for(&mut self, level: Level, m: usize, k: usize) {
        self.resize(if level == Level::Amx { tile_groups(m) } else { 0 }, k);
    }

    /// Makes room for so many groups of columns of `k` codes.
    pub(super) fn resize(&mut self, groups: usize, k: usize) {
        self.steps = tiles_of(k);
        self.tiles.resize(groups * self.steps, CodeTile([[0; TILE_CODES]; TILE_COLUMNS]));
    }

    /// The tiles, of one group of 16 columns after the other.
    pub fn as_slice(&self) -> &[CodeTile] {
        &self.tiles
    }

    /// Those of `count` groups, if there are tiles.
    pub(super) fn groups(&self, first: usize, count: usize) -> &[CodeTile] {
        self.tiles.get(first * self.steps..(first + count) * self.steps).unwrap_or_default()
    }

    /// The tiles, of which tasks fill parts.
    pub fn shared(&mut self) -> SharedTiles<'_> {
        SharedTiles { rows: SharedMut::new(bytemuck::cast_slice_mut(&mut self.tiles)), steps: self.steps }
    }
}

/// [`CodeTiles`] in parts, each for a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedTiles<'a> {
    rows: SharedMut<'a, [i8; TILE_CODES]>,
    steps: usize,
}

impl<'a> SharedTiles<'a> {
    /// Which row of all tiles is the first of `column`, counted from group `group` of 16 on.
    fn row(self, group: usize, column: usize) -> usize {
        (group + column / TILE_COLUMNS) * self.steps * TILE_COLUMNS + column % TILE_COLUMNS
    }

    /// The part of the eight columns from `column` on, if there are tiles.
    pub fn part(self, column: usize) -> Option<TileRows<'a>> {
        (!self.rows.is_empty()).then_some(TileRows { rows: self.rows, first: self.row(0, column) })
    }

    /// Copies column `source` of the tiles `from` to `column`, counted from group `group` on, if there are tiles.
    ///
    /// # Safety
    /// The column is in no other use at the same time.
    pub(super) unsafe fn copy_column(self, group: usize, column: usize, from: &[CodeTile], source: usize) {
        let from: &[[i8; TILE_CODES]] = bytemuck::cast_slice(from);
        for step in 0..self.steps {
            // SAFETY: the caller's promise.
            let to = unsafe { self.rows.slice(self.row(group, column) + step * TILE_COLUMNS, 1) };
            if let ([to], Some(from)) = (to, from.get(self.row(0, source) + step * TILE_COLUMNS)) {
                *to = *from;
            }
        }
    }
}

/// Eight columns' part of [`CodeTiles`].
#[derive(Debug)]
pub(crate) struct TileRows<'a> {
    rows: SharedMut<'a, [i8; TILE_CODES]>,
    /// The first column's in its first tile.
    first: usize,
}

impl TileRows<'_> {
    /// Puts the first `len` codes of each column where those from `start`, a multiple of 64, on belong.
    ///
    /// # Safety
    /// The columns are in no other use at the same time.
    #[inline(always)]
    pub unsafe fn put<const LEN: usize>(&self, start: usize, columns: &[[i8; LEN]; GROUP_COLUMNS], len: usize) {
        for step in 0..tiles_of(len) {
            let at = self.first + (start / TILE_CODES + step) * TILE_COLUMNS;
            // SAFETY: the caller's promise.
            let rows = unsafe { self.rows.slice(at, GROUP_COLUMNS) };
            for (row, column) in rows.iter_mut().zip(columns) {
                *row = column.as_chunks().0[step];
            }
        }
    }
}
