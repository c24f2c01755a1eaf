//! AMX: sums of products of bytes in tiles of 16 columns of x and 16 rows of W.
//!
//! `tdpbsud` multiplies 16 × 64 codes of x by 64 × 16 codes of W, 16384 MACs, in 16 cycles: eight times the rate of
//! `vpdpbusd` on Intel's servers. A tile of W is 16 vectors of a panel as they lie, one of x are 64 codes of each of 16 columns
//! ([`CodeTile`](super::CodeTile)). Registers of tiles hold two of each and the four of their sums, so that each tile that is
//! loaded (8 cycles of the loads' two ports) is multiplied twice: a superblock of two tiles of W and 32 columns, 2048 times 64
//! MACs, takes 16 `tdpbsud`, 16 `tileloadd` and, once each, four `tilezero` and `tilestored` (16 cycles of the stores' port).
//! Of the 64 vectors of sums lanes make floats with a load, `vcvtdq2ps`, two `vmulps`, a `vaddps` and a store, and four more
//! instructions where codes have a bias; minima take four (groups of 32) or eight `vpdpwssd` (of 16) and three float
//! operations, products of two bytes, whose vectors are 32 pairs, a load, a shift and an addition.
//!
//! Measured on Emerald Rapids, one thread, data in the first-level cache: tiles alone 2650 GMAC/s, with their loads and stores
//! 2300; `vpdpbusd` 370. Lanes hardly work beside tiles, though nothing waits for them: a loop takes about as long as its tiles
//! and its lanes one after the other, 430 to 690 GMAC/s. Blocks of 32 would have a sum for each 32 codes: tiles and lanes together
//! reached what lanes reach alone (230), and are not built. While another thread runs on the core, tiles are three times slower.
//!
//! The system lets a process use tiles only after it has asked, for all of its threads. A thread that has used them keeps 8 KiB
//! more of state until they are released.

use super::{
    code_tile::{TILE_CODES, TILE_COLUMNS},
    cpu::has_amx,
};
use bytemuck::{Pod, Zeroable};
use core::{arch::asm, marker::PhantomData};

const ROW_BYTES: usize = 64;

/// Sums of products of one tile of W and two of x: for each column one for each of 16 rows.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Sums(pub [[i32; 16]; 2 * TILE_COLUMNS]);

/// The proof that this CPU has AMX's tiles of bytes and that the system lets this process use them.
#[derive(Debug, Clone, Copy)]
pub struct Amx(());

impl Amx {
    /// The proof, if it is so.
    #[inline]
    pub fn try_new() -> Option<Amx> {
        has_amx().then_some(Amx(()))
    }

    /// This thread's tiles, for so many columns of x, 1 to 32.
    #[inline]
    pub fn tiles(self, columns: usize) -> Tiles {
        let mut tiles = Tiles { columns: 0, before: Shapes::zeroed(), thread: PhantomData };
        // SAFETY: the CPU has tiles, and 64 bytes are written.
        unsafe { asm!("sttilecfg [{}]", in(reg) &raw mut tiles.before, options(nostack, preserves_flags)) };
        tiles.configure(columns);
        tiles
    }
}

/// What `ldtilecfg` reads: rows and bytes of a row of each of eight tiles.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Makes this thread's tiles have these shapes.
    ///
    /// # Safety
    /// The CPU has tiles, and these are shapes that they can have.
    #[inline]
    unsafe fn load(&self) {
        // SAFETY: the caller's promise.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly, preserves_flags)) };
    }
}

/// A thread's tiles. When this is dropped they have the shapes that they had before, or are released if they had none: there
/// is code that configures a thread's tiles but once.
#[derive(Debug)]
pub struct Tiles {
    columns: usize,
    before: Shapes,
    /// The tiles are this thread's.
    thread: PhantomData<*mut ()>,
}

impl Tiles {
    /// Makes them tiles for so many columns, as [`Amx::tiles`] does.
    #[inline]
    pub fn configure(&mut self, columns: usize) {
        debug_assert!((1..=2 * TILE_COLUMNS).contains(&columns));
        self.columns = columns;
        let first = columns.min(TILE_COLUMNS) as u8;
        // A tile without rows is none, and may not be named.
        let second = columns.saturating_sub(TILE_COLUMNS).max(1) as u8;
        let steps = (TILE_CODES / 4) as u8;
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.rows[..8].copy_from_slice(&[first, first, second, second, first, second, steps, steps]);
        shapes.row_bytes[..8].fill(ROW_BYTES as u16);
        // SAFETY: there is a `Tiles` only where there was an `Amx`; the shapes are those of palette 1.
        unsafe { shapes.load() };
    }

    /// Columns of x that they are for.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether there are such sums: 0 and 1 are those of the first 16 columns and of each of two tiles of W, 2 and 3 those of the
    /// others.
    #[inline(always)]
    pub fn has(&self, sums: usize) -> bool {
        sums < 2 || self.columns > TILE_COLUMNS
    }

    /// Adds to sums `Q` the products of their tiles of x and of W: of what lies at `x`, for even `Q`, and at `w`, for those below
    /// 2, or else of what was loaded so before.
    ///
    /// # Safety
    /// There are such sums and, where they are loaded, tiles as large as they were configured.
    #[inline(always)]
    pub unsafe fn multiply<const Q: usize>(&mut self, x: *const u8, w: *const u8) {
        const { assert!(Q < 4) };
        let row = ROW_BYTES;
        // SAFETY: the caller vouches for what is read. Nothing that the compiler makes touches tiles.
        unsafe {
            match Q {
                0 => asm!(
                    "tileloadd tmm4, [{x} + {row}*1]",
                    "tileloadd tmm6, [{w} + {row}*1]",
                    "tdpbsud tmm0, tmm4, tmm6",
                    x = in(reg) x, w = in(reg) w, row = in(reg) row,
                    options(nostack, readonly, preserves_flags),
                ),
                1 => asm!(
                    "tileloadd tmm7, [{w} + {row}*1]",
                    "tdpbsud tmm1, tmm4, tmm7",
                    w = in(reg) w, row = in(reg) row,
                    options(nostack, readonly, preserves_flags),
                ),
                2 => asm!(
                    "tileloadd tmm5, [{x} + {row}*1]",
                    "tdpbsud tmm2, tmm5, tmm6",
                    x = in(reg) x, row = in(reg) row,
                    options(nostack, readonly, preserves_flags),
                ),
                _ => asm!("tdpbsud tmm3, tmm5, tmm7", options(nostack, nomem, preserves_flags)),
            }
        }
    }

    /// Stores sums `Q` where they belong in `sums`.
    ///
    /// # Safety
    /// There are such sums, and `sums` is writable.
    #[inline(always)]
    pub unsafe fn store<const Q: usize>(&self, sums: *mut [Sums; 2]) {
        let (sums, row) = (sums.cast::<u8>().wrapping_add(Q % 2 * size_of::<Sums>() + Q / 2 * 1024), ROW_BYTES);
        // SAFETY: a tile has 16 rows of 64 bytes at most, as half of one of `sums` has.
        unsafe {
            match Q {
                0 => {
                    asm!("tilestored [{sums} + {row}*1], tmm0", sums = in(reg) sums, row = in(reg) row, options(nostack, preserves_flags))
                }
                1 => {
                    asm!("tilestored [{sums} + {row}*1], tmm1", sums = in(reg) sums, row = in(reg) row, options(nostack, preserves_flags))
                }
                2 => {
                    asm!("tilestored [{sums} + {row}*1], tmm2", sums = in(reg) sums, row = in(reg) row, options(nostack, preserves_flags))
                }
                _ => {
                    asm!("tilestored [{sums} + {row}*1], tmm3", sums = in(reg) sums, row = in(reg) row, options(nostack, preserves_flags))
                }
            }
        }
    }

    /// Makes sums `Q` zeros.
    #[inline(always)]
    pub fn clear<const Q: usize>(&mut self) {
        debug_assert!(self.has(Q));
        // SAFETY: a tile that is configured.
        unsafe {
            match Q {
                0 => asm!("tilezero tmm0", options(nostack, nomem, preserves_flags)),
                1 => asm!("tilezero tmm1", options(nostack, nomem, preserves_flags)),
                2 => asm!("tilezero tmm2", options(nostack, nomem, preserves_flags)),
                _ => asm!("tilezero tmm3", options(nostack, nomem, preserves_flags)),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there is a `Tiles` only where there was an `Amx`; the shapes are those that the tiles had.
        unsafe {
            if self.before.palette == 0 {
                asm!("tilerelease", options(nostack, nomem, preserves_flags));
            } else {
                self.before.load();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::CodeTile, *};
    use alloc::vec::Vec;

    #[test]
    fn sums_are_those_of_the_products() {
        let Some(amx) = Amx::try_new() else { return };
        const STEPS: usize = 3;
        let byte = |i: usize| (i.wrapping_mul(0x9E37_79B1) >> 13) as u8;
        let x: Vec<CodeTile> = (0..2 * STEPS)
            .map(|t| {
                CodeTile(core::array::from_fn(|c| core::array::from_fn(|i| byte(7 + (t * 16 + c) * 64 + i) as i8)))
            })
            .collect();
        let w: Vec<CodeTile> = (0..2 * STEPS)
            .map(|t| {
                CodeTile(core::array::from_fn(|s| core::array::from_fn(|i| byte(991 + (t * 16 + s) * 64 + i) as i8)))
            })
            .collect();
        for columns in [32, 16, 17, 5, 1] {
            let mut sums = [Sums::zeroed(); 2];
            let at =
                |tiles: &[CodeTile], stream: usize, step: usize| (&raw const tiles[stream * STEPS + step]).cast::<u8>();
            let mut tiles = amx.tiles(columns);
            // SAFETY: there are as many tiles.
            unsafe {
                tiles.clear::<0>();
                tiles.clear::<1>();
                for step in 0..STEPS {
                    tiles.multiply::<0>(at(&x, 0, step), at(&w, 0, step));
                    tiles.multiply::<1>(at(&x, 0, step), at(&w, 1, step));
                }
                tiles.store::<0>(&mut sums);
                tiles.store::<1>(&mut sums);
                if tiles.has(2) {
                    tiles.clear::<2>();
                    tiles.clear::<3>();
                    for step in 0..STEPS {
                        tiles.multiply::<0>(at(&x, 0, step), at(&w, 0, step));
                        tiles.multiply::<1>(at(&x, 0, step), at(&w, 1, step));
                        tiles.multiply::<2>(at(&x, 1, step), at(&w, 0, step));
                        tiles.multiply::<3>(at(&x, 1, step), at(&w, 1, step));
                    }
                    tiles.store::<2>(&mut sums);
                    tiles.store::<3>(&mut sums);
                }
            }
            for (stream, sums) in sums.iter().enumerate() {
                for (column, sums) in sums.0[..columns].iter().enumerate() {
                    for (row, &sum) in sums.iter().enumerate() {
                        let products = (0..STEPS * TILE_CODES).map(|i| {
                            let (step, i) = (i / TILE_CODES, i % TILE_CODES);
                            let x = x[column / 16 * STEPS + step].0[column % 16][i] as i32;
                            x * (w[stream * STEPS + step].0[i / 4][row * 4 + i % 4] as u8) as i32
                        });
                        assert_eq!(sum, products.sum::<i32>(), "{columns} columns, column {column}, row {row}");
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_that_tiles_had_come_back() {
        let Some(amx) = Amx::try_new() else { return };
        let rows = || {
            let mut shapes = Shapes::zeroed();
            // SAFETY: the CPU has tiles.
            unsafe { asm!("sttilecfg [{}]", in(reg) &raw mut shapes, options(nostack, preserves_flags)) };
            (shapes.palette, shapes.rows)
        };
        assert_eq!(rows().0, 0);
        {
            let _outer = amx.tiles(20);
            let outer = rows();
            assert_eq!((outer.0, outer.1[0], outer.1[2]), (1, 16, 4));
            {
                let _inner = amx.tiles(3);
                assert_eq!(rows().1[0], 3);
            }
            assert_eq!(rows(), outer);
        }
        assert_eq!(rows().0, 0);
    }
}
