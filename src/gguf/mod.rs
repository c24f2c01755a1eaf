//! The GGUF file format: a borrowing reader that trusts nothing, and a writer.
//!
//! [`Gguf::parse`] looks at a whole file in memory (read or mapped) and checks every rule of the format before it
//! answers, so that what it hands out needs no second check: strings are UTF-8, tensors lie inside the file, are
//! aligned and do not overlap. Nothing is copied: keys, strings, arrays and tensor names borrow from the bytes.
//!
//! Format reference: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> (ggml, MIT licence).

mod cursor;
#[cfg(feature = "std")]
mod file;
#[cfg(feature = "mmap")]
mod mmap;
mod reader;
mod tensor;
mod typed;
mod types;
mod value;
mod writer;

#[cfg(feature = "std")]
pub use file::read_file;
#[cfg(feature = "mmap")]
pub use mmap::Mmap;
pub use reader::Gguf;
pub use tensor::{Dims, TensorInfo};
pub use typed::{FromValue, Items, Mismatch, PerLayer};
pub use types::{REMOVED_TENSOR_TYPES, TENSOR_TYPES, TensorType};
pub use value::{Array, ArrayIter, Value, ValueType};
pub use writer::{Element, GgufWriter, ToMetadata};
