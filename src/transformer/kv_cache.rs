//! The KV cache: keys and values of every position, laid out as attention reads them.
//!
//! Each layer holds, for each KV head, `capacity` positions in a row. Values lie as `[position][d]`: the weighted sum runs
//! over positions with d in the lanes. Keys lie as `[position / 16][d][16]`: the scores of 16 positions are computed in
//! lanes, so that no sum goes across lanes and its order is that of d, whatever the register width.

use crate::{Error, Result, executor::Executor, kernel::SharedMut, simd::Isa};
use alloc::{string::ToString, vec, vec::Vec};
use half::{f16, slice::HalfFloatSliceExt};

/// Positions whose keys lie interleaved.
pub(crate) const KEY_LANES: usize = 16;
/// Positions that attention takes in one step; the capacity is a multiple of it.
pub(crate) const BLOCK: usize = 64;

/// What the cache stores an element as.
pub(crate) trait KvElement: Copy + Default + Send + Sync + 'static {
    /// Rounds `from` to elements; the slices have the same length.
    fn store(from: &[f32], to: &mut [Self]);

    /// Loads a register's lanes and widens them.
    ///
    /// # Safety
    /// `I::LANES` elements at `p` are readable.
    unsafe fn load<I: Isa>(isa: I, p: *const Self) -> I::F;
}

impl KvElement for f32 {
    fn store(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const f32) -> I::F {
        // SAFETY: the caller vouches for the lanes at `p`.
        unsafe { isa.load_f32(p) }
    }
}

impl KvElement for f16 {
    fn store(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const f16) -> I::F {
        // SAFETY: the caller vouches for the lanes at `p`.
        unsafe { isa.load_f16(p.cast()) }
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
    /// Elements of one head of one layer.
    fn head(&self) -> usize {
        self.capacity * self.head_length
    }

    /// Elements of the keys, and of the values, of one layer.
    fn layer(&self) -> usize {
        self.kv_heads * self.head()
    }
}

/// Keys and values as elements `E`.
#[derive(Debug, Clone)]
pub(crate) struct KvElements<E> {
    pub shape: KvShape,
    keys: Vec<E>,
    values: Vec<E>,
}

/// The cache of a sequence.
#[derive(Debug, Clone)]
pub(crate) enum KvCache {
    F16(KvElements<f16>),
    F32(KvElements<f32>),
}

impl KvCache {
    /// A cache of zeros for at least `shape.capacity` positions; f32 elements where `exact`, else f16.
    pub(crate) fn new(mut shape: KvShape, exact: bool) -> Result<KvCache> {
        let overflow = || Error::Overflow { what: "KV cache".to_string() };
        shape.capacity = shape.capacity.checked_next_multiple_of(BLOCK).ok_or_else(overflow)?;
        let elements = [shape.layers, shape.kv_heads, shape.capacity, shape.head_length]
            .into_iter()
            .try_fold(1usize, usize::checked_mul)
            .filter(|n| n.checked_mul(2 * size_of::<f32>()).is_some_and(|bytes| bytes < isize::MAX as usize))
            .ok_or_else(overflow)?;
        Ok(if exact {
            KvCache::F32(KvElements { shape, keys: vec![0.0; elements], values: vec![0.0; elements] })
        } else {
            KvCache::F16(KvElements { shape, keys: vec![f16::ZERO; elements], values: vec![f16::ZERO; elements] })
        })
    }

    /// Stores `m` rows of keys and values, `[m, kv_heads · d]` each, at positions from `start` on.
    pub(crate) fn store(
        &mut self,
        layer: usize,
        start: usize,
        m: usize,
        keys: &[f32],
        values: &[f32],
        ex: &impl Executor,
    ) {
        match self {
            KvCache::F16(cache) => cache.store(layer, start, m, keys, values, ex),
            KvCache::F32(cache) => cache.store(layer, start, m, keys, values, ex),
        }
    }
}

impl<E: KvElement> KvElements<E> {
    /// Keys of a head of a layer: `[capacity / 16][d][16]`.
    pub(crate) fn keys(&self, layer: usize, kv_head: usize) -> &[E] {
        let start = layer * self.shape.layer() + kv_head * self.shape.head();
        &self.keys[start..start + self.shape.head()]
    }

    /// Values of a head of a layer: `[capacity][d]`.
    pub(crate) fn values(&self, layer: usize, kv_head: usize) -> &[E] {
        let start = layer * self.shape.layer() + kv_head * self.shape.head();
        &self.values[start..start + self.shape.head()]
    }

    fn store(&mut self, layer: usize, start: usize, m: usize, keys: &[f32], values: &[f32], ex: &impl Executor) {
        let KvShape { kv_heads, head_length: d, .. } = self.shape;
        let (layer_elements, head_elements) = (self.shape.layer(), self.shape.head());
        let of_layer = layer * layer_elements..(layer + 1) * layer_elements;
        let to_keys = SharedMut::new(&mut self.keys[of_layer.clone()]);
        let to_values = SharedMut::new(&mut self.values[of_layer]);
        let task = |kv_head: usize| {
            // SAFETY: each task has its own head.
            let (to_keys, to_values) = unsafe {
                let first = kv_head * head_elements;
                (to_keys.slice(first, head_elements), to_values.slice(first, head_elements))
            };
            let mut rounded = [E::default(); KEY_LANES];
            for row in 0..m {
                let position = start + row;
                let from = (row * kv_heads + kv_head) * d;
                E::store(&values[from..from + d], &mut to_values[position * d..(position + 1) * d]);
                let block = &mut to_keys[position / KEY_LANES * KEY_LANES * d..][..KEY_LANES * d];
                let lane = position % KEY_LANES;
                for (keys, block) in
                    keys[from..from + d].chunks_exact(KEY_LANES).zip(block.chunks_exact_mut(KEY_LANES * KEY_LANES))
                {
                    E::store(keys, &mut rounded);
                    for (&key, lanes) in rounded.iter().zip(block.chunks_exact_mut(KEY_LANES)) {
                        lanes[lane] = key;
                    }
                }
            }
        };
        if m == 1 { (0..kv_heads).for_each(task) } else { ex.run(kv_heads, &task) }
    }
}
