//! Tiles (packed layouts), packing and the drivers for decode and prefill. Nothing here names a format.
//!
//! A weight matrix is cut into *panels* of 16 rows, whose codes are interleaved so that SIMD lanes are rows. A packed
//! panel is a sequence of tiles, one for each block of k, whose codes (a few to a byte, `packed`), scales and minima lie in
//! the order in which they are read. Decode (m = 1) unpacks it in registers; from native blocks it takes row after row
//! instead (`native`). Prefill *expands* a chunk of k of a few panels once into a scratch that stays in the caches (bytes,
//! f32 scales), whether from a packed panel or from 16 rows of native blocks (`expand`), and runs a register tile of rows × columns of
//! x over it. Columns come in groups of eight, interleaved (`inputs`).
//!
//! Sums of code products are exact integers, and the f32 sum over blocks runs in increasing k for every row alone, so
//! the result has the same bits whatever the instruction set, the batch, the threads or the storage.

#[cfg(target_arch = "x86_64")]
mod amx;
mod code_tiles;
mod column_arrays;
mod driver;
mod expand;
mod flat;
mod float;
mod gather;
mod inputs;
mod native;
mod output;
mod pack;
mod packed;
mod panel;
mod panel_writer;
mod shared;
mod stream;
mod superblock;
mod tile;
mod transpose;
mod turned_planes;

pub(crate) use code_tiles::{CodeTiles, TileRows};
pub(crate) use column_arrays::ColumnArrays;
pub(crate) use driver::{Job, Operand, Weights};
pub(crate) use gather::{Gathered, Selection};
use inputs::Columns;
pub(crate) use inputs::{GROUP_COLUMNS, Inputs, Peaks, group_columns, padded_columns};
pub(crate) use output::Output;
pub(crate) use shared::SharedMut;
pub(crate) use stream::prefetch;
pub use tile::{FlatTile, FloatTile, SuperTile, Tile};

/// Panels of 16 rows that hold `n` rows.
pub(crate) const fn panels_of(n: usize) -> usize {
    n.div_ceil(crate::simd::PANEL_ROWS)
}
