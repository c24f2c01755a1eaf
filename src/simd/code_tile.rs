//! Bytes side by side as AMX multiplies them, whoever lays them out.

use bytemuck::{Pod, Zeroable};

/// Columns of x in a tile, and rows of W.
pub const TILE_COLUMNS: usize = 16;
/// Codes of a column in a tile.
pub const TILE_CODES: usize = 64;

/// 64 codes of each of 16 columns of x.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct CodeTile(pub [[i8; TILE_CODES]; TILE_COLUMNS]);
