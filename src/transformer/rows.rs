//! Handing the rows of several matrices to an executor's tasks.

use super::math::vectorize;
use crate::{
    executor::{Executor, for_ranges},
    kernel::SharedMut,
    simd::Level,
};

/// Calls `f(row, [a row of each matrix])` for every row, with the instructions of `level`; `matrices` holds each
/// matrix with the length of its rows.
pub(crate) fn for_each_row<const N: usize>(
    level: Level,
    rows: usize,
    matrices: [(&mut [f32], usize); N],
    ex: &dyn Executor,
    f: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    let elements: usize = matrices.iter().map(|(_, width)| rows * width).sum();
    let matrices = matrices.map(|(matrix, width)| (SharedMut::new(matrix), width));
    for_ranges(ex, rows, elements, &|rows| {
        vectorize(
            level,
            #[inline(always)]
            || {
                for row in rows {
                    // SAFETY: each row belongs to one task, which holds one row of a matrix at a time.
                    let slices = core::array::from_fn(|i| unsafe {
                        let (matrix, width) = &matrices[i];
                        matrix.slice(row * width, *width)
                    });
                    f(row, slices);
                }
            },
        );
    });
}
