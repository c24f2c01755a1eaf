//! A matmul that is checked and cut into tasks.

use crate::{
    Executor,
    kernel::{Job, Output, panels_of},
    simd::PANEL_ROWS,
};
use core::ops::Range;

/// Weights of decode below which another task costs more than it saves.
const TASK_WEIGHTS: usize = 1 << 15;

/// A checked matmul, cut into tasks of whole panels. It holds y by a raw pointer: the borrow is the caller's to keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'j> {
    job: Job<'j>,
    multiply: fn(&Job<'_>, Range<usize>),
    panels: usize,
    /// How many calls of [`Plan::run`] there are.
    pub tasks: usize,
}

impl<'j> Plan<'j> {
    /// Tasks for `threads` threads; every length in `job` fits its shapes.
    pub fn new(job: Job<'j>, multiply: fn(&Job<'_>, Range<usize>), threads: usize) -> Self {
        let (m, n) = (job.m(), job.rows.1 - job.rows.0);
        let panels = if m == 0 { 0 } else { job.panels() };
        Plan { job, multiply, panels, tasks: Plan::count_tasks(m, n, job.k, threads) }
    }

    /// How many tasks a matmul of this shape has.
    pub fn count_tasks(m: usize, n: usize, k: usize, threads: usize) -> usize {
        let panels = if m == 0 { 0 } else { panels_of(n) };
        let work = panels.saturating_mul(PANEL_ROWS * m).saturating_mul(k.max(1));
        // A few tasks for each thread even out their speed; each still reads one long stream.
        let tasks = if threads == 1 { 1 } else { (work / TASK_WEIGHTS).clamp(1, threads * 8) };
        tasks.min(panels)
    }

    /// Rows of x.
    pub fn m(&self) -> usize {
        self.job.m()
    }

    /// Where the results go.
    pub fn output(&self) -> Output {
        self.job.y
    }

    /// The panels of one task.
    fn cut(&self, task: usize) -> Range<usize> {
        let cut = |task: usize| (task as u128 * self.panels as u128 / self.tasks as u128) as usize;
        cut(task)..cut(task + 1)
    }

    /// The columns of y that one task writes.
    pub fn features(&self, task: usize) -> Range<usize> {
        let panels = self.cut(task);
        panels.start * PANEL_ROWS..(panels.end * PANEL_ROWS).min(self.job.rows.1 - self.job.rows.0)
    }

    /// Runs all tasks.
    pub fn execute(&self, executor: &dyn Executor) {
        executor.run(self.tasks, &|task| self.run(task));
    }

    /// Multiplies the panels of one task. Each task is to be run once, before y is read.
    pub fn run(&self, task: usize) {
        (self.multiply)(&self.job, self.cut(task));
    }
}
