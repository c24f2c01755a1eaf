//! Rows of something as an executor's tasks: a few ranges for each thread, since taking a task costs as much as a row.

use super::Executor;
use core::ops::Range;

/// Elements below which a pass is not worth waking other threads: entering them costs as much as a few thousand elements.
const SERIAL_ELEMENTS: usize = 1 << 14;
/// So that a thread that is held up does not hold up all others.
const RANGES_A_THREAD: usize = 4;

/// Calls `task` with ranges that are `0..rows` together, of which no two share a row; with all at once on this thread where
/// `elements`, those of all rows, are few.
pub(crate) fn for_ranges(executor: &dyn Executor, rows: usize, elements: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
    let threads = executor.threads();
    if elements < SERIAL_ELEMENTS || threads <= 1 {
        return task(0..rows);
    }
    let size = rows.div_ceil(RANGES_A_THREAD * threads).max(1);
    executor.run(rows.div_ceil(size), &|i| task(i * size..rows.min((i + 1) * size)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Serial;
    use alloc::{vec, vec::Vec};
    use core::cell::Cell;

    struct Threads<'a>(usize, &'a Cell<usize>);

    impl Executor for Threads<'_> {
        fn threads(&self) -> usize {
            self.0
        }
        fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            self.1.set(tasks);
            Serial.run(tasks, task);
        }
    }

    #[test]
    fn every_row_is_in_one_range() {
        for rows in [0, 1, 2, 7, 8, 9, 100, 1000] {
            for threads in [1, 2, 3, 16] {
                for elements in [SERIAL_ELEMENTS - 1, SERIAL_ELEMENTS] {
                    let (tasks, seen) = (Cell::new(0), std::sync::Mutex::new(Vec::new()));
                    for_ranges(&Threads(threads, &tasks), rows, elements, &|range| seen.lock().unwrap().push(range));
                    let seen = seen.into_inner().unwrap();
                    let mut counts = vec![0; rows];
                    seen.iter().cloned().flatten().for_each(|row| counts[row] += 1);
                    assert_eq!(counts, vec![1; rows], "{rows} rows, {threads} threads");
                    assert!(rows == 0 || seen.iter().all(|range| !range.is_empty()));
                    let is_serial = threads == 1 || elements < SERIAL_ELEMENTS;
                    assert_eq!(tasks.get() == 0, is_serial || rows == 0);
                    assert!(tasks.get() <= RANGES_A_THREAD * threads);
                }
            }
        }
    }
}
