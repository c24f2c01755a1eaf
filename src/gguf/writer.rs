//! The writer: makes files that this reader and ggml's accept.

use super::cursor::{MAX_STRING_BYTES, Shown};
use super::reader::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Gguf, MAX_ALIGNMENT};
use super::tensor::{Dims, MAX_DIMS, MAX_NAME_BYTES, tensor_bytes, tensor_error};
use super::value::{Array, Value, ValueType};
use crate::{Error, Result};
use alloc::{borrow::Cow, collections::BTreeSet, format, string::String, vec::Vec};

/// A value that can be written as metadata: numbers, `bool`, strings, slices and vectors of them (arrays), and what the
/// reader returns ([`Value`], [`Array`]).
pub trait ToMetadata {
    /// The type of the value in the file.
    fn value_type(&self) -> ValueType;

    /// Appends the value as it lies in the file, without its type.
    fn append(&self, out: &mut Vec<u8>);
}

macro_rules! number_to_metadata {
    ($($t:ty => $id:ident),*) => {$(
        impl ToMetadata for $t {
            fn value_type(&self) -> ValueType {
                ValueType::$id
            }

            fn append(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl Element for $t {
            const TYPE: ValueType = ValueType::$id;
        }
    )*};
}

/// A type that arrays can have as elements: everything but arrays, which GGUF does not nest.
pub trait Element: ToMetadata {
    /// The type of the elements in the file.
    const TYPE: ValueType;
}

number_to_metadata!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64
);

impl ToMetadata for bool {
    fn value_type(&self) -> ValueType {
        ValueType::Bool
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Element for bool {
    const TYPE: ValueType = ValueType::Bool;
}

impl ToMetadata for &str {
    fn value_type(&self) -> ValueType {
        ValueType::Str
    }

    fn append(&self, out: &mut Vec<u8>) {
        (self.len() as u64).append(out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Element for &str {
    const TYPE: ValueType = ValueType::Str;
}

impl ToMetadata for String {
    fn value_type(&self) -> ValueType {
        ValueType::Str
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.as_str().append(out);
    }
}

impl Element for String {
    const TYPE: ValueType = ValueType::Str;
}

impl<T: Element> ToMetadata for &[T] {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn append(&self, out: &mut Vec<u8>) {
        T::TYPE.id().append(out);
        (self.len() as u64).append(out);
        self.iter().for_each(|element| element.append(out));
    }
}

impl<T: Element, const N: usize> ToMetadata for [T; N] {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.as_slice().append(out);
    }
}

impl<T: Element> ToMetadata for Vec<T> {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.as_slice().append(out);
    }
}

impl ToMetadata for Array<'_> {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.element_type().id().append(out);
        (self.len() as u64).append(out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl ToMetadata for Value<'_> {
    fn value_type(&self) -> ValueType {
        Value::value_type(self)
    }

    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => v.append(out),
            Value::I8(v) => v.append(out),
            Value::U16(v) => v.append(out),
            Value::I16(v) => v.append(out),
            Value::U32(v) => v.append(out),
            Value::I32(v) => v.append(out),
            Value::F32(v) => v.append(out),
            Value::Bool(v) => v.append(out),
            Value::Str(v) => v.append(out),
            Value::Array(v) => v.append(out),
            Value::U64(v) => v.append(out),
            Value::I64(v) => v.append(out),
            Value::F64(v) => v.append(out),
        }
    }
}

/// Collects metadata and tensors, then writes them as one file. Tensors' bytes are borrowed until then, or owned.
///
/// ```
/// use quantblock::gguf::{Gguf, GgufWriter};
///
/// let mut writer = GgufWriter::new();
/// writer.set("general.architecture", "llama")?.set("llama.block_count", 1u32)?;
/// writer.tensor("output_norm.weight", &[2], 0, bytemuck::cast_slice(&[1.0f32, 1.0]))?;
/// let file = writer.to_vec();
/// assert_eq!(Gguf::parse(&file)?.u32("llama.block_count")?, 1);
/// # Ok::<(), quantblock::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GgufWriter<'a> {
    version: u32,
    alignment: usize,
    keys: BTreeSet<String>,
    /// The key-value pairs as they lie in the file.
    pairs: Vec<u8>,
    names: BTreeSet<String>,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Debug, Clone)]
struct Tensor<'a> {
    name: String,
    dims: Dims,
    type_id: u32,
    bytes: Cow<'a, [u8]>,
}

impl Default for GgufWriter<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> GgufWriter<'a> {
    /// An empty file of version 3, aligned to 32 bytes.
    pub fn new() -> Self {
        GgufWriter {
            version: 3,
            alignment: DEFAULT_ALIGNMENT,
            keys: BTreeSet::new(),
            pairs: Vec::new(),
            names: BTreeSet::new(),
            tensors: Vec::new(),
        }
    }

    /// Sets the version that the file says: 2 or 3.
    ///
    /// # Errors
    /// [`Error::Gguf`] for any other version.
    pub fn with_version(mut self, version: u32) -> Result<Self> {
        if !matches!(version, 2 | 3) {
            let why = format!("version {version} cannot be written, only 2 and 3");
            return Err(Error::Gguf { at: "the header's version".into(), why });
        }
        self.version = version;
        Ok(self)
    }

    /// Aligns tensors to `alignment` bytes and writes `general.alignment`.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is no power of two or above 1 MiB, or if it was already set.
    pub fn with_alignment(mut self, alignment: usize) -> Result<Self> {
        match u32::try_from(alignment) {
            Ok(value) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => {
                self.append_pair(ALIGNMENT_KEY, &value)?;
                self.alignment = alignment;
                Ok(self)
            }
            _ => {
                let why = format!("{alignment} is no power of two of at most {MAX_ALIGNMENT}");
                Err(Error::Gguf { at: format!("key `{ALIGNMENT_KEY}`"), why })
            }
        }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the key is empty or already there, if it is `general.alignment` (see
    /// [`GgufWriter::with_alignment`]), or if a string or array is longer than readers accept.
    pub fn set(&mut self, key: &str, value: impl ToMetadata) -> Result<&mut Self> {
        if key == ALIGNMENT_KEY {
            let why = "is written by `GgufWriter::with_alignment`, which also aligns the tensors".into();
            return Err(Error::Gguf { at: format!("key `{ALIGNMENT_KEY}`"), why });
        }
        self.append_pair(key, &value)?;
        Ok(self)
    }

    /// Adds all keys of a file but `general.alignment`.
    ///
    /// # Errors
    /// As [`GgufWriter::set`].
    pub fn copy_metadata(&mut self, from: &Gguf<'_>) -> Result<&mut Self> {
        for (key, value) in from.metadata().iter().filter(|(key, _)| *key != ALIGNMENT_KEY) {
            self.set(key, *value)?;
        }
        Ok(self)
    }

    fn append_pair(&mut self, key: &str, value: &impl ToMetadata) -> Result<()> {
        let error = |why: &str| Err(Error::Gguf { at: format!("key {}", Shown(key)), why: why.into() });
        if key.is_empty() {
            return error("the key is empty");
        }
        if key.len() as u64 > MAX_STRING_BYTES {
            return error("the key is too long");
        }
        if self.keys.contains(key) {
            return error("the key is already there");
        }
        let start = self.pairs.len();
        key.append(&mut self.pairs);
        value.value_type().id().append(&mut self.pairs);
        let value_start = self.pairs.len();
        value.append(&mut self.pairs);
        // Read back as a reader would: it finds strings and arrays beyond the limits.
        let mut cursor = super::cursor::Cursor::new(self.pairs.get(value_start..).unwrap_or(&[]));
        if let Err(fault) = Value::read(&mut cursor, value.value_type()) {
            self.pairs.truncate(start);
            return Err(fault.at(format_args!("key {}", Shown(key))));
        }
        self.keys.insert(key.into());
        Ok(())
    }

    /// Adds a tensor: `dims` in the file's order (the first is the row's length, k), `type_id` one of
    /// [`TENSOR_TYPES`](super::TENSOR_TYPES), `bytes` as they shall lie in the file.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the name is there already or too long, the type is unknown or does not divide the rows, or
    /// there are more than four dimensions; [`Error::Shape`] if `bytes` has another length than the shape and type need.
    pub fn tensor(
        &mut self,
        name: &str,
        dims: &[usize],
        type_id: u32,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self> {
        let bytes = bytes.into();
        if name.len() > MAX_NAME_BYTES {
            return Err(tensor_error(
                name,
                format!("the name has {} bytes, but the limit is {MAX_NAME_BYTES}", name.len()),
            ));
        }
        let dims = Dims::new(dims)
            .ok_or_else(|| tensor_error(name, format!("has {} dimensions, but the limit is {MAX_DIMS}", dims.len())))?;
        let expected = tensor_bytes(name, &dims, type_id)?;
        if bytes.len() != expected {
            return Err(Error::Shape {
                what: format!("bytes of tensor {}", Shown(name)),
                expected,
                found: bytes.len(),
            });
        }
        if !self.names.insert(name.into()) {
            return Err(tensor_error(name, "the tensor is already there".into()));
        }
        self.tensors.push(Tensor { name: name.into(), dims, type_id, bytes });
        Ok(self)
    }

    /// Everything before the data section, padded to the alignment.
    fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.pairs.len().saturating_add(256));
        out.extend_from_slice(b"GGUF");
        self.version.append(&mut out);
        (self.tensors.len() as u64).append(&mut out);
        (self.keys.len() as u64).append(&mut out);
        out.extend_from_slice(&self.pairs);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            tensor.name.append(&mut out);
            (tensor.dims.len() as u32).append(&mut out);
            tensor.dims.iter().for_each(|&d| (d as u64).append(&mut out));
            tensor.type_id.append(&mut out);
            offset.append(&mut out);
            // Saturates only where the slices together exceed 2^64 bytes.
            offset = offset.saturating_add((tensor.bytes.len() + self.padding(tensor.bytes.len())) as u64);
        }
        out.resize(out.len() + self.padding(out.len()), 0);
        out
    }

    /// Bytes that are missing to the next multiple of the alignment.
    fn padding(&self, len: usize) -> usize {
        len.wrapping_neg() & (self.alignment - 1)
    }

    /// The whole file.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.extend_from_slice(&tensor.bytes);
            out.resize(out.len() + self.padding(tensor.bytes.len()), 0);
        }
        out
    }

    /// Writes the whole file, without a copy of the tensors' bytes.
    ///
    /// # Errors
    /// [`Error::Io`] with the writer's message.
    #[cfg(feature = "std")]
    pub fn write_to(&self, mut out: impl std::io::Write) -> Result<()> {
        let mut write = |what: &str, bytes: &[u8]| {
            let failed = |e| Error::Io { what: format!("writing {what}"), why: alloc::string::ToString::to_string(&e) };
            out.write_all(bytes).map_err(failed)
        };
        write("the GGUF header", &self.header())?;
        let zeros = alloc::vec![0; self.alignment];
        for tensor in &self.tensors {
            write(&tensor.name, &tensor.bytes)?;
            write(&tensor.name, zeros.get(..self.padding(tensor.bytes.len())).unwrap_or(&zeros))?;
        }
        out.flush().map_err(|e| Error::Io {
            what: "writing the GGUF file".into(),
            why: alloc::string::ToString::to_string(&e),
        })
    }
}
