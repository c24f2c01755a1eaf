//! Handing the rows of several matrices to an executor's tasks.

use super::math::vectorize;
use crate::{executor::Executor, kernel::SharedMut, simd::Level};

/// An executor for callers whose tasks are rows: a thread takes many at once, since taking one costs as much as the row.
pub(crate) struct Chunked<'a>(pub &'a dyn Executor);

impl Executor for Chunked<'_> {
    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let chunks = tasks.min(4 * self.0.threads());
        let size = tasks.div_ceil(chunks.max(1));
        self.0.run(chunks, &|chunk| (chunk * size..tasks.min((chunk + 1) * size)).for_each(task));
    }
}

/// Elements below which a pass is not worth waking other threads.
const SERIAL_ELEMENTS: usize = 1 << 14;

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
    let tasks = if elements < SERIAL_ELEMENTS { 1 } else { rows.min(4 * ex.threads()) };
    let rows_per_task = rows.div_ceil(tasks.max(1));
    let task = |task: usize| {
        vectorize(
            level,
            #[inline(always)]
            || {
                for row in task * rows_per_task..rows.min((task + 1) * rows_per_task) {
                    // SAFETY: each row belongs to one task, which holds one row of a matrix at a time.
                    let slices = core::array::from_fn(|i| unsafe {
                        let (matrix, width) = &matrices[i];
                        matrix.slice(row * width, *width)
                    });
                    f(row, slices);
                }
            },
        );
    };
    if tasks <= 1 { task(0) } else { ex.run(tasks, &task) }
}
