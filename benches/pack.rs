//! Packing every format into fresh huge pages, in bytes of the source per second, from one thread and from two; `copy` is
//! what a plain copy of the same bytes into new memory comes to.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quantblock::weight::{FORMATS, WeightFormat};
use quantblock::{Arena, executor::ThreadPool};
use std::{hint::black_box, time::Duration};

/// A matrix of a layer.
const SHAPE: (usize, usize) = (4096, 4096);

fn packing(c: &mut Criterion) {
    let (n, k) = SHAPE;
    for &(type_id, format) in FORMATS {
        let some_rows: Vec<f32> = (0..16 * k).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
        let weights: Vec<f32> = some_rows.iter().copied().cycle().take(n * k).collect();
        let native = WeightFormat::quantized(type_id, &weights, None, n, k).expect("weights");
        let mut group = c.benchmark_group(format!("pack/{format}"));
        group.throughput(Throughput::BytesDecimal(native.size_bytes() as u64));
        for threads in [1, 2] {
            let pool = ThreadPool::new(threads);
            group.bench_function(format!("{threads}"), |b| {
                b.iter(|| native.clone().pack_in(&mut Arena::new(), &pool).expect("packed weights"))
            });
        }
        let source = vec![1u8; native.size_bytes()];
        group.bench_function("copy", |b| b.iter(|| black_box(&source).clone()));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = packing
}
criterion_main!(benches);
