//! Who runs the work: the embedder's threads, one thread, or the built-in pool.
//!
//! A kernel cuts its work into tasks and hands them to an [`Executor`]; the crate starts no thread by itself and has no
//! global pool. [`Serial`] runs everything on the caller's thread, `ThreadPool` (feature `std`) is a pool made for short
//! parallel sections, `Rayon` (feature `rayon`) runs on a rayon pool. An engine with threads of its own implements the
//! trait for them.

#[cfg(feature = "std")]
mod pool;
mod ranges;
#[cfg(feature = "rayon")]
mod rayon;

#[cfg(feature = "rayon")]
pub use self::rayon::Rayon;
#[cfg(feature = "std")]
pub use pool::ThreadPool;
pub(crate) use ranges::for_ranges;

/// Runs independent tasks, on as many threads as it likes, and returns when all are done.
///
/// Results never depend on the executor: which task computes which element is fixed by the task's index alone.
pub trait Executor {
    /// How many threads may run tasks at the same time, the caller's included. At least 1.
    fn threads(&self) -> usize;

    /// Calls `task(i)` once for every `i < tasks`, in any order and on any thread, and returns after the last one.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// So that `&dyn Executor` can be passed where an `&impl Executor` is asked for.
impl<E: Executor + ?Sized> Executor for &E {
    fn threads(&self) -> usize {
        (**self).threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (**self).run(tasks, task);
    }
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
