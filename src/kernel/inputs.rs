//! Quantized activations as the integer kernels read them.

/// `m` rows of `k` codes with their scales and sums; which of them a kernel reads depends on its tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Rows.
    pub m: usize,
    /// Codes in a row.
    pub k: usize,
    /// `[m, k]`.
    pub codes: &'a [i8],
    /// `[m, k / group]`.
    pub d: &'a [f32],
    /// `−Σ codes` per 32 (groups of 32) or per 16 (groups of 256).
    pub neg_sums: &'a [i32],
    /// `Σ codes` per 16.
    pub sums16: &'a [i16],
    /// `Σ codes` per 32.
    pub sums32: &'a [i16],
    /// `d · Σ codes` per 32 (groups of 32 only).
    pub d_sums: &'a [f32],
}
