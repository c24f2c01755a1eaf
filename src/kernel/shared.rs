//! A mutable slice that tasks share, each writing a range of its own.

use core::marker::PhantomData;

/// `&mut [T]` handed out in disjoint pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`, whose pieces may go to other threads if T may.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: `slice` is unsafe: callers promise that pieces in use at the same time do not overlap.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where element `at` lies.
    ///
    /// # Safety
    /// There is such an element.
    pub unsafe fn start(&self, at: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(at) }
    }

    /// The piece of `len` elements at `at`; empty if it does not lie inside.
    ///
    /// # Safety
    /// No other piece in use at the same time overlaps it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, at: usize, len: usize) -> &'a mut [T] {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return &mut [];
        }
        // SAFETY: inside the slice, and the caller vouches that nobody else holds this piece.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
