//! Metadata values. Strings and arrays borrow from the file; arrays decode their elements as they are read.

use super::cursor::{Cursor, Fault, MAX_ARRAY_LEN, Shown};
use core::fmt;

/// The type of a metadata value or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    Array,
    U64,
    I64,
    F64,
}

/// In the order of the ids.
const VALUE_TYPES: [ValueType; 13] = [
    ValueType::U8,
    ValueType::I8,
    ValueType::U16,
    ValueType::I16,
    ValueType::U32,
    ValueType::I32,
    ValueType::F32,
    ValueType::Bool,
    ValueType::Str,
    ValueType::Array,
    ValueType::U64,
    ValueType::I64,
    ValueType::F64,
];

impl ValueType {
    /// The type with this id in the file.
    pub fn from_id(id: u32) -> Option<ValueType> {
        VALUE_TYPES.get(usize::try_from(id).ok()?).copied()
    }

    /// The id in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name in messages, for example `u32`.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::Str => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }

    /// Bytes of a value in the file; `None` for strings and arrays, whose size is their own.
    pub fn fixed_bytes(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::Str | ValueType::Array => None,
        }
    }
}

/// A metadata value, borrowing from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::Str,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The number that an integer of any width holds; `None` for everything else, bools included.
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// Reads a value of the given type, checked.
    pub(super) fn read(cursor: &mut Cursor<'a>, value_type: ValueType) -> Result<Self, Fault> {
        Ok(match value_type {
            ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array()?)),
            ValueType::U32 => Value::U32(cursor.u32()?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array()?)),
            ValueType::Bool => Value::Bool(cursor.bool()?),
            ValueType::Str => Value::Str(cursor.str()?),
            ValueType::Array => Value::Array(Array::read(cursor)?),
            ValueType::U64 => Value::U64(cursor.u64()?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array()?)),
        })
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(v) => write!(f, "{}", Shown(v)),
            Value::Array(v) => write!(f, "{} × {}", v.len(), v.element_type().name()),
            Value::Bool(v) => write!(f, "{v}"),
            Value::F32(v) => write!(f, "{v}"),
            Value::F64(v) => write!(f, "{v}"),
            _ => write!(f, "{}", self.integer().unwrap_or_default()),
        }
    }
}

/// An array in the metadata: its bytes in the file, decoded as it is iterated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Fault> {
        let offset = cursor.offset();
        let element = cursor.value_type()?;
        if element == ValueType::Array {
            return Err(Fault::NestedArray { offset });
        }
        let len = cursor.u64()?;
        if len > MAX_ARRAY_LEN {
            return Err(Fault::LongArray { offset, len });
        }
        let past_end = Fault::ArrayPastEnd { offset, len, left: cursor.left() };
        // A string takes at least its length field: a count that cannot fit is refused before the first element is read.
        let smallest = element.fixed_bytes().unwrap_or(8);
        let len = usize::try_from(len).map_err(|_| past_end)?;
        let fixed_bytes = len.checked_mul(smallest).filter(|&b| b <= cursor.left()).ok_or(past_end)?;
        let start = cursor.offset();
        match element {
            ValueType::Str => {
                for _ in 0..len {
                    cursor.str()?;
                }
            }
            ValueType::Bool => {
                for _ in 0..len {
                    cursor.bool()?;
                }
            }
            _ => {
                cursor.take(fixed_bytes as u64)?;
            }
        }
        Ok(Array { element, len, bytes: cursor.since(start) })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The elements as they lie in the file: little-endian numbers, or strings each behind its u64 length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The element at `index`: found at once in arrays of numbers, by walking the array in arrays of strings.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        if index >= self.len {
            return None;
        }
        match self.element.fixed_bytes() {
            Some(size) => {
                let bytes = self.bytes.get(index.checked_mul(size)?..)?;
                Value::read(&mut Cursor::new(bytes), self.element).ok()
            }
            None => self.iter().nth(index),
        }
    }

    /// The elements in order.
    pub fn iter(&self) -> ArrayIter<'a> {
        ArrayIter { cursor: Cursor::new(self.bytes), element: self.element, left: self.len }
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = ArrayIter<'a>;

    fn into_iter(self) -> ArrayIter<'a> {
        self.iter()
    }
}

/// The elements of an [`Array`], decoded one by one.
#[derive(Debug, Clone)]
pub struct ArrayIter<'a> {
    cursor: Cursor<'a>,
    element: ValueType,
    left: usize,
}

impl<'a> Iterator for ArrayIter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Checked when the file was parsed; decoded with the same checks, because a mapped file can change.
        let value = Value::read(&mut self.cursor, self.element).ok();
        if value.is_none() {
            self.left = 0;
        }
        value
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for ArrayIter<'_> {}
impl core::iter::FusedIterator for ArrayIter<'_> {}
