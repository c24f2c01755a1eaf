//! A reading position in the file: every step is checked against the bytes that are left.

use super::value::ValueType;
use crate::{Error, Result};
use alloc::format;
use core::fmt::{self, Display, Write as _};

/// ggml's limit on the length of a string.
pub(super) const MAX_STRING_BYTES: u64 = 1 << 30;
/// ggml's limit on the number of elements of an array.
pub(super) const MAX_ARRAY_LEN: u64 = 1 << 30;

/// What can be wrong with the next bytes; the caller adds the name of the key or tensor that it was reading.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The file ends inside the item.
    Truncated { offset: usize, needed: u64, left: usize },
    /// A string is longer than ggml's limit.
    LongString { offset: usize, len: u64 },
    /// A string is not UTF-8.
    Utf8 { offset: usize },
    /// An array has more elements than ggml's limit.
    LongArray { offset: usize, len: u64 },
    /// An array holds more elements than the rest of the file could.
    ArrayPastEnd { offset: usize, len: u64, left: usize },
    /// A value type id that does not exist.
    ValueType { offset: usize, id: u32 },
    /// An array of arrays.
    NestedArray { offset: usize },
    /// A bool that is neither 0 nor 1.
    Bool { offset: usize, value: u8 },
}

impl Fault {
    /// The error that says what is wrong with `at`.
    #[cold]
    pub(super) fn at(self, at: impl Display) -> Error {
        Error::Gguf { at: format!("{at}"), why: format!("{self}") }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Truncated { offset, needed, left } => {
                write!(f, "the file is truncated: byte {offset} needs {needed} more bytes, but {left} are left")
            }
            Fault::LongString { offset, len } => {
                write!(
                    f,
                    "the string at byte {offset} has a length of {len} bytes, but the limit is {MAX_STRING_BYTES}"
                )
            }
            Fault::Utf8 { offset } => write!(f, "the string at byte {offset} is not valid UTF-8"),
            Fault::LongArray { offset, len } => {
                write!(f, "the array at byte {offset} has {len} elements, but the limit is {MAX_ARRAY_LEN}")
            }
            Fault::ArrayPastEnd { offset, len, left } => {
                write!(
                    f,
                    "the file is truncated: the array at byte {offset} has {len} elements, but only {left} bytes are left"
                )
            }
            Fault::ValueType { offset, id } => write!(f, "unknown value type {id} at byte {offset}"),
            Fault::NestedArray { offset } => write!(f, "the array at byte {offset} is an array of arrays"),
            Fault::Bool { offset, value } => write!(f, "the bool at byte {offset} is {value}, neither 0 nor 1"),
        }
    }
}

/// A name from the file as messages show it: control characters escaped, cut where it gets long.
pub(super) struct Shown<'a>(pub &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 80;
        f.write_char('`')?;
        for (i, c) in self.0.chars().enumerate() {
            if i == MAX {
                f.write_str("…")?;
                break;
            }
            write!(f, "{}", c.escape_debug())?;
        }
        f.write_char('`')
    }
}

/// The bytes and the place in them.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, offset: 0 }
    }

    /// Bytes from the start of the file.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes up to the end of the file.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.offset)
    }

    /// The bytes between an earlier place and this one.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.offset).unwrap_or(&[])
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        let fault = Fault::Truncated { offset: self.offset, needed: len, left: self.left() };
        let end = usize::try_from(len).ok().and_then(|len| self.offset.checked_add(len)).ok_or(fault)?;
        let taken = self.bytes.get(self.offset..end).ok_or(fault)?;
        self.offset = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let fault = Fault::Truncated { offset: self.offset, needed: N as u64, left: self.left() };
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| fault)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Fault> {
        let offset = self.offset;
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [value] => Err(Fault::Bool { offset, value }),
        }
    }

    /// A string: u64 length and UTF-8 bytes.
    pub(super) fn str(&mut self) -> Result<&'a str, Fault> {
        let offset = self.offset;
        let len = self.u64()?;
        if len > MAX_STRING_BYTES {
            return Err(Fault::LongString { offset, len });
        }
        core::str::from_utf8(self.take(len)?).map_err(|_| Fault::Utf8 { offset })
    }

    pub(super) fn value_type(&mut self) -> Result<ValueType, Fault> {
        let offset = self.offset;
        let id = self.u32()?;
        ValueType::from_id(id).ok_or(Fault::ValueType { offset, id })
    }
}
