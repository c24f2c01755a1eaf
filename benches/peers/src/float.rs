//! Matmuls in f32 over weights that are ready: what dequantizing everything at load would buy.

use gemm::{Parallelism, gemm};
use quantblock::Executor;
use std::sync::atomic::{AtomicU32, Ordering};

/// Lanes of the sum: enough for several vectors of any width, so that no add waits for the one before.
const LANES: usize = 64;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = a.mul_add(*b, *lane);
        }
    }
    lanes.iter().sum()
}

/// `y = W · x` with W `[n, k]`; each thread reads one long stream. k is a multiple of 64.
pub fn gemv(w: &[f32], x: &[f32], y: &mut [f32], ex: &impl Executor) {
    let (n, k, threads) = (y.len(), x.len(), ex.threads());
    let cells: Vec<AtomicU32> = y.iter().map(|_| AtomicU32::new(0)).collect();
    ex.run(threads, &|task| {
        for row in n * task / threads..n * (task + 1) / threads {
            cells[row].store(dot(&w[row * k..][..k], x).to_bits(), Ordering::Relaxed);
        }
    });
    for (y, cell) in y.iter_mut().zip(cells) {
        *y = f32::from_bits(cell.into_inner());
    }
}

/// `y = x · Wᵀ` with x `[m, k]`, W `[n, k]`, y `[m, n]`, all row-major.
pub fn matmul((m, n, k): (usize, usize, usize), x: &[f32], w: &[f32], y: &mut [f32], threads: usize) {
    assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n, "the shapes fit");
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let (stride_n, stride_k) = (n as isize, k as isize);
    // SAFETY: the lengths fit the shapes and strides (checked above), and y is borrowed mutably.
    unsafe {
        gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            stride_n,
            false,
            x.as_ptr(),
            1,
            stride_k,
            w.as_ptr(),
            stride_k,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
