//! Packing every format, in bytes of the source per second, on one thread and on two: into fresh huge pages (`fresh`), which the
//! system clears first, and into pages that are there (`mapped`), each beside a plain copy of as many bytes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quantblock::{
    Arena, Executor, Result,
    executor::ThreadPool,
    memory::{self, PackedMemory, Region},
    weight::{FORMATS, WeightFormat},
};
use std::{
    ptr::NonNull,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Bytes of each format, about: with as many that are written, more than the largest of caches that servers share, and more than the
/// system's allocator keeps of what was freed (32 MiB).
const SOURCE_BYTES: usize = 256 << 20;

/// Columns of the weights.
const K: usize = 4096;

/// Where regions for packed weights start.
const ALIGN: usize = 4096;

/// The same huge pages for one tensor after another.
struct Mapped(Vec<u8>);

impl PackedMemory for Mapped {
    fn allocate(&mut self, len: usize) -> Result<Region> {
        self.0.resize(len + ALIGN, 0);
        let first = self.0.as_ptr().align_offset(ALIGN);
        let start = self.0[first..].as_mut_ptr();
        // SAFETY: initialized bytes of this vector, which outlives the weights here: each is dropped before the next is packed.
        unsafe { Region::from_raw(NonNull::new(start).expect("an address"), len, Arc::new(())) }
    }
}

/// Copies `source` into `to`, which has room for it and may not have been touched.
fn copy(pool: &ThreadPool, source: &[u8], to: &mut Vec<u8>) {
    let part = source.len().div_ceil(pool.threads());
    let room = &mut to.spare_capacity_mut()[..source.len()];
    let parts: Vec<_> = room.chunks_mut(part).zip(source.chunks(part)).map(Mutex::new).collect();
    pool.run(parts.len(), &|i| {
        let (to, from) = &mut *parts[i].lock().expect("no panic");
        // SAFETY: two slices, chunks of which are as long as each other; whatever is copied to may hold nothing yet.
        unsafe { from.as_ptr().copy_to_nonoverlapping(to.as_mut_ptr().cast(), from.len()) };
    });
}

fn packing(c: &mut Criterion) {
    for &(type_id, format) in FORMATS {
        let row = WeightFormat::quantized(type_id, &vec![0.5; K], None, 1, K).expect("a row");
        // Whole panels of 16 rows: no more bytes packed than the source has.
        let n = SOURCE_BYTES / row.size_bytes() / 16 * 16;
        let source: Vec<u8> = (0..n * row.size_bytes()).map(|i| (i * 151 + i / 7) as u8).collect();
        let native = WeightFormat::from_bytes(type_id, source.clone(), n, K).expect("weights");
        let mut group = c.benchmark_group(format!("pack/{format}"));
        group.throughput(Throughput::BytesDecimal(source.len() as u64));
        for threads in [1, 2] {
            let pool = ThreadPool::new(threads);
            group.bench_function(format!("{threads}/fresh"), |b| {
                b.iter(|| native.clone().pack_in(&mut Arena::new(), &pool).expect("packed weights"))
            });
            group.bench_function(format!("{threads}/fresh copy"), |b| {
                b.iter(|| copy(&pool, &source, &mut memory::buffer(source.len()).expect("memory for a copy")))
            });
            let mut mapped = Mapped(memory::buffer(source.len() + ALIGN).expect("memory for packed weights"));
            mapped.0.resize(source.len() + ALIGN, 0);
            group.bench_function(format!("{threads}/mapped"), |b| {
                b.iter(|| native.clone().pack_in(&mut mapped, &pool).expect("packed weights"))
            });
            mapped.0.clear();
            group.bench_function(format!("{threads}/mapped copy"), |b| b.iter(|| copy(&pool, &source, &mut mapped.0)));
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = packing
}
criterion_main!(benches);
