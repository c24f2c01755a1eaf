//! The KV cache: keys and values of every position, laid out as attention reads them.
//!
//! A key or value is one head's vector at one position. It is stored as f16, as f32, or as 16-bit codes that share one f32
//! scale: [`CacheType`] says which is good for what.

use super::codes::{self, CODE_BITS};
use crate::{Error, Result, kernel::SharedMut, memory};
use alloc::{format, string::ToString, vec::Vec};
use bytemuck::Zeroable;
use core::{fmt::Debug, ops::Range, str::FromStr};
use half::{f16, slice::HalfFloatSliceExt};

/// Positions whose keys lie interleaved.
pub(crate) const GROUP: usize = 16;
/// Positions that attention takes in one step; the capacity is a multiple of it.
pub(crate) const BLOCK: usize = 64;

/// Elements that are converted together; divides d.
const CHUNK: usize = 16;

/// How the KV cache stores keys and values.
///
/// Results have the same bits for any batch, threads and instruction set level with each of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheType {
    /// 16-bit codes with one f32 scale for each head's vector. As large as f16, and as exact for elements near the largest
    /// of a vector; attention sums products of integers, at two to four times the rate of floats.
    I16,
    /// Half precision, as most engines keep it; attention computes in f32.
    #[default]
    F16,
    /// Single precision: twice as large, to verify the others.
    F32,
}

impl CacheType {
    /// All of them.
    pub const ALL: [CacheType; 3] = [CacheType::I16, CacheType::F16, CacheType::F32];

    /// The name that a type is parsed from: `i16`, `f16`, `f32`.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::I16 => "i16",
            CacheType::F16 => "f16",
            CacheType::F32 => "f32",
        }
    }
}

impl FromStr for CacheType {
    type Err = Error;

    fn from_str(name: &str) -> Result<CacheType> {
        CacheType::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| Error::Unsupported {
            what: format!("KV cache type `{name}`"),
            instead: format!("there are {}", CacheType::ALL.map(CacheType::name).join(", ")),
        })
    }
}

/// What a cache stores of an element of a key or value.
pub(crate) trait Element: Copy + Default + Zeroable + Debug + Send + Sync + 'static {
    /// Neighbours that lie together: in d for keys, in position for values.
    const TOGETHER: usize;
    /// Whether a vector has a scale.
    const SCALED: bool;

    /// Calls `put` with each chunk's index and elements, and gives the vector's scale.
    fn encode(vector: &[f32], put: impl FnMut(usize, &[Self; CHUNK])) -> f32;
}

impl Element for i16 {
    // An integer dot takes two codes.
    const TOGETHER: usize = 2;
    const SCALED: bool = true;

    #[inline(always)]
    fn encode(vector: &[f32], mut put: impl FnMut(usize, &[i16; CHUNK])) -> f32 {
        let (scale, inverse) = codes::scale(vector, ((1 << CODE_BITS) - 1) as f32);
        for (index, chunk) in vector.as_chunks().0.iter().enumerate() {
            // Codes are made sixteen at a time, in registers, before they scatter.
            put(index, &codes::chunk::<CHUNK>(chunk, inverse));
        }
        scale
    }
}

impl Element for f16 {
    const TOGETHER: usize = 1;
    const SCALED: bool = false;

    #[inline(always)]
    fn encode(vector: &[f32], mut put: impl FnMut(usize, &[f16; CHUNK])) -> f32 {
        for (index, chunk) in vector.as_chunks::<CHUNK>().0.iter().enumerate() {
            let mut halves = [f16::ZERO; CHUNK];
            halves.convert_from_f32_slice(chunk);
            put(index, &halves);
        }
        1.0
    }
}

impl Element for f32 {
    const TOGETHER: usize = 1;
    const SCALED: bool = false;

    #[inline(always)]
    fn encode(vector: &[f32], mut put: impl FnMut(usize, &[f32; CHUNK])) -> f32 {
        for (index, chunk) in vector.as_chunks().0.iter().enumerate() {
            put(index, chunk);
        }
        1.0
    }
}

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

/// Keys and values of one element type.
#[derive(Debug, Clone)]
pub(crate) struct Elements<E> {
    pub shape: KvShape,
    /// For each head `[capacity / 16][d / TOGETHER][16][TOGETHER]`: the scores of 16 positions are computed in lanes.
    keys: Vec<E>,
    /// For each head `[capacity / TOGETHER][d][TOGETHER]`: the weighted sum has d in the lanes.
    values: Vec<E>,
    /// For each head `[capacity]`, or none.
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
}

/// One head of a cache, or a block of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadElements<'a, E> {
    pub keys: &'a [E],
    pub values: &'a [E],
    pub key_scales: &'a [f32],
    pub value_scales: &'a [f32],
}

impl<E: Element> HeadElements<'_, E> {
    /// The part of a block, for vectors of length d.
    #[inline(always)]
    pub(crate) fn block(&self, block: usize, d: usize) -> Self {
        self.part(block * BLOCK..(block + 1) * BLOCK, d)
    }

    /// The part of some positions, whole groups, for vectors of length d.
    #[inline(always)]
    fn part(self, positions: Range<usize>, d: usize) -> Self {
        let elements = positions.start * d..positions.end * d;
        let scales = if E::SCALED { positions } else { 0..0 };
        HeadElements {
            keys: &self.keys[elements.clone()],
            values: &self.values[elements],
            key_scales: &self.key_scales[scales.clone()],
            value_scales: &self.value_scales[scales],
        }
    }
}

/// The cache of a sequence.
#[derive(Debug, Clone)]
pub(crate) enum KvCache {
    I16(Elements<i16>),
    F16(Elements<f16>),
    F32(Elements<f32>),
}

impl KvCache {
    /// A cache of zeros for at least `shape.capacity` positions.
    pub(crate) fn new(mut shape: KvShape, kind: CacheType) -> Result<KvCache> {
        let overflow = || Error::Overflow { what: "KV cache".to_string() };
        shape.capacity = shape.capacity.checked_next_multiple_of(BLOCK).ok_or_else(overflow)?;
        [shape.layers, shape.kv_heads, shape.capacity, shape.head_length, 2 * size_of::<f32>()]
            .into_iter()
            .try_fold(1usize, usize::checked_mul)
            .filter(|&bytes| bytes < isize::MAX as usize)
            .ok_or_else(overflow)?;
        Ok(match kind {
            CacheType::I16 => KvCache::I16(Elements::zeros(shape)?),
            CacheType::F16 => KvCache::F16(Elements::zeros(shape)?),
            CacheType::F32 => KvCache::F32(Elements::zeros(shape)?),
        })
    }

    pub(crate) fn shape(&self) -> KvShape {
        match self {
            KvCache::I16(cache) => cache.shape,
            KvCache::F16(cache) => cache.shape,
            KvCache::F32(cache) => cache.shape,
        }
    }

    /// Whether attention multiplies the queries' codes.
    pub(crate) fn takes_codes(&self) -> bool {
        matches!(self, KvCache::I16(_))
    }

    /// Shares a layer among tasks that store positions.
    pub(crate) fn writer(&mut self, layer: usize) -> KvWriter<'_> {
        match self {
            KvCache::I16(cache) => KvWriter::I16(cache.writer(layer)),
            KvCache::F16(cache) => KvWriter::F16(cache.writer(layer)),
            KvCache::F32(cache) => KvWriter::F32(cache.writer(layer)),
        }
    }
}

impl<E: Element> Elements<E> {
    /// For a shape whose sizes in bytes are representable.
    fn zeros(shape: KvShape) -> Result<Self> {
        let positions = shape.layers * shape.kv_heads * shape.capacity;
        let (elements, scales) = (positions * shape.head_length, if E::SCALED { positions } else { 0 });
        Ok(Elements {
            shape,
            keys: memory::zeros(elements)?,
            values: memory::zeros(elements)?,
            key_scales: memory::zeros(scales)?,
            value_scales: memory::zeros(scales)?,
        })
    }

    fn writer(&mut self, layer: usize) -> LayerWriter<'_, E> {
        LayerWriter {
            shape: self.shape,
            layer,
            keys: SharedMut::new(&mut self.keys),
            values: SharedMut::new(&mut self.values),
            key_scales: SharedMut::new(&mut self.key_scales),
            value_scales: SharedMut::new(&mut self.value_scales),
        }
    }

    /// Keys and values of a head of a layer.
    pub(crate) fn head(&self, layer: usize, kv_head: usize) -> HeadElements<'_, E> {
        let first = self.shape.first(layer, kv_head);
        let all = HeadElements {
            keys: &self.keys,
            values: &self.values,
            key_scales: &self.key_scales,
            value_scales: &self.value_scales,
        };
        all.part(first..first + self.shape.capacity, self.shape.head_length)
    }
}

/// A layer of a cache that tasks write positions of.
pub(crate) enum KvWriter<'a> {
    I16(LayerWriter<'a, i16>),
    F16(LayerWriter<'a, f16>),
    F32(LayerWriter<'a, f32>),
}

/// A [`KvWriter`] of one element type.
pub(crate) struct LayerWriter<'a, E> {
    shape: KvShape,
    layer: usize,
    keys: SharedMut<'a, E>,
    values: SharedMut<'a, E>,
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                KvWriter::I16(layer) => layer.store(kv_head, position, key, value),
                KvWriter::F16(layer) => layer.store(kv_head, position, key, value),
                KvWriter::F32(layer) => layer.store(kv_head, position, key, value),
            }
        }
    }
}

impl<E: Element> LayerWriter<'_, E> {
    /// As [`KvWriter::store`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn store(&self, kv_head: usize, position: usize, key: &[f32], value: &[f32]) {
        let d = self.shape.head_length;
        let first = self.shape.first(self.layer, kv_head);
        let (lane, part) = (position % GROUP, position % E::TOGETHER);
        // SAFETY: all of it lies in the position's group, which no other task stores to.
        let (keys, values, key_scale, value_scale) = unsafe {
            (
                self.keys.slice((first + position - lane) * d, GROUP * d),
                self.values.slice((first + position - part) * d, E::TOGETHER * d),
                self.key_scales.slice(first + position, 1),
                self.value_scales.slice(first + position, 1),
            )
        };
        let scale = E::encode(
            key,
            #[inline(always)]
            |chunk, elements| {
                let lanes = &mut keys[chunk * CHUNK * GROUP..][..CHUNK * GROUP];
                for (i, element) in elements.iter().enumerate() {
                    lanes[(i / E::TOGETHER * GROUP + lane) * E::TOGETHER + i % E::TOGETHER] = *element;
                }
            },
        );
        key_scale.fill(scale);
        let scale = E::encode(
            value,
            #[inline(always)]
            |chunk, elements| {
                let cells = &mut values[chunk * CHUNK * E::TOGETHER..][..CHUNK * E::TOGETHER];
                for (cell, element) in cells.chunks_exact_mut(E::TOGETHER).zip(elements) {
                    cell[part] = *element;
                }
            },
        );
        value_scale.fill(scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in CacheType::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("q8_0".parse::<CacheType>().is_err_and(|error| error.to_string().contains("i16, f16, f32")));
    }
}
