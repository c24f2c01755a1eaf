//! From native blocks to packed panels: in parallel, in the order of the file, giving its pages back on the way.

use crate::{
    Executor, QuantBlock, Result,
    bytes::WeightBytes,
    kernel::{SharedMut, Tile, panels_of},
    memory::{PackedBytes, PackedMemory},
    simd::{Isa, IsaTask, Level, PANEL_ROWS},
};
use core::{marker::PhantomData, ops::Range};

/// Bytes of the source that are packed before they are released: few enough not to show in the peak of memory, enough to
/// make entering the executor cheap.
const RELEASE_BYTES: usize = 16 << 20;

/// Packs `[n, k]` in native blocks, whose length fits; `total` is the bytes of all packed panels.
pub(crate) fn pack<F: QuantBlock>(
    native: &WeightBytes<'_>,
    n: usize,
    k: usize,
    total: usize,
    memory: &mut dyn PackedMemory,
    executor: &dyn Executor,
) -> Result<PackedBytes> {
    let (mut region, level) = (memory.allocate(total)?, Level::best());
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
                let rows = panel * PANEL_ROWS..n.min((panel + 1) * PANEL_ROWS);
                level.dispatch(Panel::<F> { native: native.as_slice(), rows, k, tiles, format: PhantomData });
            });
            native.release(first * PANEL_ROWS * row_bytes..n.min((first + some) * PANEL_ROWS) * row_bytes);
        }
    }
    region.freeze(total)
}

/// One panel, packed by the instructions of this CPU's fastest level.
struct Panel<'a, F> {
    native: &'a [u8],
    rows: Range<usize>,
    k: usize,
    tiles: &'a mut [u8],
    format: PhantomData<F>,
}

impl<F: QuantBlock> IsaTask for Panel<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let blocks = self.k / F::BLOCK;
        let all: &[F::Block] = bytemuck::cast_slice(self.native);
        let mut rows = [&all[..0]; PANEL_ROWS];
        let count = self.rows.len();
        for (row, slot) in self.rows.zip(&mut rows) {
            *slot = &all[row * blocks..][..blocks];
        }
        F::Tile::pack::<F, I>(isa, &rows[..count], self.tiles);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{for_each_format, format};
    use alloc::{vec, vec::Vec};

    /// Whatever the bytes of blocks, every level makes the same panel of them.
    fn every_level_packs_the_same<F: QuantBlock>() {
        // Of floats, lines of memory and what follows the last one.
        let (blocks, block_bytes) = (if F::BLOCK == 1 { 83 } else { 3 }, size_of::<F::Block>());
        let k = blocks * F::BLOCK;
        for rows in [PANEL_ROWS, 5] {
            let native: Vec<u8> = (0..rows * blocks * block_bytes).map(|i| (i * 151 + i / 7) as u8).collect();
            let packed = |level: Level| {
                let mut tiles = vec![0xA5; blocks * F::Tile::TILE_BYTES];
                let panel = Panel::<F> { native: &native, rows: 0..rows, k, tiles: &mut tiles, format: PhantomData };
                level.dispatch(panel);
                tiles
            };
            let expected = packed(Level::Scalar);
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                assert!(packed(level) == expected, "{rows} rows of {} by {}", F::NAME, level.name());
            }
        }
    }

    macro_rules! check {
        ([] $($format:ident = $id:literal),* $(,)?) => {
            $(every_level_packs_the_same::<format::$format>();)*
        };
    }

    #[test]
    fn every_level_packs_every_format_the_same() {
        for_each_format!(check);
    }
}
