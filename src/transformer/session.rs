//! A sequence: its KV cache, and every buffer that a step needs, allocated once.

use super::{
    Model,
    attention::{self, Queries, QueryVectors},
    heads::{Heads, Projected, QueryCodes},
    kv_cache::{KvCache, KvShape},
    math,
    model::Layer,
    rows::for_each_row,
};
use crate::{
    Activations, Error, Executor, Kinds, Level, Result, WeightFormat,
    fused::{Matmul, Product, dispatch_matmul_fused},
    weight::dispatch_matmul,
};
use alloc::{format, string::ToString, vec, vec::Vec};

/// Rows of logits that are computed together where all are wanted.
const LOGIT_ROWS: usize = 16;

/// The state of a sequence on a [`Model`]: fill it with [`Session::prefill`], go on with [`Session::decode`].
///
/// After creation nothing is allocated per token, up to buffers for quantized activations that grow to their final size
/// with the first full batch.
#[derive(Debug, Clone)]
pub struct Session<'m> {
    model: &'m Model,
    cache: KvCache,
    position: usize,
    buffers: Buffers,
}

/// What a batch of m tokens goes through; each is sized for a whole batch.
#[derive(Debug, Clone)]
struct Buffers {
    activations: Activations,
    /// The residual stream, `[m, E]`.
    stream: Vec<f32>,
    /// A norm's or a sublayer's result, `[m, E]`.
    hidden: Vec<f32>,
    /// Queries, `[m, heads · d]`.
    q: Vec<f32>,
    /// Queries as codes, `[m, heads · d]`, if the cache takes such, and their scales, `[m, heads]`.
    q_codes: Vec<i16>,
    q_scales: Vec<f32>,
    /// Keys, `[m, kv_heads · d]`.
    k: Vec<f32>,
    /// Values, `[m, kv_heads · d]`.
    v: Vec<f32>,
    /// What the heads give, `[m, heads · d]`.
    heads: Vec<f32>,
    /// Gate of the feed-forward network, `[m, ff]`.
    gate: Vec<f32>,
    /// Up, `[m, ff]`.
    up: Vec<f32>,
    /// `[LOGIT_ROWS, vocab]`.
    logits: Vec<f32>,
}

/// Which positions of a batch need a result.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    /// None: only keys and values are kept.
    Nothing,
    Last,
    All,
}

fn zeros(rows: usize, width: usize) -> Result<Vec<f32>> {
    let len = rows.checked_mul(width).filter(|n| n.checked_mul(4).is_some_and(|bytes| bytes < isize::MAX as usize));
    Ok(vec![0.0; len.ok_or_else(|| Error::Overflow { what: format!("a buffer of [{rows}, {width}]") })?])
}

impl<'m> Session<'m> {
    /// An empty sequence with room for [`Model::context`] positions.
    ///
    /// # Errors
    /// [`Error::Overflow`] if a buffer's size is not representable, [`Error::OutOfMemory`] if there is none for the KV cache.
    pub fn new(model: &'m Model) -> Result<Session<'m>> {
        let config = &model.config;
        let (m, e, ff) = (model.batch, config.embedding_length, config.feed_forward_length);
        let (queries, keys) = (config.query_length(), config.kv_length());
        let shape = KvShape {
            layers: config.block_count,
            kv_heads: config.head_count_kv,
            head_length: config.head_length,
            capacity: model.context,
        };
        let cache = KvCache::new(shape, model.cache_type)?;
        let codes = if cache.takes_codes() { queries } else { 0 };
        Ok(Session {
            model,
            cache,
            position: 0,
            buffers: Buffers {
                activations: Activations::with_level(model.level),
                stream: zeros(m, e)?,
                hidden: zeros(m, e)?,
                q: zeros(m, queries)?,
                q_codes: vec![0; m * codes],
                q_scales: zeros(m, config.head_count)?,
                k: zeros(m, keys)?,
                v: zeros(m, keys)?,
                heads: zeros(m, queries)?,
                gate: zeros(m, ff)?,
                up: zeros(m, ff)?,
                logits: zeros(LOGIT_ROWS, config.vocab_size)?,
            },
        })
    }

    /// The model.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// Tokens in the sequence: the position that the next one gets.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions that the sequence can have.
    pub fn capacity(&self) -> usize {
        self.model.context
    }

    /// Forgets all tokens but the first `position`; does nothing if there are fewer.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Appends `tokens`, in batches, and gives the logits `[vocab]` of what follows the last.
    ///
    /// # Errors
    /// [`Error::Context`] if they do not fit, [`Error::Shape`] if there are none or one is not in the vocabulary; the
    /// sequence is then as before.
    pub fn prefill(&mut self, tokens: &[u32], ex: &impl Executor) -> Result<&[f32]> {
        self.check(tokens)?;
        let start = self.position;
        let batches = tokens.len().div_ceil(self.model.batch);
        for (i, batch) in tokens.chunks(self.model.batch).enumerate() {
            let wanted = if i + 1 == batches { Wanted::Last } else { Wanted::Nothing };
            if let Err(error) = self.forward(batch, wanted, ex) {
                self.position = start;
                return Err(error);
            }
        }
        self.buffers.logits(self.model, 0, 1, ex)
    }

    /// Appends one token and gives the logits `[vocab]` of what follows it.
    ///
    /// # Errors
    /// Those of [`Session::prefill`].
    pub fn decode(&mut self, token: u32, ex: &impl Executor) -> Result<&[f32]> {
        self.prefill(&[token], ex)
    }

    /// Appends `tokens` and calls `each(i, logits)` with the logits `[vocab]` behind every one of them: teacher forcing,
    /// for perplexities.
    ///
    /// # Errors
    /// Those of [`Session::prefill`].
    pub fn prefill_each(
        &mut self,
        tokens: &[u32],
        ex: &impl Executor,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.check(tokens)?;
        let (start, vocab) = (self.position, self.model.config.vocab_size);
        for (i, batch) in tokens.chunks(self.model.batch).enumerate() {
            if let Err(error) = self.forward(batch, Wanted::All, ex) {
                self.position = start;
                return Err(error);
            }
            for row in (0..batch.len()).step_by(LOGIT_ROWS) {
                let rows = LOGIT_ROWS.min(batch.len() - row);
                let logits = self.buffers.logits(self.model, row, rows, ex)?;
                for (offset, logits) in logits.chunks_exact(vocab).enumerate() {
                    each(i * self.model.batch + row + offset, logits);
                }
            }
        }
        Ok(())
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let (capacity, vocab) = (self.model.context, self.model.config.vocab_size);
        if tokens.is_empty() {
            return Err(Error::Shape { what: "tokens of a prefill".to_string(), expected: 1, found: 0 });
        }
        let needed = self.position.saturating_add(tokens.len());
        if needed > capacity {
            return Err(Error::Context { capacity, needed });
        }
        match tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(&token) => {
                let what = format!("token id {token}: size of a vocabulary that has it");
                Err(Error::Shape { what, expected: token as usize + 1, found: vocab })
            }
            None => Ok(()),
        }
    }

    /// Takes a batch through all layers; the wanted rows' normalized results are then the first of `hidden`.
    fn forward(&mut self, tokens: &[u32], wanted: Wanted, ex: &dyn Executor) -> Result<()> {
        let Session { model, cache, position, buffers } = self;
        let (config, level) = (&model.config, model.level);
        let (e, epsilon) = (config.embedding_length, config.rms_epsilon);
        let mut batch = Batch { model, level, start: *position, m: tokens.len(), ex };

        for (&token, row) in tokens.iter().zip(buffers.stream.chunks_exact_mut(e)) {
            model.embedding.dequantize_row(token as usize, row)?;
        }
        let first_norm = model.layers.first().map_or(&model.output_norm, |layer| &layer.attention.norm);
        let matrices = [(&mut buffers.stream[..], e), (&mut buffers.hidden[..], e)];
        for_each_row(
            level,
            batch.m,
            matrices,
            ex,
            #[inline(always)]
            |_, [stream, hidden]| {
                for value in stream.iter_mut() {
                    *value *= config.embedding_scale;
                }
                math::rms_norm(stream, first_norm, epsilon, hidden);
            },
        );
        for (index, layer) in model.layers.iter().enumerate() {
            batch.queries_keys_values(index, layer, cache, buffers)?;
            if index + 1 == model.layers.len() && wanted != Wanted::All {
                if wanted == Wanted::Nothing {
                    break;
                }
                batch.keep_last(buffers);
            }
            let next_norm = model.layers.get(index + 1).map_or(&model.output_norm, |next| &next.attention.norm);
            batch.attention(index, layer, cache, buffers)?;
            batch.feed_forward(layer, next_norm, buffers)?;
        }
        *position += tokens.len();
        Ok(())
    }
}

/// A batch of tokens on its way through the layers.
struct Batch<'a> {
    model: &'a Model,
    level: Level,
    /// Position of the first row.
    start: usize,
    /// Rows.
    m: usize,
    ex: &'a dyn Executor,
}

impl Batch<'_> {
    /// Q, K and V of `hidden`, rotated; K and V go into the cache.
    fn queries_keys_values(&self, index: usize, layer: &Layer, cache: &mut KvCache, b: &mut Buffers) -> Result<()> {
        let (config, w, m) = (&self.model.config, &layer.attention, self.m);
        let (queries, keys) = (config.query_length(), config.kv_length());
        b.activate_hidden(self.model, m, w.kinds(), self.ex)?;
        let (q, k, v) = (&mut b.q[..m * queries], &mut b.k[..m * keys], &mut b.v[..m * keys]);
        let mut jobs = [
            Matmul::new(&w.q, q).with_bias(w.q_bias.as_deref()),
            Matmul::new(&w.k, k).with_bias(w.k_bias.as_deref()),
            Matmul::new(&w.v, v).with_bias(w.v_bias.as_deref()),
        ];
        dispatch_matmul_fused(&mut jobs, &b.activations, &self.ex)?;

        let rope = match &self.model.local_rope {
            Some(local) if config.is_local(index) => local,
            _ => &self.model.rope,
        };
        let (level, start) = (self.level, self.start);
        let codes = QueryCodes { codes: &mut b.q_codes, scales: &mut b.q_scales };
        Heads { level, config, weights: w, rope, start, m }.finish(
            Projected { q, k, v },
            codes,
            cache.writer(index),
            self.ex,
        );
        Ok(())
    }

    /// Drops all rows but the last from what is still needed of them: the residual stream and the queries.
    fn keep_last(&mut self, b: &mut Buffers) {
        let config = &self.model.config;
        let last = |width: usize| (self.m - 1) * width..self.m * width;
        let (e, queries, heads) = (config.embedding_length, config.query_length(), config.head_count);
        b.stream.copy_within(last(e), 0);
        b.q.copy_within(last(queries), 0);
        if !b.q_codes.is_empty() {
            b.q_codes.copy_within(last(queries), 0);
        }
        b.q_scales.copy_within(last(heads), 0);
        self.start += self.m - 1;
        self.m = 1;
    }

    /// Attention over the cache, added to the stream; `hidden` is then the feed-forward network's input.
    fn attention(&self, index: usize, layer: &Layer, cache: &KvCache, b: &mut Buffers) -> Result<()> {
        let (config, w, m) = (&self.model.config, &layer.attention, self.m);
        let queries = config.query_length();
        let window = config.sliding_window.filter(|_| config.is_local(index));
        let what = Queries { layer: index, start: self.start, m, heads: config.head_count, window };
        let q = QueryVectors { exact: &b.q, codes: &b.q_codes, scales: &b.q_scales };
        let heads = &mut b.heads[..m * queries];
        attention::attend(self.level, cache, what, q, heads, self.ex);
        activate(&mut b.activations, self.model, heads, m, queries, w.output.kinds(), self.ex)?;
        self.end_sublayer(b, (&w.output, w.output_bias.as_deref()), w.post_norm.as_deref(), &layer.ffn.norm)
    }

    /// The feed-forward network, added to the stream; `hidden` is then normed by `next_norm`.
    fn feed_forward(&self, layer: &Layer, next_norm: &[f32], b: &mut Buffers) -> Result<()> {
        let (config, w, m) = (&self.model.config, &layer.ffn, self.m);
        let ff = config.feed_forward_length;
        b.activate_hidden(self.model, m, w.kinds(), self.ex)?;
        let (gate, up) = (&mut b.gate[..m * ff], &mut b.up[..m * ff]);
        let gated = Matmul::new(&w.gate, gate).gated(config.gate, Product::new(&w.up, up));
        dispatch_matmul_fused(&mut [gated], &b.activations, &self.ex)?;
        let gate = &b.gate[..m * ff];
        activate(&mut b.activations, self.model, gate, m, ff, w.down.kinds(), self.ex)?;
        self.end_sublayer(b, (&w.down, None), w.post_norm.as_deref(), next_norm)
    }

    /// `stream += post_norm(activations · outputᵀ + bias)`, then `hidden = next_norm(stream)`. With no norm in between, the
    /// matmul's tasks add to the stream.
    fn end_sublayer(
        &self,
        b: &mut Buffers,
        (output, bias): (&WeightFormat<'_>, Option<&[f32]>),
        post_norm: Option<&[f32]>,
        next_norm: &[f32],
    ) -> Result<()> {
        let (e, epsilon) = (self.model.config.embedding_length, self.model.config.rms_epsilon);
        let mut job = Matmul::new(output, &mut b.hidden[..self.m * e]).with_bias(bias);
        if post_norm.is_none() {
            job = job.add_to(&mut b.stream[..self.m * e]);
        }
        dispatch_matmul_fused(&mut [job], &b.activations, &self.ex)?;
        for_each_row(
            self.level,
            self.m,
            [(&mut b.stream[..], e), (&mut b.hidden[..], e)],
            self.ex,
            #[inline(always)]
            |_, [stream, hidden]| {
                if let Some(norm) = post_norm {
                    math::rms_norm_in_place(hidden, norm, epsilon);
                    math::add(stream, hidden);
                }
                math::rms_norm(stream, next_norm, epsilon, hidden);
            },
        );
        Ok(())
    }
}

/// Takes `x`, `[m, k]`, as activations of `kinds`, or as f32.
fn activate(
    activations: &mut Activations,
    model: &Model,
    x: &[f32],
    m: usize,
    k: usize,
    kinds: Kinds,
    ex: &dyn Executor,
) -> Result<()> {
    if model.f32_activations { activations.keep_f32(x, m, k) } else { activations.quantize(x, m, k, kinds, &ex) }
}

impl Buffers {
    /// Takes the first `m` rows of `hidden` as activations.
    fn activate_hidden(&mut self, model: &Model, m: usize, kinds: Kinds, ex: &dyn Executor) -> Result<()> {
        let e = model.config.embedding_length;
        activate(&mut self.activations, model, &self.hidden[..m * e], m, e, kinds, ex)
    }

    /// Logits of `rows` ≤ [`LOGIT_ROWS`] rows of `hidden` from `first` on.
    fn logits(&mut self, model: &Model, first: usize, rows: usize, ex: &dyn Executor) -> Result<&[f32]> {
        let (e, vocab, output) = (model.config.embedding_length, model.config.vocab_size, model.output());
        let hidden = &self.hidden[first * e..(first + rows) * e];
        activate(&mut self.activations, model, hidden, rows, e, output.kinds(), ex)?;
        let logits = &mut self.logits[..rows * vocab];
        dispatch_matmul(output, &self.activations, logits, &ex)?;
        Ok(logits)
    }
}
