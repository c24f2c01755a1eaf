//! The shapes of real models.

use clap::ValueEnum;
use quantblock::Result;
use quantblock::gguf::GgufWriter;

/// A model whose shapes a file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// 28 layers, E 1536, ff 8960, 12/2 heads of 128, vocabulary 151936, an output matrix of its own
    #[value(name = "qwen2.5-1.5b")]
    Qwen25,
    /// 16 layers, E 2048, ff 8192, 32/8 heads of 64, vocabulary 128256, the embeddings as output matrix
    #[value(name = "llama-3.2-1b")]
    Llama32,
}

/// A model's hyperparameters.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    pub architecture: &'static str,
    pub layers: usize,
    pub embedding: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_length: usize,
    pub vocabulary: usize,
    pub context: usize,
    pub tied: bool,
    /// Whether Q, K and V have biases.
    pub biases: bool,
    pub epsilon: f32,
    pub rope_base: f32,
}

impl Model {
    pub fn shape(self) -> Shape {
        match self {
            Model::Qwen25 => Shape {
                name: "Qwen2.5-1.5B",
                architecture: "qwen2",
                layers: 28,
                embedding: 1536,
                feed_forward: 8960,
                heads: 12,
                kv_heads: 2,
                head_length: 128,
                vocabulary: 151_936,
                context: 32_768,
                tied: false,
                biases: true,
                epsilon: 1e-6,
                rope_base: 1e6,
            },
            Model::Llama32 => Shape {
                name: "Llama-3.2-1B",
                architecture: "llama",
                layers: 16,
                embedding: 2048,
                feed_forward: 8192,
                heads: 32,
                kv_heads: 8,
                head_length: 64,
                vocabulary: 128_256,
                context: 131_072,
                tied: true,
                biases: false,
                epsilon: 1e-5,
                rope_base: 5e5,
            },
        }
    }
}

/// A tensor of a model: its name and its rows and columns; a vector has one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub n: usize,
    pub k: usize,
}

impl Shape {
    /// All tensors, matrices and vectors, in the order in which they are used.
    pub fn tensors(&self) -> Vec<Tensor> {
        let (e, ff) = (self.embedding, self.feed_forward);
        let (queries, keys) = (self.heads * self.head_length, self.kv_heads * self.head_length);
        let tensor = |name: String, n, k| Tensor { name, n, k };
        let mut tensors = vec![tensor("token_embd.weight".into(), self.vocabulary, e)];
        for layer in 0..self.layers {
            let mut add = |name: &str, n, k| tensors.push(tensor(format!("blk.{layer}.{name}"), n, k));
            add("attn_norm.weight", 1, e);
            for (name, n) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                add(&format!("{name}.weight"), n, e);
                if self.biases {
                    add(&format!("{name}.bias"), 1, n);
                }
            }
            add("attn_output.weight", e, queries);
            add("ffn_norm.weight", 1, e);
            add("ffn_gate.weight", ff, e);
            add("ffn_up.weight", ff, e);
            add("ffn_down.weight", e, ff);
        }
        tensors.push(tensor("output_norm.weight".into(), 1, e));
        if !self.tied {
            tensors.push(tensor("output.weight".into(), self.vocabulary, e));
        }
        tensors
    }

    /// Writes the hyperparameters as metadata.
    pub fn describe(&self, writer: &mut GgufWriter<'_>) -> Result<()> {
        let key = |suffix: &str| format!("{}.{suffix}", self.architecture);
        writer.set("general.architecture", self.architecture)?;
        writer.set("general.name", format!("{} shapes, random weights", self.name))?;
        for (suffix, value) in [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.embedding),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", self.head_length),
            ("vocab_size", self.vocabulary),
        ] {
            writer.set(&key(suffix), value as u32)?;
        }
        writer.set(&key("attention.layer_norm_rms_epsilon"), self.epsilon)?;
        writer.set(&key("rope.freq_base"), self.rope_base)?;
        // What llama.cpp calls a model without a tokenizer.
        writer.set("tokenizer.ggml.model", "none")?;
        Ok(())
    }
}
