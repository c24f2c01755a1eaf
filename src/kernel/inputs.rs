//! Quantized activations as the integer kernels read them.
//!
//! Columns (rows of x) come in groups of [`GROUP_COLUMNS`]; the last group has as many as are left, and columns of
//! zeros up to a power of two. Within a group everything is interleaved by column, in the order in which a register tile
//! reads it: four codes of each column, the next four of each, …. A tile thus reads one stream at constant offsets.

use super::ColumnArrays;
use crate::simd::{CodeTile, largest_code};

/// Columns of a full group.
pub(crate) const GROUP_COLUMNS: usize = 8;

/// `m` columns of `k` codes with their scales and sums; which of them a kernel reads depends on its tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Columns.
    pub m: usize,
    /// Codes in a column.
    pub k: usize,
    /// Of all columns, those of zeros included.
    pub arrays: ColumnArrays<&'a [i32], &'a [f32]>,
    /// `[groups of columns, k / 256]` (scales per 256 only).
    pub peaks: &'a [Peaks],
    /// The codes again as AMX multiplies them, `[groups of 16 columns, k / 64]`, rounded up; empty where nobody will.
    pub tiles: &'a [CodeTile],
}

/// Bounds on what sums over a superblock of a group's columns can come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Peaks {
    /// The largest `Σ |code|` of 16.
    pub of_16: u16,
    /// The larger of the sums of positive and of negative codes of 32, at most.
    pub of_32: u16,
}

impl Peaks {
    /// Whether every `Σ w · x` over a group of `group` codes fits an i16, for w of `bits` (6-bit ones as `w − 32`).
    #[inline(always)]
    pub fn fit(self, bits: u32, group: usize) -> bool {
        let sum = match (group, bits) {
            (16, _) => self.of_16 as i32,
            (_, 6) => 2 * self.of_16 as i32,
            _ => self.of_32 as i32,
        };
        largest_code(bits) * sum <= i16::MAX as i32
    }
}

/// How many columns of x and of zeros the group has that starts at column `group` < `m`.
#[inline(always)]
pub(crate) fn group_columns(group: usize, m: usize) -> (usize, usize) {
    let columns = GROUP_COLUMNS.min(m - group);
    (columns, columns.next_power_of_two())
}

/// Columns of all groups of `m`.
pub(crate) fn padded_columns(m: usize) -> usize {
    let tail = m % GROUP_COLUMNS;
    m - tail + if tail == 0 { 0 } else { tail.next_power_of_two() }
}

/// A register tile's columns: some of a group `W` wide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<const W: usize> {
    /// The first column of the group.
    pub group: usize,
    /// The tile's first, counted from the group's first.
    pub first: usize,
}

impl<const W: usize> Columns<W> {
    /// Where entry `index` of `entries` in a column lies for the tile's first column; those of the others follow.
    #[inline(always)]
    pub fn at(self, entries: usize, index: usize) -> usize {
        self.group * entries + index * W + self.first
    }

    /// Where the bounds of superblock `block` of `blocks` lie.
    #[inline(always)]
    pub fn peaks_at(self, blocks: usize, block: usize) -> usize {
        self.group / GROUP_COLUMNS * blocks + block
    }
}
