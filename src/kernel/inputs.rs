//! Quantized activations as the integer kernels read them.

/// `m` rows of `k` codes with their scales and sums; which of them a kernel reads depends on its tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Rows.
    pub m: usize,
    /// Codes in a row.
    pub k: usize,
    /// Codes from one row to the next: rows a power of two apart would share sets of the caches.
    pub stride: usize,
    /// `[m, stride]`, k of them used.
    pub codes: &'a [i8],
    /// `[m, k / group]`.
    pub d: &'a [f32],
    /// `−Σ codes` per 32 (groups of 32) or per 256 (groups of 256).
    pub neg_sums: &'a [i32],
    /// `−32 · Σ codes` per 8 (groups of 256 only).
    pub centres: &'a [i32],
    /// `Σ codes` per 16 (groups of 256 only).
    pub sums16: &'a [i16],
    /// `Σ codes` per 32 (groups of 256 only).
    pub sums32: &'a [i16],
    /// `d · Σ codes` per 32 (groups of 32 only).
    pub d_sums: &'a [f32],
}
