//! Tiles (packed layouts), packing and the drivers for decode and prefill. Nothing here names a format.

mod tile;

pub use tile::{FlatTile, FloatTile, SuperTile, Tile};
