//! CPU kernels for quantized LLM weights.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

extern crate alloc;

pub mod activation;
pub mod bytes;
pub mod error;
pub mod executor;
pub mod format;
pub mod gguf;
pub mod kernel;
mod linear;
mod load;
mod packed;
pub mod simd;
#[cfg(feature = "model")]
#[cfg_attr(docsrs, doc(cfg(feature = "model")))]
pub mod transformer;
pub mod weight;

pub use activation::{Activations, Kinds};
pub use error::{Error, Result};
pub use executor::{Executor, Serial};
pub use format::QuantBlock;
pub use linear::Linear;
pub use load::{Storage, load_weight_optimal};
pub use simd::Level;
pub use weight::{WeightFormat, dispatch_matmul, dispatch_matmul_fused};

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
