//! From native blocks to packed panels: in parallel, in the order of the file, giving its pages back on the way.

use crate::{
    Executor, QuantBlock, Result,
    bytes::WeightBytes,
    kernel::{SharedMut, Tile, panels_of},
    memory::{PackedBytes, PackedMemory},
    simd::PANEL_ROWS,
};
use bytemuck::Zeroable;

/// Bytes of the source that are packed before they are released: few enough not to show in the peak of memory, enough to
/// make entering the executor cheap.
const RELEASE_BYTES: usize = 16 << 20;

/// Packs `[n, k]` in native blocks, whose length fits; `total` is the bytes of all packed panels.
pub(crate) fn pack<F: QuantBlock>(
    native: &WeightBytes<'_>,
    n: usize,
    k: usize,
    total: usize,
    memory: &mut impl PackedMemory,
    executor: &impl Executor,
) -> Result<PackedBytes> {
    let mut region = memory.allocate(total)?;
    let (panels, panel_bytes) = (panels_of(n), k / F::BLOCK * F::Tile::TILE_BYTES);
    let row_bytes = k / F::BLOCK * size_of::<F::Block>();
    let step = (RELEASE_BYTES / (row_bytes * PANEL_ROWS).max(1)).max(1);
    if let Some(out) = region.as_mut_slice().get_mut(..total) {
        let out = SharedMut::new(out);
        for first in (0..panels).step_by(step) {
            let some = step.min(panels - first);
            executor.run(some, &|task| {
                let panel = first + task;
                // SAFETY: each panel's bytes belong to one task.
                let tiles = unsafe { out.slice(panel * panel_bytes, panel_bytes) };
                pack_panel::<F>(native.as_slice(), panel * PANEL_ROWS..n.min((panel + 1) * PANEL_ROWS), k, tiles);
            });
            native.release(first * PANEL_ROWS * row_bytes..n.min((first + some) * PANEL_ROWS) * row_bytes);
        }
    }
    region.freeze(total)
}

fn pack_panel<F: QuantBlock>(native: &[u8], rows: core::ops::Range<usize>, k: usize, tiles: &mut [u8]) {
    let blocks = k / F::BLOCK;
    let all: &[F::Block] = bytemuck::cast_slice(native);
    for (block, tile) in tiles.chunks_exact_mut(F::Tile::TILE_BYTES).enumerate() {
        let mut column = [F::Block::zeroed(); PANEL_ROWS];
        for (row, slot) in rows.clone().zip(&mut column) {
            *slot = all[row * blocks + block];
        }
        // A region may hold anything.
        tile.fill(0);
        F::Tile::pack::<F>(&column[..rows.len()], tile);
    }
}
