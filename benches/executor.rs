//! What entering and leaving a parallel section costs: the built-in pool against rayon and scoped threads.
//!
//! `busy` runs sections back to back; `gap` leaves 20 µs of serial work between two, as a decoder does between two
//! matmuls, and its figure includes those 20 µs.

use criterion::{Criterion, criterion_group, criterion_main};
use quantblock::executor::{Executor, Serial, ThreadPool};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Serial work between two sections.
const GAP: Duration = Duration::from_micros(20);

fn sections(c: &mut Criterion, name: &str, threads: usize, ex: &impl Executor) {
    let run = || {
        ex.run(threads, &|i| {
            black_box(i);
        })
    };
    c.bench_function(&format!("executor/busy/{name}/{threads}"), |b| b.iter(run));
    c.bench_function(&format!("executor/gap/{name}/{threads}"), |b| {
        b.iter(|| {
            run();
            let start = Instant::now();
            while start.elapsed() < GAP {
                std::hint::spin_loop();
            }
        })
    });
}

/// A new thread for each task.
struct Scoped(usize);

impl Executor for Scoped {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for i in 1..tasks {
                scope.spawn(move || task(i));
            }
            task(0);
        });
    }
}

fn executors(c: &mut Criterion) {
    sections(c, "serial", 1, &Serial);
    for threads in [2, 8] {
        sections(c, "pool", threads, &ThreadPool::new(threads));
        #[cfg(feature = "rayon")]
        {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a rayon pool");
            sections(c, "rayon", threads, &quantblock::executor::Rayon::new(&pool));
        }
        sections(c, "scoped", threads, &Scoped(threads));
    }
}

criterion_group!(benches, executors);
criterion_main!(benches);
