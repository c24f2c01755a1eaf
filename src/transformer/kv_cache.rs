//! The KV cache: keys and values of every position, laid out as attention reads them.
//!
//! A key or value (one head's vector at one position) is stored as 16-bit codes that share one f32 scale. Products of codes
//! are summed in integers, exactly, at twice the rate of f32 and with no conversion, so that attention has the same bits
//! in whatever order it adds. Codes have [`CODE_BITS`] bits and a sign: that leaves 31 bits for sums over a head or a block of
//! positions, and is as exact as f16 for elements near the largest of a vector. Models that verify ([`KvCache::Exact`])
//! keep f32.

use super::codes::{self, CODE_BITS};
use crate::{Error, Result, kernel::SharedMut};
use alloc::{string::ToString, vec, vec::Vec};

/// Positions whose keys lie interleaved.
pub(crate) const GROUP: usize = 16;
/// Positions that attention takes in one step; the capacity is a multiple of it.
pub(crate) const BLOCK: usize = 64;

/// Codes that are made together; divides d.
const CHUNK: usize = 16;

/// Two codes that an integer dot takes together.
pub(crate) type Pair = [i16; 2];

/// The sizes of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KvShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_length: usize,
    /// Positions, a multiple of [`BLOCK`].
    pub capacity: usize,
}

impl KvShape {
    /// Positions before those of a head of a layer.
    fn first(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * self.capacity
    }
}

/// Keys and values as codes.
#[derive(Debug, Clone)]
pub(crate) struct FixedCache {
    pub shape: KvShape,
    /// For each head `[capacity / 16][d / 2][16]` pairs of neighbours in d: the scores of 16 positions are computed in lanes.
    keys: Vec<Pair>,
    /// For each head `[capacity / 2][d]` pairs of neighbouring positions: the weighted sum has d in the lanes.
    values: Vec<Pair>,
    /// For each head `[capacity]`.
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
}

/// One head of a [`FixedCache`], or a block of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedHead<'a> {
    pub keys: &'a [Pair],
    pub values: &'a [Pair],
    pub key_scales: &'a [f32],
    pub value_scales: &'a [f32],
}

impl FixedHead<'_> {
    /// The part of a block.
    #[inline(always)]
    pub(crate) fn block(&self, block: usize) -> Self {
        let pairs = self.keys.len() / self.key_scales.len() * BLOCK;
        FixedHead {
            keys: &self.keys[block * pairs..][..pairs],
            values: &self.values[block * pairs..][..pairs],
            key_scales: &self.key_scales[block * BLOCK..][..BLOCK],
            value_scales: &self.value_scales[block * BLOCK..][..BLOCK],
        }
    }
}

/// Keys and values as they are, `[capacity][d]` for each head.
#[derive(Debug, Clone)]
pub(crate) struct ExactCache {
    pub shape: KvShape,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The cache of a sequence.
#[derive(Debug, Clone)]
pub(crate) enum KvCache {
    Fixed(FixedCache),
    Exact(ExactCache),
}

impl KvCache {
    /// A cache of zeros for at least `shape.capacity` positions.
    pub(crate) fn new(mut shape: KvShape, exact: bool) -> Result<KvCache> {
        let overflow = || Error::Overflow { what: "KV cache".to_string() };
        shape.capacity = shape.capacity.checked_next_multiple_of(BLOCK).ok_or_else(overflow)?;
        let positions = [shape.layers, shape.kv_heads, shape.capacity].into_iter().try_fold(1usize, usize::checked_mul);
        let positions = positions.ok_or_else(overflow)?;
        let elements = positions
            .checked_mul(shape.head_length)
            .filter(|n| n.checked_mul(2 * size_of::<f32>()).is_some_and(|bytes| bytes < isize::MAX as usize))
            .ok_or_else(overflow)?;
        Ok(if exact {
            KvCache::Exact(ExactCache { shape, keys: vec![0.0; elements], values: vec![0.0; elements] })
        } else {
            KvCache::Fixed(FixedCache {
                shape,
                keys: vec![[0; 2]; elements / 2],
                values: vec![[0; 2]; elements / 2],
                key_scales: vec![0.0; positions],
                value_scales: vec![0.0; positions],
            })
        })
    }

    /// Shares a layer among tasks that store positions.
    pub(crate) fn writer(&mut self, layer: usize) -> KvWriter<'_> {
        match self {
            KvCache::Fixed(cache) => KvWriter::Fixed(FixedWriter {
                shape: cache.shape,
                layer,
                keys: SharedMut::new(&mut cache.keys),
                values: SharedMut::new(&mut cache.values),
                key_scales: SharedMut::new(&mut cache.key_scales),
                value_scales: SharedMut::new(&mut cache.value_scales),
            }),
            KvCache::Exact(cache) => KvWriter::Exact {
                shape: cache.shape,
                layer,
                keys: SharedMut::new(&mut cache.keys),
                values: SharedMut::new(&mut cache.values),
            },
        }
    }
}

impl FixedCache {
    pub(crate) fn head(&self, layer: usize, kv_head: usize) -> FixedHead<'_> {
        let KvShape { head_length, capacity, .. } = self.shape;
        let first = self.shape.first(layer, kv_head);
        let pairs = first * head_length / 2..(first + capacity) * head_length / 2;
        let positions = first..first + capacity;
        FixedHead {
            keys: &self.keys[pairs.clone()],
            values: &self.values[pairs],
            key_scales: &self.key_scales[positions.clone()],
            value_scales: &self.value_scales[positions],
        }
    }
}

impl ExactCache {
    /// Keys and values of a head of a layer.
    pub(crate) fn head(&self, layer: usize, kv_head: usize) -> (&[f32], &[f32]) {
        let KvShape { head_length, capacity, .. } = self.shape;
        let first = self.shape.first(layer, kv_head);
        let elements = first * head_length..(first + capacity) * head_length;
        (&self.keys[elements.clone()], &self.values[elements])
    }
}

/// A layer of a cache that tasks write positions of.
pub(crate) enum KvWriter<'a> {
    Fixed(FixedWriter<'a>),
    Exact { shape: KvShape, layer: usize, keys: SharedMut<'a, f32>, values: SharedMut<'a, f32> },
}

/// A layer of a [`FixedCache`] that tasks write positions of.
pub(crate) struct FixedWriter<'a> {
    shape: KvShape,
    layer: usize,
    keys: SharedMut<'a, Pair>,
    values: SharedMut<'a, Pair>,
    key_scales: SharedMut<'a, f32>,
    value_scales: SharedMut<'a, f32>,
}

impl KvWriter<'_> {
    /// Stores a head's key and value at a position inside the capacity.
    ///
    /// # Safety
    /// Positions of one [`GROUP`] are not stored by two tasks at the same time.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, kv_head: usize, position: usize, key: &[f32], value: &[f32]) {
        match self {
            // SAFETY: the caller's promise.
            KvWriter::Fixed(writer) => unsafe { writer.store(kv_head, position, key, value) },
            KvWriter::Exact { shape, layer, keys, values } => {
                let d = shape.head_length;
                let first = (shape.first(*layer, kv_head) + position) * d;
                // SAFETY: the position's own elements, which no other task stores.
                unsafe {
                    keys.slice(first, d).copy_from_slice(key);
                    values.slice(first, d).copy_from_slice(value);
                }
            }
        }
    }
}

impl FixedWriter<'_> {
    /// As [`KvWriter::store`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn store(&self, kv_head: usize, position: usize, key: &[f32], value: &[f32]) {
        let d = self.shape.head_length;
        let first = self.shape.first(self.layer, kv_head);
        let group = (first + position / GROUP * GROUP) * d / 2;
        // SAFETY: all of it lies in the position's group, which no other task stores to.
        let (keys, values, key_scale, value_scale) = unsafe {
            (
                self.keys.slice(group, GROUP * d / 2),
                self.values.slice((first + position / 2 * 2) * d / 2, d),
                self.key_scales.slice(first + position, 1),
                self.value_scales.slice(first + position, 1),
            )
        };
        let limit = ((1 << CODE_BITS) - 1) as f32;
        let (scale, inverse) = codes::scale(key, limit);
        key_scale.fill(scale);
        let lane = position % GROUP;
        // Codes are made sixteen at a time, in registers, before they scatter.
        for (key, lanes) in key.as_chunks().0.iter().zip(keys.chunks_exact_mut(CHUNK / 2 * GROUP)) {
            let codes = codes::chunk::<CHUNK>(key, inverse);
            for (pair, lanes) in codes.as_chunks::<2>().0.iter().zip(lanes.chunks_exact_mut(GROUP)) {
                lanes[lane] = *pair;
            }
        }
        let (scale, inverse) = codes::scale(value, limit);
        value_scale.fill(scale);
        for (value, pairs) in value.as_chunks().0.iter().zip(values.chunks_exact_mut(CHUNK)) {
            let codes = codes::chunk::<CHUNK>(value, inverse);
            for (code, pair) in codes.iter().zip(pairs) {
                pair[position % 2] = *code;
            }
        }
    }
}
