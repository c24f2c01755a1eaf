//! Typed access to metadata: any integer width is accepted where the number fits, and every error names the key.

use super::cursor::Shown;
use super::reader::Gguf;
use super::value::{Array, ArrayIter, Value};
use crate::{Error, Result};
use alloc::format;
use core::marker::PhantomData;

/// Why a value cannot be read as the type that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It has another type.
    Type,
    /// It is a number that does not fit.
    Range,
}

/// A Rust type that metadata can be read as: integers (from any integer width), floats (from f32 and f64), `bool`, `&str`
/// and [`Array`].
pub trait FromValue<'a>: Sized {
    /// What the value must be, in words for a message.
    const WANT: &'static str;

    /// Reads the value, or says why it does not fit.
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch>;
}

macro_rules! integer_from_value {
    ($($t:ty),*) => {$(
        impl<'a> FromValue<'a> for $t {
            const WANT: &'static str = concat!("an integer that fits ", stringify!($t));

            fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
                value.integer().ok_or(Mismatch::Type)?.try_into().map_err(|_| Mismatch::Range)
            }
        }
    )*};
}

integer_from_value!(u8, i8, u16, i16, u32, i32, u64, i64, usize);

impl<'a> FromValue<'a> for f32 {
    const WANT: &'static str = "a float that fits f32";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::F32(v) => Ok(v),
            Value::F64(v) if v.is_finite() && !(v as f32).is_finite() => Err(Mismatch::Range),
            Value::F64(v) => Ok(v as f32),
            _ => Err(Mismatch::Type),
        }
    }
}

impl<'a> FromValue<'a> for f64 {
    const WANT: &'static str = "a float";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::F32(v) => Ok(v.into()),
            Value::F64(v) => Ok(v),
            _ => Err(Mismatch::Type),
        }
    }
}

impl<'a> FromValue<'a> for bool {
    const WANT: &'static str = "a bool";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::Bool(v) => Ok(v),
            _ => Err(Mismatch::Type),
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANT: &'static str = "a string";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::Str(v) => Ok(v),
            _ => Err(Mismatch::Type),
        }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const WANT: &'static str = "an array";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::Array(v) => Ok(v),
            _ => Err(Mismatch::Type),
        }
    }
}

/// The error for a value that is not what the caller needs.
#[cold]
fn mismatch<'a, T: FromValue<'a>>(key: &str, index: Option<usize>, value: Value<'a>, mismatch: Mismatch) -> Error {
    let at = match index {
        Some(index) => format!("element {index} of key {}", Shown(key)),
        None => format!("key {}", Shown(key)),
    };
    let why = match mismatch {
        Mismatch::Type => format!("is {} ({value}), but {} is needed", value.value_type().name(), T::WANT),
        Mismatch::Range => format!("{value} is out of range: {} is needed", T::WANT),
    };
    Error::Gguf { at, why }
}

/// Typed getters. Each returns [`Error::Missing`] if the file lacks the key (the ones that return an `Option` say `None`
/// instead), and [`Error::Gguf`] naming the key if the value has another type or does not fit.
impl<'a> Gguf<'a> {
    /// The value of `key` as a `T`, or `None` if the file lacks the key.
    pub fn find<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        T::from_value(value).map(Some).map_err(|m| mismatch::<T>(key, None, value, m))
    }

    /// The value of `key` as a `T`.
    pub fn require<T: FromValue<'a>>(&self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| Error::Missing { name: key.into() })
    }

    /// The integer under `key`, stored in any width.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.require(key)
    }

    /// The integer under `key`, stored in any width.
    pub fn i32(&self, key: &str) -> Result<i32> {
        self.require(key)
    }

    /// The integer under `key`, stored in any width.
    pub fn u64(&self, key: &str) -> Result<u64> {
        self.require(key)
    }

    /// The integer under `key`, stored in any width.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.require(key)
    }

    /// The integer under `key`, which must not be 0: a model's number of layers, heads and the like.
    pub fn nonzero(&self, key: &str) -> Result<usize> {
        match self.require(key)? {
            0 => Err(Error::Gguf { at: format!("key {}", Shown(key)), why: "must not be 0".into() }),
            n => Ok(n),
        }
    }

    /// The float under `key`, f32 or f64.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.require(key)
    }

    /// The bool under `key`.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.require(key)
    }

    /// The string under `key`.
    pub fn str(&self, key: &str) -> Result<&'a str> {
        self.require(key)
    }

    /// The array under `key`, every element of which is a `T`: `gguf.array::<&str>("tokenizer.ggml.tokens")`.
    pub fn array<T: FromValue<'a>>(&self, key: &str) -> Result<Items<'a, T>> {
        self.find_array(key)?.ok_or_else(|| Error::Missing { name: key.into() })
    }

    /// As [`Gguf::array`], or `None` if the file lacks the key.
    pub fn find_array<T: FromValue<'a>>(&self, key: &str) -> Result<Option<Items<'a, T>>> {
        let Some(array) = self.find::<Array<'a>>(key)? else { return Ok(None) };
        for (index, value) in array.iter().enumerate() {
            T::from_value(value).map_err(|m| mismatch::<T>(key, Some(index), value, m))?;
        }
        Ok(Some(Items { array, iter: array.iter(), element: PhantomData }))
    }

    /// A number per layer: one value for all, or an array with exactly `layers` elements.
    pub fn per_layer<T: FromValue<'a> + Copy>(&self, key: &str, layers: usize) -> Result<PerLayer<'a, T>> {
        if !matches!(self.get(key), Some(Value::Array(_))) {
            return self.require(key).map(PerLayer::All);
        }
        let items = self.array(key)?;
        if items.len() != layers {
            return Err(Error::Gguf {
                at: format!("key {}", Shown(key)),
                why: format!("has {} elements, but the model has {layers} layers", items.len()),
            });
        }
        Ok(PerLayer::Each(items))
    }
}

/// The elements of an array, each checked to be a `T` when it was looked up; iterates without allocating.
#[derive(Debug, Clone)]
pub struct Items<'a, T> {
    array: Array<'a>,
    iter: ArrayIter<'a>,
    element: PhantomData<T>,
}

impl<'a, T: FromValue<'a>> Items<'a, T> {
    /// The element at `index` of the whole array, however far the iteration is; in arrays of strings it is found by
    /// walking the array.
    pub fn get(&self, index: usize) -> Option<T> {
        T::from_value(self.array.get(index)?).ok()
    }
}

impl<'a, T: FromValue<'a>> Iterator for Items<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        T::from_value(self.iter.next()?).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.iter.size_hint()
    }
}

impl<'a, T: FromValue<'a>> ExactSizeIterator for Items<'a, T> {}

/// A hyperparameter that is the same for all layers or has a value for each.
#[derive(Debug, Clone)]
pub enum PerLayer<'a, T> {
    /// One value for every layer.
    All(T),
    /// A value for each layer.
    Each(Items<'a, T>),
}

impl<'a, T: FromValue<'a> + Copy> PerLayer<'a, T> {
    /// The value for `layer`, or `None` past the last one.
    pub fn get(&self, layer: usize) -> Option<T> {
        match self {
            PerLayer::All(value) => Some(*value),
            PerLayer::Each(items) => items.get(layer),
        }
    }
}
