//! The one error type: every caller mistake and every malformed byte is a value of it.

use alloc::string::String;

/// What went wrong, with the names and shapes that tell where.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A slice or a dimension does not have the length that the call needs.
    Shape {
        /// What was measured, for example `y of Linear<Q4_K>::matmul`.
        what: String,
        /// The length that fits the shapes.
        expected: usize,
        /// The length that was given.
        found: usize,
    },
    /// The input dimension is not a multiple of the format's block.
    Block {
        /// The format's name as GGUF spells it.
        format: &'static str,
        /// Weights in a block.
        block: usize,
        /// The input dimension that was given.
        k: usize,
    },
    /// A size does not fit into the address space.
    Overflow {
        /// What was computed.
        what: String,
    },
    /// The system has no memory for weights.
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// The activations were quantized in another way than this format's kernels read them.
    ActivationKind {
        /// The format's name as GGUF spells it.
        format: &'static str,
        /// The kind that fits it.
        expected: &'static str,
        /// The kind that was given.
        found: &'static str,
    },
    /// The operation needs what this value does not have, and there is another way to get it.
    Unsupported {
        /// What is not supported, the name of the tensor, format or key included.
        what: String,
        /// What to do instead.
        instead: String,
    },
    /// The bytes are not a valid GGUF file.
    Gguf {
        /// Where in the file (a key, a tensor, a byte offset).
        at: String,
        /// Which rule is broken.
        why: String,
    },
    /// A GGUF file lacks a key or a tensor that the model needs.
    Missing {
        /// The key or tensor.
        name: String,
    },
    /// The sequence does not fit the KV cache.
    Context {
        /// Positions that the cache holds.
        capacity: usize,
        /// Positions that were asked for.
        needed: usize,
    },
    /// The system refused to open, read or map a file.
    Io {
        /// The file and the operation.
        what: String,
        /// The system's message.
        why: String,
    },
}

/// `core::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::Shape { what, expected, found } => {
                write!(f, "{what}: length {found}, but the shapes need {expected}")
            }
            Error::Block { format, block, k } => {
                write!(
                    f,
                    "{format}: k = {k} is not a multiple of the block of {block} weights; choose another format for this tensor"
                )
            }
            Error::Overflow { what } => write!(f, "{what} does not fit into the address space"),
            Error::OutOfMemory { bytes } => write!(f, "no memory for {bytes} bytes of weights"),
            Error::ActivationKind { format, expected, found } => {
                write!(
                    f,
                    "{format} reads activations of kind {expected}, not {found}; quantize them with `Activations::quantize` for this format"
                )
            }
            Error::Unsupported { what, instead } => write!(f, "{what} is not supported; {instead}"),
            Error::Gguf { at, why } => write!(f, "malformed GGUF at {at}: {why}"),
            Error::Missing { name } => write!(f, "the GGUF file has no `{name}`"),
            Error::Context { capacity, needed } => {
                write!(
                    f,
                    "the context holds {capacity} positions, but {needed} are needed; use a larger context size or a shorter prompt"
                )
            }
            Error::Io { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl core::error::Error for Error {}
