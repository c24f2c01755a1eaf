//! How formats lay codes in bytes: bits of a block's codes are a plane, and a code has a low plane and perhaps a high one.

use super::{
    QuantBlock, Tile,
    swar::{self, splat},
};
use bytemuck::Pod;

/// Bits of a block's codes: byte `l` of each chunk of `stride` bytes holds those of the chunk's codes `l`, `l + stride`,
/// `l + 2 · stride`, … from its low bits up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// The first byte, counted from the block's.
    pub at: usize,
    /// Bits of each code: 1, 2 or 4.
    pub bits: u32,
    /// Bytes of a chunk.
    pub stride: usize,
}

/// Where the bits of a block's codes lie: one of the two ways that kernels know.
///
/// - In superblocks of 256: low planes of 2 or 4 bits with a stride of 32 or 64, high ones of 1 or 2 with a stride of 32.
/// - In blocks of 32: nibbles with a stride of 16, fifth bits with a stride of 1, which start at least 16 bytes before the
///   block's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planes {
    /// The low bits.
    pub low: Plane,
    /// The bits above them, if there are more.
    pub high: Option<Plane>,
}

impl Plane {
    /// Codes in a chunk.
    pub(crate) const fn span(self) -> usize {
        self.stride * 8 / self.bits as usize
    }

    /// The byte of the block, and the bit in it, that code `code` starts at; those of the codes behind it, up to a multiple of
    /// the stride, follow in their bytes.
    #[inline(always)]
    pub(crate) const fn place(self, code: usize) -> (usize, u32) {
        let (chunk, code) = (code / self.span(), code % self.span());
        (self.at + chunk * self.stride + code % self.stride, (code / self.stride) as u32 * self.bits)
    }

    /// The bits of a code, in a byte.
    #[inline(always)]
    pub(crate) const fn mask(self) -> u8 {
        (1 << self.bits) - 1
    }

    /// The bytes that hold the bits of codes `32 · j` to `32 · j + 31`, and the bit that those start at.
    #[inline(always)]
    fn run<B: Pod>(self, block: &B, j: usize) -> ([u8; 32], u32) {
        let (byte, bit) = self.place(32 * j);
        let mut run = [0; 32];
        run.copy_from_slice(&bytemuck::bytes_of(block)[byte..byte + 32]);
        (run, bit)
    }

    /// The bytes of a plane of the low bits of `codes`.
    pub(super) fn pack<const BYTES: usize>(self, codes: &[u8; 256]) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (i, code) in codes.iter().enumerate() {
            let (byte, bit) = self.place(i);
            bytes[byte - self.at] |= (code & self.mask()) << bit;
        }
        bytes
    }
}

/// [`QuantBlock::SIGNED_CODES_AT`]. Codes that do not lie inside the block do not compile.
pub(crate) const fn signed_codes_at<F: QuantBlock>() -> Option<usize> {
    if let Some(at) = F::SIGNED_CODES_AT {
        assert!(at + F::BLOCK <= size_of::<F::Block>(), "codes inside the block");
    }
    F::SIGNED_CODES_AT
}

impl Planes {
    /// A format's planes. What a kernel could not read does not compile.
    pub(crate) const fn of<F: QuantBlock>() -> Option<Planes> {
        let Some(planes) = F::PLANES else { return None };
        let (low, block_bytes) = (planes.low, size_of::<F::Block>());
        let high_bits = if let Some(high) = planes.high { high.bits } else { 0 };
        assert!(low.bits + high_bits == F::Tile::BITS, "the bits of the tile's codes");
        if F::BLOCK == 32 {
            assert!(low.bits == 4 && low.stride == 16 && low.at + 16 <= block_bytes, "16 bytes of nibbles");
        } else {
            assert!(
                matches!(low.bits, 2 | 4) && matches!(low.stride, 32 | 64),
                "planes of 2 or 4 bits, chunks of 32 or 64 bytes"
            );
            assert!(low.stride == 32 || low.bits == 4, "chunks of 64 bytes of nibbles");
            assert!(low.at + 32 * low.bits as usize <= block_bytes, "a plane inside the block");
        }
        if let Some(high) = planes.high {
            if F::BLOCK == 32 {
                // Read in a piece of 16 bytes, which must not end behind the block.
                assert!(
                    high.bits == 1 && high.stride == 1 && high.at + 16 <= block_bytes,
                    "4 bytes of bits, 12 behind"
                );
            } else {
                assert!(matches!(high.bits, 1 | 2) && high.stride == 32, "planes of 1 or 2 bits, chunks of 32 bytes");
                assert!(high.at + 32 * high.bits as usize <= block_bytes, "a plane inside the block");
            }
        }
        Some(planes)
    }

    /// The bytes of the plane of the high bits of `codes`.
    pub(super) fn pack_high<const BYTES: usize>(self, codes: &[u8; 256]) -> [u8; BYTES] {
        self.high.map_or([0; BYTES], |high| high.pack(&codes.map(|code| code >> self.low.bits)))
    }

    /// The nibbles of a block of 32.
    #[inline(always)]
    pub(crate) fn nibbles<B: Pod>(self, block: &B) -> [u8; 32] {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&bytemuck::bytes_of(block)[self.low.at..self.low.at + 16]);
        bytemuck::cast([swar::low_nibbles(&bytes), swar::high_nibbles(&bytes)])
    }

    /// The codes of a superblock.
    #[inline(always)]
    pub(super) fn codes<B: Pod>(self, block: &B) -> [u8; 256] {
        swar::eight(
            #[inline(always)]
            |j| {
                let (low, bit) = self.low.run(block, j);
                let mask = splat(self.low.mask());
                let Some(plane) = self.high else { return swar::map(&low, |low| low >> bit & mask) };
                let (high, high_bit) = plane.run(block, j);
                let high_mask = splat(plane.mask());
                swar::zip(&low, &high, |low, high| low >> bit & mask | (high >> high_bit & high_mask) << self.low.bits)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_from_their_planes() {
        let codes: [u8; 256] = core::array::from_fn(|i| (i * 37 + i / 7) as u8);
        let plane = |at, bits, stride| Plane { at, bits, stride };
        for (low, high) in [
            (plane(3, 2, 32), None),
            (plane(40, 2, 32), Some(plane(0, 1, 32))),
            (plane(16, 4, 32), None),
            (plane(48, 4, 32), Some(plane(16, 1, 32))),
            (plane(0, 4, 64), Some(plane(128, 2, 32))),
        ] {
            let planes = Planes { low, high };
            let mut block = [0xA5u8; 192];
            block[low.at..][..32 * low.bits as usize]
                .copy_from_slice(&low.pack::<128>(&codes)[..32 * low.bits as usize]);
            if let Some(high) = high {
                let bytes = 32 * high.bits as usize;
                block[high.at..][..bytes].copy_from_slice(&planes.pack_high::<64>(&codes)[..bytes]);
            }
            let bits = low.bits + high.map_or(0, |high| high.bits);
            assert_eq!(planes.codes(&block), codes.map(|code| code & ((1 << bits) - 1)), "{planes:?}");
        }
    }
}
