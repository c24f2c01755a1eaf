//! A thread pool for sections of microseconds.
//!
//! Decoding one token enters and leaves a parallel section some hundred times, so both have to cost about a microsecond.
//! The pool does that with one word, [`Shared::state`]: it says whether a job is open, how many workers are in it and which
//! job it is. Workers join an open job by adding themselves to that word; the caller takes tasks too, closes the job
//! when none is left and waits for the workers *that joined*. A worker that the system has not scheduled yet is never
//! waited for, which is what keeps an oversubscribed machine going.
//!
//! Workers watch the word for [`SPIN`] after their last job and then park. Sleepers are woken as a tree: whoever joins a
//! job wakes up to two others while tasks are left over, so a job that is over before the first worker is up
//! has paid for one or two wake-ups and not for all.

use super::Executor;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

/// How long a thread watches memory before it parks: longer than the serial work between two matmuls of a layer, far
/// shorter than anything that shows up as load on an idle machine.
const SPIN: Duration = Duration::from_micros(50);

/// Looks at memory between two looks at the clock.
const LOOKS: u32 = 32;

/// Sleepers that one thread wakes when it joins a job.
const FAN_OUT: usize = 2;

// The bits of `Shared::state`.
/// Workers may join the job.
const OPEN: usize = 1;
/// The caller is parked until the last worker has left.
const WAITING: usize = 1 << 1;
/// The pool is being dropped.
const SHUTDOWN: usize = 1 << 2;
/// One worker in the job; the count has the bits from here up to `JOB`.
const WORKER: usize = 1 << 3;
/// One job; the number has the bits from here on and wraps. It only keeps a worker from joining a job twice.
const JOB: usize = 1 << 15;
/// The bits of the worker count.
const WORKERS: usize = JOB - WORKER;
/// What the count of workers can hold.
const MAX_WORKERS: usize = WORKERS / WORKER;

/// A value on cache lines of its own (two, since neighbours are fetched in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// The job that is open.
#[derive(Clone, Copy)]
struct Job {
    task: &'static (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// Where a worker sleeps.
#[derive(Default)]
struct Bed {
    /// Whether the worker is parked or about to be. Who takes it back to `false` counts the sleeper off.
    asleep: AtomicBool,
    /// The worker, set before it first sleeps.
    thread: OnceLock<Thread>,
}

/// What the pool and its workers share.
struct Shared {
    /// `OPEN | WAITING | SHUTDOWN | workers in the job | number of the job`.
    state: Alone<AtomicUsize>,
    /// The next task that nobody has taken.
    next: Alone<AtomicUsize>,
    /// Workers whose bed says `asleep`.
    sleepers: Alone<AtomicUsize>,
    beds: Box<[Alone<Bed>]>,
    /// Whether a caller has the pool; it alone opens and closes jobs.
    taken: AtomicBool,
    /// Written by the caller that has the pool while no job is open and no worker is in one; read by workers in the job.
    job: UnsafeCell<Option<Job>>,
    /// Written by the caller before it sets `WAITING`; read by workers in the job that see `WAITING`.
    waiter: UnsafeCell<Option<Thread>>,
    /// The first panic of the job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether `panic` holds something, so that a job without a panic takes no lock.
    panicked: AtomicBool,
    /// How long to watch memory before parking.
    spin: Duration,
}

// SAFETY: `job` and `waiter` are the only fields that are not `Sync`. Their writers and readers are kept apart by `state`
// as their docs say: joining is an acquire operation on the word that the writer released, leaving is a
// release operation that the next writer acquires. What they hold is `Sync` (a `&(dyn Fn + Sync)`) resp. `Send + Sync` (`Thread`).
unsafe impl Sync for Shared {}

impl Shared {
    /// Watches `state` for at most `spin`; the first value that is `ready`, or `None`.
    fn watch(&self, ready: impl Fn(usize) -> bool) -> Option<usize> {
        let mut start = None;
        loop {
            for _ in 0..LOOKS {
                let state = self.state.0.load(Ordering::Acquire);
                if ready(state) {
                    return Some(state);
                }
                spin_loop();
            }
            if start.get_or_insert_with(Instant::now).elapsed() >= self.spin {
                return None;
            }
        }
    }

    /// Takes tasks of `job` until none is left. A panic is kept for the caller and leaves the other tasks untaken.
    fn work(&self, job: Job) {
        let drained = catch_unwind(AssertUnwindSafe(|| {
            loop {
                // Relaxed: the job was published through `state`, and nothing is read through the number.
                let index = self.next.0.fetch_add(1, Ordering::Relaxed);
                if index >= job.tasks {
                    break;
                }
                (job.task)(index);
            }
        }));
        if let Err(payload) = drained {
            self.next.0.store(job.tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    /// The panic of the job that is over.
    fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        if !self.panicked.load(Ordering::Relaxed) {
            return None;
        }
        self.panicked.store(false, Ordering::Relaxed);
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Wakes sleepers for those of `tasks` that neither a worker in the job nor one that is awake anyway will take.
    fn wake_for(&self, tasks: usize) {
        let sleepers = self.sleepers.0.load(Ordering::SeqCst);
        if sleepers == 0 {
            return;
        }
        let untaken = tasks.saturating_sub(self.next.0.load(Ordering::Relaxed));
        let joined = (self.state.0.load(Ordering::Relaxed) & WORKERS) / WORKER;
        let coming = self.beds.len().saturating_sub(sleepers + joined);
        self.wake(untaken.saturating_sub(coming).min(FAN_OUT));
    }

    /// Wakes up to `count` sleepers, the ones with low numbers first so that the same cores are used again.
    fn wake(&self, mut count: usize) {
        for Alone(bed) in &self.beds {
            if count == 0 {
                return;
            }
            if bed.asleep.load(Ordering::SeqCst) && bed.asleep.swap(false, Ordering::AcqRel) {
                self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
                if let Some(thread) = bed.thread.get() {
                    thread.unpark();
                }
                count -= 1;
            }
        }
    }

    /// Parks the worker of `bed` until someone wakes it; returns at once where `ready` holds already.
    fn sleep(&self, bed: &Bed, ready: impl Fn(usize) -> bool) {
        // Announce, then look at `state`; a caller stores `state`, then looks for sleepers. All of it is sequentially
        // consistent, so either the caller sees the sleeper or the sleeper sees the job.
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        bed.asleep.store(true, Ordering::SeqCst);
        if ready(self.state.0.load(Ordering::SeqCst)) {
            if bed.asleep.swap(false, Ordering::AcqRel) {
                self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
            }
            return;
        }
        while bed.asleep.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// A worker's life.
    fn serve(&self, bed: &Bed) {
        bed.thread.get_or_init(thread::current);
        let mut done = 0;
        loop {
            // A job to join that this worker has not been in.
            let ready = |state: usize| state & SHUTDOWN != 0 || state & OPEN != 0 && state / JOB != done;
            let Some(state) = self.watch(ready) else {
                self.sleep(bed, ready);
                continue;
            };
            if state & SHUTDOWN != 0 {
                return;
            }
            let joined = state + WORKER;
            if self.state.0.compare_exchange(state, joined, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            done = state / JOB;
            // SAFETY: `state` was open and this worker is counted in it, so the caller that wrote the job waits for this
            // worker to leave before it returns or writes again; the exchange acquired what the caller released by opening.
            if let Some(job) = unsafe { *self.job.get() } {
                self.wake_for(job.tasks);
                self.work(job);
            }
            self.leave();
        }
    }

    /// Takes this worker out of the job; the caller may return from then on.
    fn leave(&self) {
        let mut state = self.state.0.load(Ordering::Acquire);
        loop {
            let waiter = if state & WAITING != 0 && state & WORKERS == WORKER {
                // SAFETY: the caller wrote the waiter before it released `WAITING`, which was acquired by the load of
                // `state`, and does not write it again before this worker has left.
                unsafe { (*self.waiter.get()).clone() }
            } else {
                None
            };
            // Release: the caller acquires what the tasks wrote.
            match self.state.0.compare_exchange_weak(state, state - WORKER, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if let Some(thread) = waiter {
                        thread.unpark();
                    }
                    return;
                }
                Err(now) => state = now,
            }
        }
    }

    /// Runs a job on behalf of the caller that has the pool.
    fn host(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes. The reference is used by `work` alone, on this thread and on workers that are
        // counted in `state`, and this function does not return or unwind (`work` catches) before that count is 0 with the job closed.
        let task = unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        let job = Job { task, tasks };
        // SAFETY: the job before is closed and nobody is in it (this thread has `taken`, acquired from the caller
        // before, which waited for that), so nobody reads.
        unsafe { *self.job.get() = Some(job) };
        self.next.0.store(0, Ordering::Relaxed);
        let number = (self.state.0.load(Ordering::Relaxed) / JOB).wrapping_add(1).wrapping_mul(JOB);
        self.state.0.store(number | OPEN, Ordering::SeqCst);

        // One task is this thread's own.
        self.wake_for(tasks - 1);
        self.work(job);

        let empty = |state: usize| state & WORKERS == 0;
        if empty(self.state.0.fetch_and(!OPEN, Ordering::AcqRel)) || self.watch(empty).is_some() {
            return;
        }
        // SAFETY: workers read the waiter only after they see `WAITING`, which is not set yet.
        unsafe { *self.waiter.get() = Some(thread::current()) };
        let mut state = self.state.0.fetch_or(WAITING, Ordering::AcqRel);
        while !empty(state) {
            thread::park();
            state = self.state.0.load(Ordering::Acquire);
        }
    }
}

/// A thread pool that enters and leaves a parallel section in about a microsecond.
///
/// The caller of [`Executor::run`] takes tasks too, so a pool of `threads` starts `threads − 1` workers. Workers watch for
/// the next job for some ten microseconds and then park; an idle pool uses no processor time. Any number of pools may
/// exist, and dropping one joins its threads.
///
/// - A task may call `run` on the same pool, and several threads may share a pool: whoever finds the pool taken runs
///   its tasks on its own thread.
/// - A panic in a task is propagated to the caller after every task that has begun is over; tasks that have not begun are dropped.
///   The pool stays usable.
/// - `run` neither allocates nor takes a lock; only parking and waking ask the system.
///
/// ```
/// use quantblock::executor::{Executor, ThreadPool};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let pool = ThreadPool::new(2);
/// let sum = AtomicUsize::new(0);
/// pool.run(10, &|index| {
///     sum.fetch_add(index, Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// ```
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller's included; 0 means 1.
    ///
    /// Where the system refuses to start so many, the pool has as many as it got: [`Executor::threads`] tells.
    pub fn new(threads: usize) -> Self {
        let wanted = threads.saturating_sub(1).min(MAX_WORKERS);
        let cores = available();
        let shared = Arc::new(Shared {
            state: Alone::default(),
            next: Alone::default(),
            sleepers: Alone::default(),
            beds: (0..wanted).map(|_| Alone::default()).collect(),
            taken: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            waiter: UnsafeCell::new(None),
            panic: Mutex::new(None),
            panicked: AtomicBool::new(false),
            // With fewer cores than threads, who watches memory keeps off who works.
            spin: if threads <= cores { SPIN } else { Duration::ZERO },
        });
        let mut pool = ThreadPool { shared, workers: Vec::with_capacity(wanted) };
        for index in 0..wanted {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(alloc::format!("quantblock-{}", index + 1));
            match worker.spawn(move || shared.serve(&shared.beds[index].0)) {
                Ok(handle) => pool.workers.push(handle),
                // Beds without a worker would be waited for in vain when sleepers are woken: start anew with what there is.
                Err(_) => {
                    drop(pool);
                    return ThreadPool::new(index);
                }
            }
        }
        pool
    }
}

/// Threads that can run at the same time here.
fn available() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// As many threads as the machine (or the process' share of it) can run at the same time.
impl Default for ThreadPool {
    fn default() -> Self {
        ThreadPool::new(available())
    }
}

impl core::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

impl Executor for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // `next` runs past `tasks` by one for each thread, which must not wrap.
        let worthwhile = !self.workers.is_empty() && (2..usize::MAX - MAX_WORKERS - 1).contains(&tasks);
        if !worthwhile || shared.taken.swap(true, Ordering::Acquire) {
            (0..tasks).for_each(task);
            return;
        }
        shared.host(tasks, task);
        let panic = shared.take_panic();
        shared.taken.store(false, Ordering::Release);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(SHUTDOWN, Ordering::SeqCst);
        self.shared.wake(self.workers.len());
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks throw; there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}
