//! Every format's matmul: decode (m = 1) and prefill (m = 512), native and packed, at every level that this CPU has.
//!
//! Decode is given in bytes of weights per second, prefill in multiply-adds. Quantizing the activations is not in it, as a
//! layer does that once for several matmuls. Two baselines per shape: `F32`, which is weights that were
//! dequantized beforehand, and `dequantize-per-call`, which turns each row into f32 before it multiplies.
//! The weights of decode fit into most last-level caches; `benches/peers` measures from memory.
//!
//! One format: `cargo bench --bench matmul -- '/Q4_K/'`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quantblock::weight::{FORMATS, WeightFormat};
use quantblock::{Activations, Kinds, Level, Serial};
use std::time::Duration;

/// (m, n, k) of decode and prefill.
const SHAPES: [(usize, usize, usize); 2] = [(1, 4096, 4096), (512, 256, 4096)];

/// Reproducible values around zero, with the spread of a trained layer.
fn values(len: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| uniform() + uniform() + uniform()).collect()
}

/// The sum of products over 16 lanes: what a plain f32 matmul of one row would compute.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}

fn matmuls(c: &mut Criterion) {
    for (m, n, k) in SHAPES {
        let regime = if m == 1 { "decode" } else { "prefill" };
        let x = values(m * k, 1);
        let mut activations = Activations::new();
        activations.quantize(&x, m, k, Kinds::BLOCK32 | Kinds::BLOCK256 | Kinds::F32, &Serial).expect("activations");
        let mut y = vec![0.0; m * n];
        // Quantizers are slow: a few rows, repeated.
        let some_rows = values(16 * k, 2);
        let weights: Vec<f32> = some_rows.iter().copied().cycle().take(n * k).collect();

        for &(type_id, format) in FORMATS {
            let native = WeightFormat::quantized(type_id, &weights, None, n, k).expect("weights");
            let throughput = match m {
                1 => Throughput::BytesDecimal(native.size_bytes() as u64),
                _ => Throughput::Elements((m * n * k) as u64),
            };
            let mut group = c.benchmark_group(format!("matmul/{regime}/{format}"));
            group.throughput(throughput);

            if format != "F32" {
                let mut row = vec![0.0; k];
                group.bench_function("dequantize-per-call", |b| {
                    b.iter(|| {
                        for j in 0..n {
                            native.dequantize_row(j, &mut row).expect("a row");
                            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(n)) {
                                y[j] = dot(x, &row);
                            }
                        }
                    })
                });
            }
            let packed = native.clone().pack(&Serial).expect("packed weights");
            for weights in [native, packed] {
                for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                    let weights = weights.clone().with_level(level).expect("an available level");
                    group.bench_function(weights.kernel_name(), |b| {
                        b.iter(|| weights.matmul(&activations, &mut y, &Serial).expect("a matmul"))
                    });
                }
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = matmuls
}
criterion_main!(benches);
