//! Whole rows with checked lengths: what callers use, where the trait's own functions trust theirs.

use super::QuantBlock;
use crate::{Error, Result};
use alloc::format;

/// Bytes of a row of `k` weights.
///
/// # Errors
/// [`Error::Block`] if `k` is not a multiple of the block.
pub fn row_bytes<F: QuantBlock>(k: usize) -> Result<usize> {
    if !k.is_multiple_of(F::BLOCK) {
        return Err(Error::Block { format: F::NAME, block: F::BLOCK, k });
    }
    let overflow = || Error::Overflow { what: format!("a row of {} with k = {k}", F::NAME) };
    (k / F::BLOCK).checked_mul(size_of::<F::Block>()).ok_or_else(overflow)
}

/// Quantizes a row to `bytes`, byte for byte as ggml does; `importance` has one weight per column.
///
/// # Errors
/// [`Error::Block`] if the row is not whole blocks, [`Error::Shape`] if `bytes` or `importance` do not fit it.
pub fn quantize_row<F: QuantBlock>(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Result<()> {
    check(row_bytes::<F>(row.len())?, bytes.len(), "bytes", F::NAME, row.len())?;
    if let Some(importance) = importance {
        check(row.len(), importance.len(), "importance", F::NAME, row.len())?;
    }
    let found = bytes.len();
    let blocks = bytemuck::try_cast_slice_mut(bytes).map_err(|_| misaligned(F::NAME, row.len(), found))?;
    F::quantize(row, importance, blocks);
    Ok(())
}

/// Dequantizes the blocks in `bytes` to `out`, bit for bit as ggml does.
///
/// # Errors
/// [`Error::Block`] if `out` is not whole blocks, [`Error::Shape`] if `bytes` does not fit it.
pub fn dequantize_row<F: QuantBlock>(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check(row_bytes::<F>(out.len())?, bytes.len(), "bytes", F::NAME, out.len())?;
    let blocks: &[F::Block] =
        bytemuck::try_cast_slice(bytes).map_err(|_| misaligned(F::NAME, out.len(), bytes.len()))?;
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(F::BLOCK)) {
        F::dequantize(block, out);
    }
    Ok(())
}

fn check(expected: usize, found: usize, what: &str, format: &str, k: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { what: format!("{what} of a row of {format} with k = {k}"), expected, found })
}

fn misaligned(format: &str, k: usize, found: usize) -> Error {
    let what = format!("alignment of the bytes of a row of {format} with k = {k} (blocks must have alignment 1)");
    Error::Shape { what, expected: 1, found }
}
