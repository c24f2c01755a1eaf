//! Packing a mapped file takes hardly more memory than the file: its pages are given back on the way.
#![cfg(all(target_os = "linux", feature = "mmap"))]

use quantblock::{
    Arena, Level, Storage,
    bytes::{SharedBytes, WeightBytes},
    executor::ThreadPool,
    gguf::{Gguf, GgufWriter, Mmap},
    load_weight_optimal_in,
};
use std::{fs::File, io::BufWriter, sync::Arc};

/// The most memory that this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn the_peak_is_at_most_a_tenth_above_the_file() {
    const Q8_0: u32 = 8;
    let path = std::env::temp_dir().join(format!("quantblock-peak-{}.gguf", std::process::id()));
    // 24 tensors of 4.25 MiB, and one that is a quarter of the file.
    let (k, n, large) = (2048, 2048, 8 * 2048);
    {
        let bytes = vec![1u8; large * k / 32 * 34];
        let mut writer = GgufWriter::new();
        for i in 0..24 {
            writer.tensor(&format!("small.{i}"), &[k, n], Q8_0, &bytes[..n * k / 32 * 34]).unwrap();
        }
        writer.tensor("large", &[k, large], Q8_0, &bytes[..]).unwrap();
        writer.write_to(BufWriter::new(File::create(&path).unwrap())).unwrap();
    }
    let map = Arc::new(Mmap::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let gguf = Gguf::parse(&map).unwrap();
    let file = WeightBytes::shared(map.clone() as SharedBytes);
    let (pool, mut arena, before) = (ThreadPool::new(2), Arena::new(), peak());
    let mut weights = Vec::new();
    for tensor in gguf.tensors() {
        let (level, storage) = (Level::best(), Storage::Packed);
        weights.push(load_weight_optimal_in(&mut arena, &gguf, &file, tensor.name, storage, level, &pool).unwrap());
    }
    let (size, after) = (map.len(), peak());
    assert!(weights.iter().all(|weight| weight.is_packed()));
    assert!(after > size / 2, "{before} and then {after} bytes: was anything packed?");
    // 8 MiB for the program itself.
    assert!(after <= size + size / 10 + (8 << 20), "a file of {size} bytes took {after}");
}
