//! Arrays of registers, filled without a call.

/// `[f(0), f(1), …]`, for N ≥ 1.
///
/// [`core::array::from_fn`] may stay a call, and what is not inlined into a kernel runs without its instruction set.
#[inline(always)]
pub fn array_of<const N: usize, T: Copy>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut array = [f(0); N];
    for i in 1..N {
        array[i] = f(i);
    }
    array
}
