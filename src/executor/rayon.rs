//! Tasks on a rayon pool.

use super::Executor;
use ::rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Runs tasks on a rayon pool: one that the caller owns, or the one that the calling thread belongs to.
///
/// A panic in a task is propagated to the caller, as rayon does it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rayon<'a> {
    pool: Option<&'a ::rayon::ThreadPool>,
}

impl<'a> Rayon<'a> {
    /// Runs on `pool`.
    pub fn new(pool: &'a ::rayon::ThreadPool) -> Self {
        Rayon { pool: Some(pool) }
    }

    /// Runs on the pool that the calling thread belongs to; outside of any pool this is rayon's global one.
    pub fn current() -> Rayon<'static> {
        Rayon { pool: None }
    }
}

impl Executor for Rayon<'_> {
    fn threads(&self) -> usize {
        self.pool.map_or_else(::rayon::current_num_threads, ::rayon::ThreadPool::current_num_threads)
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let all = || (0..tasks).into_par_iter().with_max_len(1).for_each(task);
        match self.pool {
            Some(pool) => pool.install(all),
            None => all(),
        }
    }
}
