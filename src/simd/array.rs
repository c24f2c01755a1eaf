//! Arrays of registers, filled without a call.

use core::mem::MaybeUninit;

/// `[f(0), f(1), …]`.
///
/// [`core::array::from_fn`] may stay a call, and what is not inlined into a kernel runs without its instruction set. `f` stands
/// here once for each N: it is inlined wherever it stands, and arrays in arrays would multiply what there is to compile.
#[inline(always)]
pub fn array_of<const N: usize, T: Copy>(f: impl Fn(usize) -> T) -> [T; N] {
    if const { N == 1 } {
        return [f(0); N];
    }
    let mut array = [const { MaybeUninit::uninit() }; N];
    for i in 0..N {
        array[i] = MaybeUninit::new(f(i));
    }
    // SAFETY: all N are written, and `MaybeUninit<T>` has the layout of `T`.
    unsafe { (&raw const array).cast::<[T; N]>().read() }
}
