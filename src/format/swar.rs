//! Bytes in u64 words: eight codes move with each shift and mask, which LLVM then joins to the vectors that there are.
//!
//! A loop over bytes of a fixed small length is unrolled to single bytes before it could be vectorized.

/// `byte` in every byte of a word.
#[inline(always)]
pub(super) const fn splat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// `f` over the words of `N` bytes; `N` is a multiple of 8.
#[inline(always)]
pub(super) fn map<const N: usize>(bytes: &[u8; N], f: impl Fn(u64) -> u64) -> [u8; N] {
    let mut out = [0; N];
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *out = f(u64::from_le_bytes(*bytes)).to_le_bytes();
    }
    out
}

/// `f` over the words of two arrays of `N` bytes; `N` is a multiple of 8.
#[inline(always)]
pub(super) fn zip<const N: usize>(a: &[u8; N], b: &[u8; N], f: impl Fn(u64, u64) -> u64) -> [u8; N] {
    let mut out = [0; N];
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    for (out, (a, b)) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *out = f(u64::from_le_bytes(*a), u64::from_le_bytes(*b)).to_le_bytes();
    }
    out
}

/// 256 bytes, `f(j)` from byte `32 · j` on.
///
/// Written out: a loop may stay one, and then what depends on `j` is computed, and the bytes go through memory.
#[inline(always)]
pub(super) fn eight(f: impl Fn(usize) -> [u8; 32]) -> [u8; 256] {
    bytemuck::cast([f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)])
}

/// The low nibbles of bytes.
#[inline(always)]
pub(super) fn low_nibbles<const N: usize>(bytes: &[u8; N]) -> [u8; N] {
    map(bytes, |word| word & splat(15))
}

/// The high nibbles of bytes.
#[inline(always)]
pub(super) fn high_nibbles<const N: usize>(bytes: &[u8; N]) -> [u8; N] {
    map(bytes, |word| word >> 4 & splat(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_give_what_bytes_would() {
        let a: [u8; 16] = core::array::from_fn(|i| (i * 41 + 3) as u8);
        let b: [u8; 16] = core::array::from_fn(|i| (i * 89 + 200) as u8);
        assert_eq!(low_nibbles(&a), a.map(|byte| byte & 15));
        assert_eq!(high_nibbles(&a), a.map(|byte| byte >> 4));
        let expected: [u8; 16] = core::array::from_fn(|i| a[i] >> 2 & 3 | (b[i] >> 6 & 1) << 4);
        assert_eq!(zip(&a, &b, |a, b| a >> 2 & splat(3) | (b >> 6 & splat(1)) << 4), expected);
    }
}
