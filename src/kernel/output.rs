//! Where a register tile's sums live between chunks of k: in y itself.

use crate::simd::{Isa, PANEL_ROWS};

/// y as the tasks of one matmul share it: `[m, stride]`, each task writing rows of W that are its own.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Element (0, 0).
    pub y: *mut f32,
    /// Elements from one row of y to the next.
    pub stride: usize,
}

// SAFETY: tasks write disjoint columns; the matmul call holds the `&mut` borrow for as long as they run.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// The tile whose first element is (`column` of x, `row` of W).
    ///
    /// # Safety
    /// The element is inside y.
    #[inline(always)]
    pub unsafe fn at(self, column: usize, row: usize) -> Output {
        // SAFETY: the caller vouches for the element.
        Output { y: unsafe { self.y.add(column * self.stride + row) }, stride: self.stride }
    }

    /// Asks for column `column` of the tile behind this one, if it has one: y has `columns` from this tile's first on.
    #[inline(always)]
    pub fn prefetch_behind<I: Isa, const MR: usize, const NR: usize>(self, isa: I, column: usize, columns: usize) {
        if column < NR && NR + column < columns {
            for i in (0..MR * I::LANES).step_by(16) {
                isa.prefetch(self.y.wrapping_add((NR + column) * self.stride + i).cast());
            }
        }
    }

    /// Stores the first `rows` of the sums of a panel, or all of them, for the columns from the tile's first on.
    ///
    /// # Safety
    /// As many columns of so many rows are inside y.
    #[inline(always)]
    pub unsafe fn store_rows(self, columns: &[[f32; PANEL_ROWS]], rows: usize) {
        for (j, sums) in columns.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let y = self.y.add(j * self.stride);
                if rows >= PANEL_ROWS {
                    // A length that is known: no call.
                    core::ptr::copy_nonoverlapping(sums.as_ptr(), y, PANEL_ROWS);
                } else {
                    core::ptr::copy_nonoverlapping(sums.as_ptr(), y, rows);
                }
            }
        }
    }

    /// The sums so far, or zeros where `first`.
    ///
    /// # Safety
    /// `columns` (`NR` at most) rows of `rows` elements (`MR · LANES` at most) are inside y.
    #[inline(always)]
    pub unsafe fn load<I: Isa, const MR: usize, const NR: usize>(
        self,
        isa: I,
        columns: usize,
        rows: usize,
        first: bool,
    ) -> [[I::F; NR]; MR] {
        let mut acc = [[isa.splat_f32(0.0); NR]; MR];
        if first {
            return acc;
        }
        for j in 0..NR {
            if j >= columns {
                break;
            }
            // SAFETY: only the first `rows` elements of each row are touched.
            unsafe {
                let row = self.y.add(j * self.stride);
                if rows >= MR * I::LANES {
                    for i in 0..MR {
                        acc[i][j] = isa.load_f32(row.add(i * I::LANES));
                    }
                } else {
                    let mut part = [0.0f32; 64];
                    core::ptr::copy_nonoverlapping(row, part.as_mut_ptr(), rows);
                    for i in 0..MR {
                        acc[i][j] = isa.load_f32(part.as_ptr().add(i * I::LANES));
                    }
                }
            }
        }
        acc
    }

    /// Writes the sums back.
    ///
    /// # Safety
    /// As [`Output::load`].
    #[inline(always)]
    pub unsafe fn store<I: Isa, const MR: usize, const NR: usize>(
        self,
        isa: I,
        columns: usize,
        rows: usize,
        acc: [[I::F; NR]; MR],
    ) {
        for j in 0..NR {
            if j >= columns {
                break;
            }
            // SAFETY: only the first `rows` elements of each row are touched.
            unsafe {
                let row = self.y.add(j * self.stride);
                if rows >= MR * I::LANES {
                    for i in 0..MR {
                        isa.store_f32(row.add(i * I::LANES), acc[i][j]);
                    }
                } else {
                    let mut part = [0.0f32; 64];
                    for i in 0..MR {
                        isa.store_f32(part.as_mut_ptr().add(i * I::LANES), acc[i][j]);
                    }
                    core::ptr::copy_nonoverlapping(part.as_ptr(), row, rows);
                }
            }
        }
    }
}

/// The sums of a panel's registers, `sums[register][column]`, as columns of rows.
#[inline(always)]
pub(super) fn columns_of<I: Isa, const NR: usize>(isa: I, sums: &[[I::F; NR]]) -> [[f32; PANEL_ROWS]; NR] {
    let mut columns = [[0.0; PANEL_ROWS]; NR];
    for r in 0..I::REGISTERS {
        for j in 0..NR {
            // SAFETY: a column has 16 floats, the lanes of all registers.
            unsafe { isa.store_f32(columns[j].as_mut_ptr().add(r * I::LANES), sums[r][j]) };
        }
    }
    columns
}
