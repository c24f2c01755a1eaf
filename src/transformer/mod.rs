//! A small transformer over the kernels: load a GGUF file, fill the KV cache from a prompt, decode token by token.
//!
//! [`Model`] holds what does not change (hyperparameters, weights), [`Session`] a sequence with its KV cache and buffers.
//! Prompts go through the model in batches, one matmul per matrix and batch. All operations between the matmuls keep the
//! crate's promise of one answer: a token's logits have the same bits in whatever batch it was computed, on any number
//! of threads and at any instruction set level. The KV cache holds f16 or, if told so, f32 or 16-bit codes with a scale per
//! vector, as large as f16, of which attention sums integers ([`CacheType`]).
//!
//! ```no_run
//! use quantblock::{Serial, gguf::Mmap, transformer::{LoadOptions, Model, Sampler, SamplingOptions, Session}};
//! use std::sync::Arc;
//!
//! let model = Model::load_from_gguf(Arc::new(Mmap::open("model.gguf")?), LoadOptions::default())?;
//! let mut session = Session::new(&model)?;
//! let mut sampler = Sampler::new(SamplingOptions::greedy());
//! let mut tokens = vec![1, 504, 3575];
//! let mut next = sampler.sample(session.prefill(&tokens, &Serial)?, &tokens);
//! for _ in 0..32 {
//!     let Some(token) = next else { break };
//!     tokens.push(token);
//!     next = sampler.sample(session.decode(token, &Serial)?, &tokens);
//! }
//! # Ok::<(), quantblock::Error>(())
//! ```

mod attention;
pub mod chat;
mod codes;
mod config;
mod heads;
mod kv_cache;
mod math;
mod model;
mod rope;
mod rows;
mod sampling;
mod session;
pub mod tokenizer;
mod weights;

pub use crate::fused::Gate;
pub use config::{Architecture, Config};
pub use kv_cache::CacheType;
pub use model::{Layer, LoadOptions, Model};
pub use rope::RopePairs;
pub use sampling::{Sampler, SamplingOptions};
pub use session::Session;
pub use tokenizer::Tokenizer;
pub use weights::{AttentionWeights, FFNWeights};
