//! Who runs the work: the embedder's threads, one thread, or the built-in pool.

/// Runs independent tasks, on as many threads as it likes, and returns when all are done.
///
/// Results never depend on the executor: which task computes which element is fixed by the task's index alone.
pub trait Executor {
    /// How many threads may run tasks at the same time, the caller's included. At least 1.
    fn threads(&self) -> usize;

    /// Calls `task(i)` once for every `i < tasks`, in any order and on any thread, and returns after the last one.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Everything on the caller's thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}
