//! Every executor runs every task exactly once, whatever the tasks do.
#![cfg(feature = "std")]

use quantblock::executor::{Executor, Serial, ThreadPool};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

/// Runs `tasks` tasks and checks that each ran once and that its writes are visible afterwards.
fn each_once(ex: &impl Executor, tasks: usize) {
    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    ex.run(tasks, &|i| {
        // Relaxed on purpose: `run` itself has to publish the write.
        counts[i].fetch_add(1, Ordering::Relaxed);
    });
    for (i, count) in counts.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), 1, "task {i} of {tasks} on {} threads", ex.threads());
    }
}

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 8] {
        let pool = ThreadPool::new(threads);
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 7, 1000] {
            for _ in 0..20 {
                each_once(&pool, tasks);
            }
        }
    }
    for tasks in [0, 1, 2, 7, 1000] {
        each_once(&Serial, tasks);
        each_once(&(&Serial as &dyn Executor), tasks);
    }
}

#[test]
fn zero_threads_mean_one() {
    let pool = ThreadPool::new(0);
    assert_eq!(pool.threads(), 1);
    each_once(&pool, 5);
    assert!(ThreadPool::default().threads() >= 1);
}

#[test]
fn tasks_run_on_several_threads_at_once() {
    let pool = ThreadPool::new(3);
    // Three tasks that can end only together: the pool has to bring three threads, parked ones included.
    for pause_ms in [0, 5] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        let met = Barrier::new(3);
        let threads = Mutex::new(HashSet::new());
        pool.run(3, &|_| {
            met.wait();
            threads.lock().unwrap().insert(std::thread::current().id());
        });
        assert_eq!(threads.into_inner().unwrap().len(), 3);
    }
}

#[test]
fn slow_workers_are_waited_for() {
    let pool = ThreadPool::new(2);
    let caller = std::thread::current().id();
    for _ in 0..5 {
        let met = Barrier::new(2);
        let done = AtomicUsize::new(0);
        pool.run(2, &|_| {
            met.wait();
            if std::thread::current().id() != caller {
                // Long enough for the caller to park.
                std::thread::sleep(Duration::from_millis(5));
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
    for threads in [1, 2, 3, 8] {
        let pool = ThreadPool::new(threads);
        for culprit in [0, 13, 99] {
            let running = AtomicUsize::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|i| {
                    if i == culprit {
                        resume_unwind(Box::new(i));
                    }
                    running.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&culprit));
            assert_eq!(running.load(Ordering::Relaxed), 0, "a task was still running");
            each_once(&pool, 100);
        }
        // Every task panics: one payload arrives, nothing is left over for the next run.
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(50, &|i| resume_unwind(Box::new(i)))));
        assert!(caught.unwrap_err().is::<usize>());
        each_once(&pool, 50);
    }
}

#[test]
fn nested_runs_do_not_deadlock() {
    for threads in [1, 2, 8] {
        let pool = ThreadPool::new(threads);
        let other = ThreadPool::new(2);
        let count = AtomicUsize::new(0);
        pool.run(9, &|_| {
            pool.run(4, &|_| {
                other.run(3, &|_| {
                    pool.run(2, &|_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                });
            });
        });
        assert_eq!(count.load(Ordering::Relaxed), 9 * 4 * 3 * 2);
    }
}

#[test]
fn a_nested_panic_passes_through_both_runs() {
    let pool = ThreadPool::new(2);
    let inner = |i| {
        if i == 3 {
            resume_unwind(Box::new("inner"))
        }
    };
    let caught = catch_unwind(AssertUnwindSafe(|| pool.run(4, &|_| pool.run(4, &inner))));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"inner"));
    each_once(&pool, 10);
}

#[test]
fn several_threads_share_a_pool() {
    let pool = ThreadPool::new(3);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for round in 0..300 {
                    each_once(&pool, round % 11);
                }
            });
        }
    });
}

#[test]
fn many_pools_live_side_by_side() {
    let pools: Vec<ThreadPool> = (0..20).map(|i| ThreadPool::new(1 + i % 4)).collect();
    for _ in 0..20 {
        for pool in &pools {
            each_once(pool, 9);
        }
    }
}

#[test]
fn pools_are_dropped_at_any_moment() {
    for threads in [1, 2, 8] {
        for round in 0..50 {
            let pool = ThreadPool::new(threads);
            match round % 4 {
                // Before the workers are up, while they watch, about when they park, parked.
                0 => {}
                1 => each_once(&pool, 3),
                2 => std::thread::sleep(Duration::from_micros(200)),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
            drop(pool);
        }
    }
}

/// Processor time of a thread in ticks of 10 ms.
#[cfg(target_os = "linux")]
fn ticks(thread: &std::path::Path) -> u64 {
    let stat = std::fs::read_to_string(thread.join("stat")).unwrap();
    // Behind the name, which is in parentheses: state is field 3, user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_pool_uses_no_processor_time() {
    let pool = ThreadPool::new(2);
    let met = Barrier::new(2);
    let threads = Mutex::new(Vec::new());
    pool.run(2, &|_| {
        met.wait();
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        threads.lock().unwrap().push(std::path::Path::new("/proc").join(thread));
    });
    let threads = threads.into_inner().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let before: u64 = threads.iter().map(|thread| ticks(thread)).sum();
    std::thread::sleep(Duration::from_millis(500));
    let after: u64 = threads.iter().map(|thread| ticks(thread)).sum();
    // A worker that watches all the time would have used up to 50; one tick is rounding.
    assert!(after - before <= 1, "{} ticks", after - before);
}

#[test]
fn stress() {
    for threads in [2, 3, 8] {
        let pool = ThreadPool::new(threads);
        let mut seed = 1u32;
        for round in 0..20_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let tasks = (seed >> 28) as usize;
            let sum = AtomicUsize::new(0);
            // On the caller's stack and different in each run: a worker late by one run would be seen.
            let salt = round as usize;
            pool.run(tasks, &|i| {
                sum.fetch_add(i + salt, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), tasks * salt + tasks * tasks.saturating_sub(1) / 2);
            // Let the workers reach every stage between watching and sleep.
            match seed >> 20 & 0xff {
                0 => std::thread::sleep(Duration::from_micros(60)),
                1..20 => (0..seed >> 18 & 0xfff).for_each(|_| std::hint::spin_loop()),
                _ => {}
            }
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn rayon_runs_every_task_once() {
    use quantblock::executor::Rayon;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(Rayon::new(&pool).threads(), 3);
    assert_eq!(pool.install(|| Rayon::current().threads()), 3);
    for tasks in [0, 1, 2, 7, 1000] {
        each_once(&Rayon::new(&pool), tasks);
        each_once(&Rayon::current(), tasks);
    }
    let fourth = |i| {
        if i == 4 {
            resume_unwind(Box::new(i))
        }
    };
    let caught = catch_unwind(AssertUnwindSafe(|| Rayon::new(&pool).run(9, &fourth)));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&4usize));
    each_once(&Rayon::new(&pool), 9);
}
