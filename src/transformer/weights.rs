//! The weights of a layer, loaded from a GGUF file with every shape checked.

use super::{Architecture, Config};
use crate::{
    Arena, Error, Executor, Kinds, Level, Result, Storage, WeightFormat, bytes::WeightBytes, gguf::Gguf,
    load_weight_optimal_in,
};
use alloc::{format, string::String, vec::Vec};
use core::cell::RefCell;

/// Weights of a layer's attention. Matrices are `[n, k]`: n output features, k input features.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttentionWeights {
    /// RMS norm before the attention, `[E]`.
    pub norm: Vec<f32>,
    /// Queries, `[heads · d, E]`.
    pub q: WeightFormat<'static>,
    /// Keys, `[kv_heads · d, E]`.
    pub k: WeightFormat<'static>,
    /// Values, `[kv_heads · d, E]`.
    pub v: WeightFormat<'static>,
    /// Output, `[E, heads · d]`.
    pub output: WeightFormat<'static>,
    /// Bias of the queries.
    pub q_bias: Option<Vec<f32>>,
    /// Bias of the keys.
    pub k_bias: Option<Vec<f32>>,
    /// Bias of the values.
    pub v_bias: Option<Vec<f32>>,
    /// Bias of the output.
    pub output_bias: Option<Vec<f32>>,
    /// RMS norm of each query head, `[d]`.
    pub q_norm: Option<Vec<f32>>,
    /// RMS norm of each key head, `[d]`.
    pub k_norm: Option<Vec<f32>>,
    /// RMS norm of the attention's result before it is added (gemma3), `[E]`.
    pub post_norm: Option<Vec<f32>>,
}

/// Weights of a layer's feed-forward network: `down(gate(x) · up(x))`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FFNWeights {
    /// RMS norm before the network, `[E]`.
    pub norm: Vec<f32>,
    /// Gate, `[ff, E]`.
    pub gate: WeightFormat<'static>,
    /// Up, `[ff, E]`.
    pub up: WeightFormat<'static>,
    /// Down, `[E, ff]`.
    pub down: WeightFormat<'static>,
    /// RMS norm of the network's result before it is added (gemma3), `[E]`.
    pub post_norm: Option<Vec<f32>>,
}

/// Loads tensors of one file in one way.
pub(crate) struct Loader<'f> {
    pub gguf: &'f Gguf<'f>,
    pub file: WeightBytes<'static>,
    pub storage: Storage,
    pub level: Level,
    pub ex: &'f dyn Executor,
    /// Where all packed matrices go.
    pub arena: RefCell<Arena>,
}

fn bad_shape(name: &str, found: &[usize], n: usize, k: usize) -> Error {
    let why = format!("has dimensions {found:?} (k first), but the model's keys need [{k}, {n}]");
    Error::Gguf { at: format!("tensor `{name}`"), why }
}

impl Loader<'_> {
    /// The matrix `name` of shape `[n, k]`.
    pub(crate) fn matrix(&self, name: &str, n: usize, k: usize) -> Result<WeightFormat<'static>> {
        self.stored(name, n, k, self.storage)
    }

    /// [`Loader::matrix`] with another storage.
    pub(crate) fn stored(&self, name: &str, n: usize, k: usize, storage: Storage) -> Result<WeightFormat<'static>> {
        let info = self.gguf.require_tensor(name)?;
        if info.k() != k || info.n() != n {
            return Err(bad_shape(name, &info.dims, n, k));
        }
        if let Some(stem) = name.strip_suffix(".weight") {
            let scale = format!("{stem}.scale");
            if self.gguf.tensor(&scale).is_some() {
                return Err(Error::Unsupported {
                    what: format!("tensor `{scale}` (a scale for a whole matrix)"),
                    instead: String::from("use a model without such scales"),
                });
            }
        }
        let arena = &mut *self.arena.borrow_mut();
        load_weight_optimal_in(arena, self.gguf, &self.file, name, storage, self.level, &self.ex)
    }

    /// The vector `name` of `len` finite elements, stored as F32, F16 or BF16.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let info = self.gguf.require_tensor(name)?;
        if info.k() != len || info.n() != 1 {
            return Err(bad_shape(name, &info.dims, 1, len));
        }
        let weight = WeightFormat::from_bytes(info.type_id, self.gguf.tensor_data(name)?, 1, len)?;
        let mut out = alloc::vec![0.0; len];
        weight.dequantize_row(0, &mut out)?;
        Ok(out)
    }

    /// [`Loader::vector`], or `None` if the file lacks it.
    pub(crate) fn find_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        self.gguf.tensor(name).map(|_| self.vector(name, len)).transpose()
    }
}

impl AttentionWeights {
    /// Loads the tensors `blk.{layer}.attn_*`.
    pub(crate) fn load(loader: &Loader<'_>, config: &Config, layer: usize) -> Result<Self> {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        let (e, d) = (config.embedding_length, config.head_length);
        let (queries, keys) = (config.query_length(), config.kv_length());
        let head_norm = |suffix: &str| match config.architecture {
            Architecture::Qwen3 | Architecture::Gemma3 => loader.vector(&name(suffix), d).map(Some),
            _ => loader.find_vector(&name(suffix), d),
        };
        let bias = |suffix: &str, n: usize| match config.architecture {
            Architecture::Qwen2 => loader.vector(&name(suffix), n).map(Some),
            _ => loader.find_vector(&name(suffix), n),
        };
        Ok(AttentionWeights {
            norm: loader.vector(&name("attn_norm.weight"), e)?,
            q: loader.matrix(&name("attn_q.weight"), queries, e)?,
            k: loader.matrix(&name("attn_k.weight"), keys, e)?,
            v: loader.matrix(&name("attn_v.weight"), keys, e)?,
            output: loader.matrix(&name("attn_output.weight"), e, queries)?,
            q_bias: bias("attn_q.bias", queries)?,
            k_bias: bias("attn_k.bias", keys)?,
            v_bias: bias("attn_v.bias", keys)?,
            output_bias: loader.find_vector(&name("attn_output.bias"), e)?,
            q_norm: head_norm("attn_q_norm.weight")?,
            k_norm: head_norm("attn_k_norm.weight")?,
            post_norm: post_norm(loader, config, &name("post_attention_norm.weight"))?,
        })
    }

    /// The forms of activations that Q, K and V read.
    pub fn kinds(&self) -> Kinds {
        self.q.kinds() | self.k.kinds() | self.v.kinds()
    }
}

impl FFNWeights {
    /// Loads the tensors `blk.{layer}.ffn_*`.
    pub(crate) fn load(loader: &Loader<'_>, config: &Config, layer: usize) -> Result<Self> {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        let (e, ff) = (config.embedding_length, config.feed_forward_length);
        Ok(FFNWeights {
            norm: loader.vector(&name("ffn_norm.weight"), e)?,
            gate: loader.matrix(&name("ffn_gate.weight"), ff, e)?,
            up: loader.matrix(&name("ffn_up.weight"), ff, e)?,
            down: loader.matrix(&name("ffn_down.weight"), e, ff)?,
            post_norm: post_norm(loader, config, &name("post_ffw_norm.weight"))?,
        })
    }

    /// The forms of activations that gate and up read.
    pub fn kinds(&self) -> Kinds {
        self.gate.kinds() | self.up.kinds()
    }
}

/// The norm behind a sublayer, which gemma3 has.
fn post_norm(loader: &Loader<'_>, config: &Config, name: &str) -> Result<Option<Vec<f32>>> {
    match config.architecture {
        Architecture::Gemma3 => loader.vector(name, config.embedding_length).map(Some),
        _ => Ok(None),
    }
}
