//! Where a weight matrix's bytes live: borrowed, or shared with their owner (a file's mapping, a `Vec`).

use crate::{Error, Result};
use alloc::{boxed::Box, format, sync::Arc, vec::Vec};
use core::ops::Range;

/// What can own the bytes of weights: a memory map, a `Vec<u8>`, or a type of your own.
///
/// `as_ref` always gives the same bytes.
pub trait BytesOwner: AsRef<[u8]> + Send + Sync {
    /// The bytes of `range` have been copied and will hardly be read again: an owner that can read them anew, such as
    /// [`gguf::Mmap`](crate::gguf), may let go of the memory that they take. By default nothing is done.
    fn release(&self, range: Range<usize>) {
        let _ = range;
    }
}

impl BytesOwner for Vec<u8> {}
impl BytesOwner for Box<[u8]> {}
impl BytesOwner for &'static [u8] {}

/// An owner of bytes that several weights keep alive.
pub type SharedBytes = Arc<dyn BytesOwner>;

/// Bytes of weights, never copied: a borrowed slice or a range of a shared owner.
#[derive(Clone)]
pub enum WeightBytes<'a> {
    /// A slice that outlives the weights.
    Borrowed(&'a [u8]),
    /// A range of an owner that the weights keep alive.
    Shared(SharedBytes, Range<usize>),
}

impl<'a> WeightBytes<'a> {
    /// All bytes of a shared owner.
    pub fn shared(owner: SharedBytes) -> WeightBytes<'static> {
        let range = 0..(*owner).as_ref().len();
        WeightBytes::Shared(owner, range)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            WeightBytes::Borrowed(bytes) => bytes,
            WeightBytes::Shared(owner, range) => (**owner).as_ref().get(range.clone()).unwrap_or_default(),
        }
    }

    /// Tells a shared owner that the bytes of `range` have been copied.
    pub(crate) fn release(&self, range: Range<usize>) {
        if let WeightBytes::Shared(owner, all) = self {
            owner.release(all.start + range.start..all.start + range.end);
        }
    }

    /// A part of the bytes, with the same owner.
    ///
    /// # Errors
    /// [`Error::Shape`] if `range` does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Result<WeightBytes<'a>> {
        let found = self.as_slice().len();
        if range.start > range.end || range.end > found {
            let what = format!("weight bytes {}..{}", range.start, range.end);
            return Err(Error::Shape { what, expected: range.end, found });
        }
        Ok(match self {
            WeightBytes::Borrowed(bytes) => WeightBytes::Borrowed(&bytes[range]),
            WeightBytes::Shared(owner, all) => {
                WeightBytes::Shared(owner.clone(), all.start + range.start..all.start + range.end)
            }
        })
    }
}

impl<'a> From<&'a [u8]> for WeightBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        WeightBytes::Borrowed(bytes)
    }
}

impl From<Vec<u8>> for WeightBytes<'static> {
    fn from(bytes: Vec<u8>) -> Self {
        WeightBytes::shared(Arc::new(bytes))
    }
}

impl From<SharedBytes> for WeightBytes<'static> {
    fn from(owner: SharedBytes) -> Self {
        WeightBytes::shared(owner)
    }
}

impl core::fmt::Debug for WeightBytes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kind = if matches!(self, WeightBytes::Borrowed(_)) { "borrowed" } else { "shared" };
        write!(f, "{kind} bytes({})", self.as_slice().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn slices_share_the_owner_and_check_the_range() {
        let all = WeightBytes::from(vec![1, 2, 3, 4]);
        let part = all.slice(1..4).unwrap().slice(1..2).unwrap();
        assert_eq!(part.as_slice(), [3]);
        assert!(part.slice(0..2).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 2..1;
        assert!(all.slice(reversed).is_err());
        assert_eq!(WeightBytes::from(&[7u8, 8][..]).slice(1..2).unwrap().as_slice(), [8]);
    }
}
