//! Hyperparameters: read from a GGUF file's metadata and checked before anything is computed from them.

use super::RopePairs;
use crate::{
    Error, Result,
    fused::Gate,
    gguf::{Gguf, PerLayer},
};
use alloc::{format, string::String};

/// Model architectures (`general.architecture`) that [`Model`](super::Model) runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// LLaMA and everything that is laid out like it: SmolLM2, TinyLlama, Llama 3.x, Mistral.
    Llama,
    /// Qwen 2 and 2.5: biases on Q, K and V.
    Qwen2,
    /// Qwen 3: Q and K are normalized per head.
    Qwen3,
    /// Gemma 3: scaled embeddings, norms behind each sublayer, five local layers for each global one.
    Gemma3,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Architecture; 4] =
        [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3, Architecture::Gemma3];

    /// The name as GGUF spells it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Gemma3 => "gemma3",
        }
    }
}

/// The hyperparameters of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Which architecture.
    pub architecture: Architecture,
    /// Layers.
    pub block_count: usize,
    /// Length E of the residual stream.
    pub embedding_length: usize,
    /// Length of the feed-forward network's hidden vector.
    pub feed_forward_length: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Query heads of a layer.
    pub head_count: usize,
    /// Key/value heads of a layer; divides `head_count`.
    pub head_count_kv: usize,
    /// Length d of a head's vectors; a multiple of 16.
    pub head_length: usize,
    /// ε of the RMS norms.
    pub rms_epsilon: f32,
    /// Which elements RoPE rotates together.
    pub rope_pairs: RopePairs,
    /// Elements of a head that RoPE rotates.
    pub rope_dimensions: usize,
    /// Base of RoPE's angles (of the global layers).
    pub rope_base: f64,
    /// What positions are multiplied by before they become angles (of the global layers): 1/factor of linear scaling.
    pub rope_scale: f64,
    /// Positions that a local layer sees; `None` if every layer is global.
    pub sliding_window: Option<usize>,
    /// What scores are multiplied by before the softmax.
    pub attention_scale: f32,
    /// What the token embeddings are multiplied by.
    pub embedding_scale: f32,
    /// The feed-forward network's gate.
    pub gate: Gate,
}

/// RoPE base of gemma3's local layers.
const LOCAL_ROPE_BASE: f64 = 10_000.0;
/// Of this many layers of gemma3, the last is global.
const LOCAL_PERIOD: usize = 6;
/// Layers of gemma-3-27b, the one size that scales scores by 1/√(E/heads).
const GEMMA3_27B_BLOCKS: usize = 62;

fn bad_key(key: &str, why: String) -> Error {
    Error::Gguf { at: format!("key `{key}`"), why }
}

/// A hyperparameter that layers may have each their own of, where they do not.
fn uniform(gguf: &Gguf<'_>, key: &str, layers: usize) -> Result<usize> {
    let value = match gguf.per_layer::<usize>(key, layers)? {
        PerLayer::All(value) => value,
        PerLayer::Each(mut values) => {
            let first = values.next().unwrap_or(0);
            if values.any(|value| value != first) {
                return Err(Error::Unsupported {
                    what: format!("`{key}` with a different value for each layer"),
                    instead: String::from("use a model whose layers are alike"),
                });
            }
            first
        }
    };
    if value == 0 { Err(bad_key(key, String::from("must not be 0"))) } else { Ok(value) }
}

/// Unwraps a number that must be positive and finite.
fn positive(key: &str, value: f64) -> Result<f64> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(bad_key(key, format!("is {value}, but must be positive and finite")))
}

impl Config {
    /// Reads and checks the hyperparameters.
    ///
    /// # Errors
    /// [`Error::Missing`] for a key or tensor that is not there, [`Error::Gguf`] for a value that makes no sense (0 heads, ε
    /// that is not a number), [`Error::Unsupported`] for an architecture or feature that is not implemented. All name the
    /// key or tensor.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Config> {
        let name = gguf.str("general.architecture")?;
        let architecture =
            Architecture::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| Error::Unsupported {
                what: format!("architecture `{name}` (key `general.architecture`)"),
                instead: String::from("use a model of architecture llama, qwen2, qwen3 or gemma3"),
            })?;
        let key = |suffix: &str| format!("{name}.{suffix}");
        let gemma = architecture == Architecture::Gemma3;

        let block_count = gguf.nonzero(&key("block_count"))?;
        let embedding_length = gguf.nonzero(&key("embedding_length"))?;
        let feed_forward_length = uniform(gguf, &key("feed_forward_length"), block_count)?;
        let context_length = gguf.nonzero(&key("context_length"))?;
        if gguf.find::<usize>(&key("expert_count"))?.is_some_and(|experts| experts > 0) {
            return Err(Error::Unsupported {
                what: format!("a mixture of experts (key `{}`)", key("expert_count")),
                instead: String::from("use a dense model"),
            });
        }

        let head_count = uniform(gguf, &key("attention.head_count"), block_count)?;
        let kv_key = key("attention.head_count_kv");
        let head_count_kv = match gguf.get(&kv_key) {
            None => head_count,
            Some(_) => uniform(gguf, &kv_key, block_count)?,
        };
        if head_count % head_count_kv != 0 {
            return Err(bad_key(&kv_key, format!("is {head_count_kv}, which does not divide {head_count} heads")));
        }
        let length_key = key("attention.key_length");
        let head_length = match gguf.find::<usize>(&length_key)? {
            Some(length) => length,
            None if embedding_length % head_count == 0 => embedding_length / head_count,
            None => {
                let why = format!("is {head_count}, which does not divide the embedding length {embedding_length}");
                return Err(bad_key(&key("attention.head_count"), why));
            }
        };
        let value_length = gguf.find::<usize>(&key("attention.value_length"))?.unwrap_or(head_length);
        if head_length == 0 || head_length % 16 != 0 || value_length != head_length {
            return Err(Error::Unsupported {
                what: format!(
                    "heads with keys of length {head_length} and values of length {value_length} (`{length_key}`)"
                ),
                instead: String::from("use a model whose heads have one length, a multiple of 16"),
            });
        }
        let fits = |n: usize| n.checked_mul(head_length).is_some_and(|n| n <= isize::MAX as usize / 4);
        if !fits(head_count) {
            return Err(Error::Overflow { what: format!("{head_count} heads of length {head_length}") });
        }

        let epsilon_key = key("attention.layer_norm_rms_epsilon");
        let rms_epsilon = positive(&epsilon_key, gguf.f32(&epsilon_key)?.into())? as f32;

        let base_key = key("rope.freq_base");
        let rope_base = positive(&base_key, gguf.find::<f64>(&base_key)?.unwrap_or(LOCAL_ROPE_BASE))?;
        let dimension_key = key("rope.dimension_count");
        let rope_dimensions = gguf.find::<usize>(&dimension_key)?.unwrap_or(head_length);
        if rope_dimensions == 0 || rope_dimensions % 2 != 0 || rope_dimensions > head_length {
            let why = format!("is {rope_dimensions}, but must be even and from 2 to the head length {head_length}");
            return Err(bad_key(&dimension_key, why));
        }
        let window_key = key("attention.sliding_window");
        let sliding_window = if gemma { Some(gguf.nonzero(&window_key)?) } else { None };
        if !gemma && gguf.find::<usize>(&window_key)?.is_some_and(|window| window != 0 && window < context_length) {
            return Err(Error::Unsupported {
                what: format!("a sliding window in architecture `{name}` (key `{window_key}`)"),
                instead: String::from("use a model without a sliding window"),
            });
        }

        let embedding = gguf.require_tensor("token_embd.weight")?;
        let vocab_size = embedding.n();
        let vocab_key = key("vocab_size");
        if let Some(declared) = gguf.find::<usize>(&vocab_key)?
            && declared != vocab_size
        {
            let why = format!("is {declared}, but tensor `token_embd.weight` has {vocab_size} rows");
            return Err(bad_key(&vocab_key, why));
        }
        if vocab_size == 0 || u32::try_from(vocab_size).is_err() {
            let (at, why) = (String::from("tensor `token_embd.weight`"), format!("has {vocab_size} rows"));
            return Err(Error::Gguf { at, why });
        }

        let score_length =
            if gemma && block_count == GEMMA3_27B_BLOCKS { embedding_length / head_count } else { head_length };
        Ok(Config {
            architecture,
            block_count,
            embedding_length,
            feed_forward_length,
            context_length,
            vocab_size,
            head_count,
            head_count_kv,
            head_length,
            rms_epsilon,
            rope_pairs: if architecture == Architecture::Llama { RopePairs::Adjacent } else { RopePairs::Halves },
            rope_dimensions,
            rope_base,
            rope_scale: rope_scale(gguf, &key)?,
            sliding_window,
            attention_scale: 1.0 / (score_length.max(1) as f32).sqrt(),
            embedding_scale: if gemma { (embedding_length as f32).sqrt() } else { 1.0 },
            gate: if gemma { Gate::GeluTanh } else { Gate::Silu },
        })
    }

    /// Whether `layer` sees only the sliding window (gemma3: all but each sixth).
    pub fn is_local(&self, layer: usize) -> bool {
        self.sliding_window.is_some() && layer % LOCAL_PERIOD < LOCAL_PERIOD - 1
    }

    /// RoPE base of the local layers.
    pub fn local_rope_base(&self) -> f64 {
        LOCAL_ROPE_BASE
    }

    /// Length of all query heads together.
    pub fn query_length(&self) -> usize {
        self.head_count * self.head_length
    }

    /// Length of all key (or value) heads together.
    pub fn kv_length(&self) -> usize {
        self.head_count_kv * self.head_length
    }
}

/// What RoPE scaling multiplies positions by.
fn rope_scale(gguf: &Gguf<'_>, key: &impl Fn(&str) -> String) -> Result<f64> {
    let type_key = key("rope.scaling.type");
    match gguf.find::<&str>(&type_key)?.unwrap_or("none") {
        "none" => Ok(1.0),
        "linear" => {
            let factor_key = key("rope.scaling.factor");
            Ok(1.0 / positive(&factor_key, gguf.require::<f64>(&factor_key)?)?)
        }
        other => Err(Error::Unsupported {
            what: format!("RoPE scaling `{other}` (key `{type_key}`)"),
            instead: String::from("use a model with linear or no scaling"),
        }),
    }
}
