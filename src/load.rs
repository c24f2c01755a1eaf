//! From a tensor of a GGUF file to a weight with fused kernels: nothing is dequantized on the way.

use crate::{
    Error, Executor, Level, Result, WeightFormat,
    bytes::WeightBytes,
    gguf::Gguf,
    memory::{PackedMemory, Separate},
};
use alloc::format;

/// In which form a weight is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// The blocks as they lie in the file: nothing is copied, the bytes stay shared with the file.
    Native,
    /// Codes re-laid for SIMD: faster, and as many bytes, but in memory of its own.
    #[default]
    Packed,
}

/// The tensor `name` as a weight `[n, k]` in its own quantized format, packed into memory of its own.
///
/// `file` holds the bytes that `gguf` was parsed from: a borrowed slice, or shared with its owner (a memory map).
///
/// # Errors
/// [`Error::Missing`] if there is no such tensor, [`Error::Unsupported`] (with the tensor's name) if there is no kernel
/// for its type or this CPU lacks `level`, [`Error::Shape`] if `file` is not the file.
pub fn load_weight_optimal<'a>(
    gguf: &Gguf<'_>,
    file: &WeightBytes<'a>,
    name: &str,
    storage: Storage,
    level: Level,
    executor: &impl Executor,
) -> Result<WeightFormat<'a>> {
    load_weight_optimal_in(&mut Separate, gguf, file, name, storage, level, executor)
}

/// [`load_weight_optimal`] that packs into `memory`: one [`Arena`](crate::Arena) for all tensors of a model.
///
/// # Errors
/// Those of [`load_weight_optimal`], and of [`WeightFormat::pack_in`].
pub fn load_weight_optimal_in<'a>(
    memory: &mut impl PackedMemory,
    gguf: &Gguf<'_>,
    file: &WeightBytes<'a>,
    name: &str,
    storage: Storage,
    level: Level,
    executor: &impl Executor,
) -> Result<WeightFormat<'a>> {
    let tensor = gguf.require_tensor(name)?;
    let bytes = file.slice(tensor.range.clone())?;
    let weight =
        WeightFormat::from_bytes(tensor.type_id, bytes, tensor.n(), tensor.k()).map_err(|error| match error {
            Error::Unsupported { instead, .. } => {
                Error::Unsupported { what: format!("tensor `{name}` of type {}", tensor.type_name()), instead }
            }
            other => other,
        })?;
    let weight = weight.with_level(level)?;
    match storage {
        Storage::Native => Ok(weight),
        Storage::Packed => weight.pack_in(memory, executor),
    }
}
