//! A tensor's entry in the file: name, shape, type and where its bytes lie.

use super::cursor::{Cursor, Shown};
use super::types::{REMOVED_TENSOR_TYPES, TensorType};
use crate::{Error, Result};
use alloc::{format, string::String};
use core::ops::{Deref, Range};

/// Longest tensor name in bytes (ggml's buffer of 64 less its NUL).
pub(super) const MAX_NAME_BYTES: usize = 63;
/// Most dimensions that a tensor has.
pub(super) const MAX_DIMS: usize = 4;

/// A tensor's dimensions in the file's order: the first is contiguous, the length of a row (`k`). Derefs to a slice of at
/// most four.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    ne: [usize; MAX_DIMS],
    len: u8,
}

impl Dims {
    /// The dimensions `ne`, the contiguous one first; `None` if there are more than four.
    pub fn new(ne: &[usize]) -> Option<Self> {
        let mut dims = Dims { ne: [1; MAX_DIMS], len: ne.len() as u8 };
        dims.ne.get_mut(..ne.len())?.copy_from_slice(ne);
        Some(dims)
    }
}

impl Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        self.ne.get(..usize::from(self.len)).unwrap_or(&self.ne)
    }
}

impl core::fmt::Debug for Dims {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&**self, f)
    }
}

/// A tensor in the file. As a weight matrix it is `[n, k]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo<'a> {
    /// The name, for example `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// The dimensions; `dims[0]` is k.
    pub dims: Dims,
    /// The id of the type, one of [`TENSOR_TYPES`](super::TENSOR_TYPES).
    pub type_id: u32,
    /// Where the bytes lie, from the start of the file.
    pub range: Range<usize>,
}

impl TensorInfo<'_> {
    /// The length of a row: input features.
    pub fn k(&self) -> usize {
        self.dims.first().copied().unwrap_or(1)
    }

    /// The number of rows, all higher dimensions multiplied: output features (times experts, where the tensor has them).
    pub fn n(&self) -> usize {
        // Cannot overflow: the product of all dimensions is checked when the file is parsed.
        self.dims.iter().skip(1).fold(1, |n, &d| n.wrapping_mul(d))
    }

    /// The name of the type as GGUF spells it.
    pub fn type_name(&self) -> &'static str {
        TensorType::from_id(self.type_id).map_or("unknown", |t| t.name)
    }
}

/// The error for tensor `name`.
#[cold]
pub(super) fn tensor_error(name: &str, why: String) -> Error {
    Error::Gguf { at: format!("tensor {}", Shown(name)), why }
}

/// The bytes of a tensor with these dimensions and type, or the error that says what does not fit.
pub(super) fn tensor_bytes(name: &str, dims: &Dims, type_id: u32) -> Result<usize> {
    let Some(tensor_type) = TensorType::from_id(type_id) else {
        let removed = REMOVED_TENSOR_TYPES.iter().find(|(id, _)| *id == type_id);
        return Err(tensor_error(
            name,
            match removed {
                Some((_, old)) => {
                    format!(
                        "type id {type_id} ({old}) was removed from GGUF; quantize the model again to a current type"
                    )
                }
                None => format!("unknown type id {type_id}"),
            },
        ));
    };
    let too_large = || tensor_error(name, format!("the size of shape {dims:?} is not representable"));
    // Zeros count as 1 here, so that every partial product of the dimensions is representable too.
    let elements = dims.iter().try_fold(1usize, |product, &d| product.checked_mul(d.max(1)));
    elements.filter(|&e| e <= isize::MAX as usize).ok_or_else(too_large)?;
    let k = dims.first().copied().unwrap_or(1);
    let TensorType { block, name: type_name, .. } = *tensor_type;
    if !k.is_multiple_of(block) {
        return Err(tensor_error(
            name,
            format!("its rows have {k} weights, but {type_name} needs a multiple of its block of {block}"),
        ));
    }
    let row_bytes = tensor_type.row_bytes(k).ok_or_else(too_large)?;
    let bytes = dims.iter().skip(1).try_fold(row_bytes, |product, &d| product.checked_mul(d));
    bytes.filter(|&b| b <= isize::MAX as usize).ok_or_else(too_large)
}

impl<'a> TensorInfo<'a> {
    /// Reads entry number `index`; `range` is still relative to the data section, whose start the last entry decides.
    pub(super) fn read_entry(cursor: &mut Cursor<'a>, index: u64) -> Result<Self> {
        let start = cursor.offset();
        let name = cursor.str().map_err(|f| f.at(format_args!("name of tensor {index} (byte {start})")))?;
        let at = || format!("tensor {}", Shown(name));
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::Gguf {
                at: at(),
                why: format!("the name has {} bytes, but the limit is {MAX_NAME_BYTES}", name.len()),
            });
        }
        let n_dims = cursor.u32().map_err(|f| f.at(at()))?;
        let n_dims = usize::try_from(n_dims).ok().filter(|&n| n <= MAX_DIMS).ok_or_else(|| Error::Gguf {
            at: at(),
            why: format!("has {n_dims} dimensions, but the limit is {MAX_DIMS}"),
        })?;
        let mut ne = [1; MAX_DIMS];
        for (i, slot) in ne.iter_mut().enumerate().take(n_dims) {
            let raw = cursor.u64().map_err(|f| f.at(at()))? as i64;
            if raw < 0 {
                return Err(Error::Gguf { at: at(), why: format!("dimension {i} is negative ({raw})") });
            }
            *slot = usize::try_from(raw).map_err(|_| Error::Gguf {
                at: at(),
                why: format!("dimension {i} is {raw}: the size is not representable"),
            })?;
        }
        let dims = Dims { ne, len: n_dims as u8 };
        let type_id = cursor.u32().map_err(|f| f.at(at()))?;
        let offset = cursor.u64().map_err(|f| f.at(at()))?;
        let bytes = tensor_bytes(name, &dims, type_id)?;
        let past_end = || Error::Gguf { at: at(), why: format!("its offset {offset} is past the end of the file") };
        let start = usize::try_from(offset).map_err(|_| past_end())?;
        let end = start.checked_add(bytes).ok_or_else(past_end)?;
        Ok(TensorInfo { name, dims, type_id, range: start..end })
    }
}
