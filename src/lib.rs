//! CPU kernels for quantized LLM weights: the GGUF formats, and formats that you define.
//!
//! Every format is a zero-sized type that implements [`QuantBlock`], so [`Linear<Q4K>`](Linear) is a fused
//! dequantize + matmul with no branch on the format inside; [`WeightFormat`] is a thin enum over the same types for files
//! that decide it at run time. Weights stay in their blocks: borrowed, shared with a memory map, or packed for SIMD.
//!
//! ```
//! use quantblock::{Activations, Serial, WeightFormat, dispatch_matmul, dispatch_matmul_fused, fused::Matmul};
//!
//! // W [n, k] as a GGUF file holds it (12 is Q4_K), x [m, k], y [m, n].
//! let (m, n, k) = (3, 32, 256);
//! let weights: Vec<f32> = (0..n * k).map(|i| (i % 13) as f32).collect();
//! let gate = WeightFormat::quantized(12, &weights, None, n, k)?;
//! let up = WeightFormat::quantized(14, &weights, None, n, k)?.pack(&Serial)?;
//!
//! // Activations are quantized once and shared.
//! let mut x = Activations::new();
//! x.quantize(&vec![0.5; m * k], m, k, gate.kinds() | up.kinds(), &Serial)?;
//! let (mut g, mut u) = (vec![0.0; m * n], vec![0.0; m * n]);
//! dispatch_matmul(&gate, &x, &mut g, &Serial)?;
//! dispatch_matmul_fused(&mut [Matmul::new(&gate, &mut g), Matmul::new(&up, &mut u)], &x, &Serial)?;
//! assert!((g[0] - u[0]).abs() < 0.05 * u[0]);
//! # Ok::<(), quantblock::Error>(())
//! ```
//!
//! # Where things are
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@format`] | [`QuantBlock`], the formats, their exact codecs |
//! | [`activation`] | [`Activations`]: x, quantized once |
//! | [`simd`] | [`Level`]: instruction sets, detected at run time or forced |
//! | [`kernel`] | tile classes; the drivers and microkernels behind them |
//! | [`weight`] | [`WeightFormat`] and [`dispatch_matmul`] |
//! | [`fused`] | [`dispatch_matmul_fused`]: several products in one dispatch, with biases, gates and residuals |
//! | [`indexed`] | [`dispatch_matmul_indexed`]: mixtures of experts |
//! | [`memory`] | [`Arena`]: where packed weights live; your allocator, or huge pages |
//! | [`executor`] | [`Executor`]: your threads, or the built-in pool |
//! | [`gguf`] | reading and writing GGUF files; [`load_weight_optimal`] makes weights of their tensors |
//! | `transformer` | whole models (feature `model`) |
//!
//! # One answer
//!
//! A product has the same bits for any number of threads, any batch (a row of `m = 512` equals the same row alone), packed
//! or native, and at every [`Level`]: integer sums are exact, and the f32 sum of a row runs over its blocks in order, with
//! multiplication and addition rounded apart. See [`kernel`] and [`activation`] for the arithmetic.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `std` | yes | `executor::ThreadPool`, reading files, huge pages (Linux), run-time detection in every dependency |
//! | `mmap` | | `gguf::Mmap` |
//! | `rayon` | | `executor::Rayon` |
//! | `model` | | the module `transformer`; implies `mmap` |
//!
//! Without default features the crate is `no_std` and needs `alloc`.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

extern crate alloc;

pub use bytemuck;

pub mod activation;
pub mod bytes;
pub mod error;
pub mod executor;
pub mod format;
pub mod fused;
pub mod gguf;
pub mod indexed;
pub mod kernel;
mod linear;
mod load;
pub mod memory;
mod nonlinear;
mod pack;
mod plan;
pub mod simd;
#[cfg(feature = "model")]
#[cfg_attr(docsrs, doc(cfg(feature = "model")))]
pub mod transformer;
pub mod weight;

pub use activation::{Activations, Kinds};
pub use error::{Error, Result};
pub use executor::{Executor, Serial};
pub use format::QuantBlock;
pub use fused::dispatch_matmul_fused;
pub use indexed::dispatch_matmul_indexed;
pub use linear::Linear;
pub use load::{Storage, load_weight_optimal, load_weight_optimal_in};
pub use memory::Arena;
pub use simd::Level;
pub use weight::{WeightFormat, dispatch_matmul};

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
