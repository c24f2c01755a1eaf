//! The 12 bytes that hold 16 six-bit numbers: 8 scales and 8 minima (Q4_K, Q5_K) or 16 scales (Q3_K).

use crate::format::swar::splat;

/// The bytes as whole words: LLVM joins loads of single bytes across them.
#[inline(always)]
fn words(bytes: &[u8; 12]) -> [u32; 3] {
    bytemuck::cast::<[u8; 12], [[u8; 4]; 3]>(*bytes).map(u32::from_le_bytes)
}

/// Scales and minima of Q4_K and Q5_K, eight of each.
///
/// Byte `j < 4` holds scale `j` and, in its two top bits, those of scale `j + 4`; byte `j + 4` likewise the minima; byte
/// `j + 8` the low nibbles of scale `j + 4` and of minimum `j + 4`.
#[inline(always)]
pub(super) fn unpack_scales_mins(bytes: &[u8; 12], scales: &mut [u8; 16], mins: &mut [u8; 16]) {
    let [first @ .., _, _, _, _] = *bytes;
    let [_, _, low] = words(bytes);
    let (first, low) = (u64::from_le_bytes(first), low as u64);
    // Four of the scales and four of the minima each: what crosses from a nibble to another word's is masked.
    let lower = first & splat(0x3F);
    let upper = (low | low << 28) & splat(15) | first >> 2 & splat(0x30);
    const WORD: u64 = u32::MAX as u64;
    *scales = ((lower & WORD | upper << 32) as u128).to_le_bytes();
    *mins = ((lower >> 32 | upper & !WORD) as u128).to_le_bytes();
}

/// Scales of Q3_K: byte `j < 8` holds the low nibbles of scales `j` and `j + 8`, byte `8 + j % 4` the two top bits of scale
/// `j` at bit `2·(j / 4)`.
#[inline(always)]
pub(super) fn unpack_scales(bytes: &[u8; 12], scales: &mut [u8; 16]) {
    let [first, second, top] = words(bytes);
    let (low, top) = (first as u64 | (second as u64) << 32, top as u64);
    // Those of scales `j < 8` at bits 0 and 1, of the others at bits 4 and 5: what crosses from a word to the other is masked.
    let top = top | top << 30;
    let lower = low & splat(15) | (top & splat(3)) << 4;
    let upper = low >> 4 & splat(15) | top & splat(0x30);
    *scales = (lower as u128 | (upper as u128) << 64).to_le_bytes();
}

/// The inverse of [`unpack_scales_mins`] for numbers below 64; greater ones spoil others, as they do in ggml.
pub(super) fn pack_scales_mins(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for j in 0..4 {
        bytes[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        bytes[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        bytes[j + 8] = scales[j + 4] & 15 | (mins[j + 4] & 15) << 4;
    }
    bytes
}

/// The inverse of [`unpack_scales`]; numbers are below 64.
pub(super) fn pack_scales(scales: &[u8; 16]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (j, scale) in scales.iter().enumerate() {
        bytes[j % 8] |= (scale & 15) << (4 * (j / 8));
        bytes[8 + j % 4] |= (scale >> 4) << (2 * (j / 4));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bit_numbers_round_trip() {
        let numbers: [u8; 16] = core::array::from_fn(|i| (i * 37 % 64) as u8);
        let mut scales = [0; 16];
        unpack_scales(&pack_scales(&numbers), &mut scales);
        assert_eq!(scales, numbers);

        let (first, second) = (*numbers.first_chunk().unwrap(), *numbers.last_chunk().unwrap());
        let (mut scales, mut mins) = ([0; 16], [0; 16]);
        unpack_scales_mins(&pack_scales_mins(&first, &second), &mut scales, &mut mins);
        assert_eq!(scales[..8], first);
        assert_eq!(mins[..8], second);
    }
}
