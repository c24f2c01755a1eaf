//! Packed weights' memory: whole cache lines, so that no vector load crosses one.

use alloc::sync::Arc;
use bytemuck::{Pod, Zeroable};

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes in whole cache lines, shared by clones.
#[derive(Debug, Clone)]
pub(crate) struct PackedBytes {
    lines: Arc<[Line]>,
    len: usize,
}

impl PackedBytes {
    /// `len` bytes, zeroed and then written by `fill`.
    pub fn new(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut lines: Arc<[Line]> = core::iter::repeat_n(Line::zeroed(), len.div_ceil(size_of::<Line>())).collect();
        if let Some(lines) = Arc::get_mut(&mut lines) {
            fill(&mut bytemuck::cast_slice_mut(lines)[..len]);
        }
        PackedBytes { lines, len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}
