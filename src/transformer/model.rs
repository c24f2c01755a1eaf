//! A whole model: hyperparameters, weights and RoPE tables.

use super::{AttentionWeights, CacheType, Config, FFNWeights, rope::RopeTable, weights::Loader};
use crate::{
    Error, Executor, Level, Result, Serial, Storage, WeightFormat,
    bytes::{SharedBytes, WeightBytes},
    gguf::Gguf,
};
use alloc::{string::ToString, vec::Vec};

/// How to load a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Whether matrices stay as they lie in the file or are packed for SIMD. By default packed.
    pub storage: Storage,
    /// The instruction set level; `None`: the fastest that the CPU has.
    pub level: Option<Level>,
    /// Whether matmuls multiply f32 activations: slow, for verification.
    pub f32_activations: bool,
    /// How the KV cache stores keys and values; `None`: as f16, or as f32 where activations are f32.
    pub cache_type: Option<CacheType>,
    /// Positions of a session; `None`: what the model was trained for, but at most 4096.
    pub context: Option<usize>,
    /// Tokens of a prompt that go through the model together. 512.
    pub batch: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            storage: Storage::Packed,
            level: None,
            f32_activations: false,
            cache_type: None,
            context: None,
            batch: 512,
        }
    }
}

impl LoadOptions {
    /// With another storage.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// With the kernels of `level`.
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// With f32 activations, or without.
    pub fn f32_activations(mut self, on: bool) -> Self {
        self.f32_activations = on;
        self
    }

    /// With a KV cache of this type.
    pub fn cache_type(mut self, kind: CacheType) -> Self {
        self.cache_type = Some(kind);
        self
    }

    /// With room for `positions` in each session.
    pub fn context(mut self, positions: usize) -> Self {
        self.context = Some(positions);
        self
    }

    /// With prompts cut into batches of `tokens`.
    pub fn batch(mut self, tokens: usize) -> Self {
        self.batch = tokens;
        self
    }
}

/// Positions of a session where nobody says how many.
const DEFAULT_CONTEXT: usize = 4096;

/// A layer's weights.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Layer {
    /// The attention.
    pub attention: AttentionWeights,
    /// The feed-forward network.
    pub ffn: FFNWeights,
}

/// A transformer, ready to run; [`Session`](super::Session) holds the state of a sequence.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) level: Level,
    pub(crate) f32_activations: bool,
    pub(crate) cache_type: CacheType,
    pub(crate) context: usize,
    pub(crate) batch: usize,
    pub(crate) embedding: WeightFormat<'static>,
    /// `None`: the embedding's.
    pub(crate) output: Option<WeightFormat<'static>>,
    pub(crate) output_norm: Vec<f32>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) rope: RopeTable,
    /// That of gemma3's local layers.
    pub(crate) local_rope: Option<RopeTable>,
}

impl Model {
    /// Loads a model from a whole GGUF file: a memory map ([`Mmap`](crate::gguf::Mmap)) or bytes read from it. With
    /// [`Storage::Native`] the matrices are views of the file, which is kept alive.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Gguf`] and [`Error::Unsupported`] name the key or tensor that is missing, wrong or not
    /// implemented.
    pub fn load_from_gguf(file: SharedBytes, options: LoadOptions) -> Result<Model> {
        Self::load_from_gguf_with(file, options, &Serial)
    }

    /// [`Model::load_from_gguf`] that packs on the threads of `ex`.
    ///
    /// # Errors
    /// As there.
    pub fn load_from_gguf_with(file: SharedBytes, options: LoadOptions, ex: &impl Executor) -> Result<Model> {
        Self::load_on(file, options, ex)
    }

    /// [`Model::load_from_gguf_with`], compiled once.
    fn load_on(file: SharedBytes, options: LoadOptions, ex: &dyn Executor) -> Result<Model> {
        let gguf = Gguf::parse((*file).as_ref())?;
        let config = Config::from_gguf(&gguf)?;
        let level = options.level.unwrap_or_else(Level::best).checked()?;
        let context = options.context.unwrap_or_else(|| config.context_length.min(DEFAULT_CONTEXT));
        if context == 0 || options.batch == 0 {
            let found = context.min(options.batch);
            return Err(Error::Shape { what: "context and batch of LoadOptions".to_string(), expected: 1, found });
        }
        let file = WeightBytes::from(file.clone());
        let loader = Loader { gguf: &gguf, file, storage: options.storage, level, ex, arena: Default::default() };

        let (e, vocab) = (config.embedding_length, config.vocab_size);
        let tied = gguf.tensor("output.weight").is_none();
        // Rows of it are looked up; only as the output matrix is it multiplied.
        let embedding_storage = if tied { options.storage } else { Storage::Native };
        let embedding = loader.stored("token_embd.weight", vocab, e, embedding_storage)?;
        let output = if tied { None } else { Some(loader.matrix("output.weight", vocab, e)?) };
        let output_norm = loader.vector("output_norm.weight", e)?;
        // The layer count comes from the file: nothing is reserved for it.
        let mut layers = Vec::new();
        for layer in 0..config.block_count {
            let attention = AttentionWeights::load(&loader, &config, layer)?;
            layers.push(Layer { attention, ffn: FFNWeights::load(&loader, &config, layer)? });
        }

        let rotated = config.rope_dimensions;
        let factors = loader.find_vector("rope_freqs.weight", rotated / 2)?;
        if let Some(bad) = factors.iter().flatten().find(|f| !(f.is_finite() && **f > 0.0)) {
            let (at, why) = ("tensor `rope_freqs.weight`".to_string(), alloc::format!("holds {bad}"));
            return Err(Error::Gguf { at, why });
        }
        let rope = RopeTable::new(context, rotated, config.rope_base, config.rope_scale, factors.as_deref())?;
        let local_rope = match config.sliding_window {
            Some(_) => Some(RopeTable::new(context, rotated, config.local_rope_base(), 1.0, None)?),
            None => None,
        };
        let (f32_activations, batch) = (options.f32_activations, options.batch.min(context));
        let usual = if f32_activations { CacheType::F32 } else { CacheType::default() };
        Ok(Model {
            config,
            level,
            f32_activations,
            cache_type: options.cache_type.unwrap_or(usual),
            context,
            batch,
            embedding,
            output,
            output_norm,
            layers,
            rope,
            local_rope,
        })
    }

    /// The hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Positions that a session holds.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How the KV caches of sessions store keys and values.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// The instruction set level of the kernels.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The layers' weights.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The token embeddings, `[vocab, E]`.
    pub fn embedding(&self) -> &WeightFormat<'static> {
        &self.embedding
    }

    /// The matrix that turns a hidden vector into logits, `[vocab, E]`: the embedding's where the file has no other.
    pub fn output(&self) -> &WeightFormat<'static> {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes that the matrices take.
    pub fn size_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|Layer { attention: a, ffn: f }| {
            [&a.q, &a.k, &a.v, &a.output, &f.gate, &f.up, &f.down].map(WeightFormat::size_bytes)
        });
        layers.sum::<usize>() + self.embedding.size_bytes() + self.output.as_ref().map_or(0, WeightFormat::size_bytes)
    }
}
