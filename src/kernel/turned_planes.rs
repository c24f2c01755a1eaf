//! Planes of superblocks of 16 rows with lanes of rows, of which packed codes are made without being unpacked.
//!
//! A packed vector is some bits of a few turned ones, each shifted: of 4 bits of two, of 5 and 6 bits of three to five, and
//! codes of 2 bits are packed as they lie in the file. The codes of one chunk of the low plane are packed at a time, all chunks in
//! the same way.

use super::{
    packed::{UNIT_CODES, Unit, unit_bytes, unit_runs},
    transpose::{RowBlocks, same},
};
use crate::{
    QuantBlock,
    format::Planes,
    simd::{Isa, VECTOR_BYTES},
};
use core::marker::PhantomData;

/// Codes of a superblock.
const BLOCK: usize = 256;
/// Vectors of a chunk's packed codes, at most: 128 codes of 6 bits.
const MAX_PACKED: usize = 24;
/// Vectors of a chunk, or of a plane of high bits, at most.
const MAX_TURNED: usize = 16;

/// The planes of a format of superblocks, if its codes lie in planes.
pub(super) const fn planes_of<F: QuantBlock>() -> Option<Planes> {
    if F::BLOCK == BLOCK { Planes::of::<F>() } else { None }
}

/// The bits of a packed vector that come from one turned vector, shifted left, or right if negative.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// Whether it is one of high bits.
    high: bool,
    turned: usize,
    shift: i32,
    /// Which bits of each byte, after the shift.
    mask: u8,
}

/// The shares of a packed vector; those behind the last have no bits.
type Shares = [Share; 8];

/// How the codes of the first chunk of the low plane of `F` are packed, in units of `BITS` in groups of `GROUP`.
struct Packing<F, const BITS: u32, const GROUP: usize>(PhantomData<F>);

impl<F: QuantBlock, const BITS: u32, const GROUP: usize> Packing<F, BITS, GROUP> {
    const UNIT_VECTORS: usize = unit_bytes(BITS, GROUP) / VECTOR_BYTES;
    const UNIT_CODES: usize = unit_runs(BITS, GROUP) * UNIT_CODES;
    /// Units of a chunk.
    const UNITS: usize = if let Some(planes) = planes_of::<F>() { planes.low.span() / Self::UNIT_CODES } else { 0 };
    /// What each vector is made of. A reference: a table by itself would be copied.
    const SHARES: &'static [Shares; MAX_PACKED] = &Self::shares();

    const fn shares() -> [Shares; MAX_PACKED] {
        let mut shares = [[Share { high: false, turned: 0, shift: 0, mask: 0 }; 8]; MAX_PACKED];
        let Some(planes) = planes_of::<F>() else { return shares };
        let mut vector = 0;
        while vector < Self::UNITS * Self::UNIT_VECTORS {
            let pieces = &Unit::<BITS, GROUP>::CONTENTS[vector % Self::UNIT_VECTORS];
            let mut i = 0;
            while i < pieces.len() {
                let code = vector / Self::UNIT_VECTORS * Self::UNIT_CODES + 4 * pieces[i].step;
                let mut bit = 0;
                while bit < pieces[i].width {
                    add(&mut shares[vector], source(planes, code, pieces[i].to + bit), pieces[i].from + bit);
                    bit += 1;
                }
                i += 1;
            }
            vector += 1;
        }
        shares
    }
}

/// Which vector of which plane, as [`Share`] has them, has bit `bit` of codes `code` to `code + 3`, and which bit of its bytes.
const fn source(planes: Planes, code: usize, bit: u32) -> (bool, usize, u32) {
    let (high, plane, bit) = match planes.high {
        Some(high) if bit >= planes.low.bits => (true, high, bit - planes.low.bits),
        _ => (false, planes.low, bit),
    };
    let (byte, first) = plane.place(code);
    (high, (byte - plane.at) / 4, first + bit)
}

/// Adds a bit that becomes bit `to` of the bytes: those that come the same way are one share.
const fn add(shares: &mut Shares, (high, turned, from): (bool, usize, u32), to: u32) {
    let shift = to as i32 - from as i32;
    let mut i = 0;
    while shares[i].mask != 0 && !(shares[i].high == high && shares[i].turned == turned && shares[i].shift == shift) {
        i += 1;
    }
    shares[i] = Share { high, turned, shift, mask: shares[i].mask | 1 << to };
}

/// Bytes of 16 rows, four of each in a vector.
#[repr(C, align(64))]
struct Turned([[u8; VECTOR_BYTES]; MAX_TURNED]);

impl Turned {
    const ZERO: Turned = Turned([[0; VECTOR_BYTES]; MAX_TURNED]);

    /// Shifts the bits of half of the vectors right.
    #[inline(always)]
    fn shift<I: Isa>(&mut self, isa: I, half: usize, bits: u32) {
        for vector in &mut self.0[half * MAX_TURNED / 2..][..MAX_TURNED / 2] {
            for at in (0..VECTOR_BYTES).step_by(I::LANES * 4) {
                // SAFETY: a register of the vector.
                unsafe {
                    let register = vector.as_mut_ptr().add(at);
                    isa.store(register, isa.shr(isa.load(register), bits));
                }
            }
        }
    }
}

/// Packs the codes of the blocks' planes, unit `u` at `out(u)`, or none if the format has no planes.
///
/// # Safety
/// Tiles of `F` have such units, and they are writable.
#[inline(always)]
pub(super) unsafe fn pack_planes<F: QuantBlock, I: Isa, const BITS: u32, const GROUP: usize>(
    isa: I,
    blocks: &RowBlocks<'_, F, I>,
    out: impl Fn(usize) -> *mut u8,
) {
    let Some(Planes { low: plane, high: high_plane }) = (const { planes_of::<F>() }) else { return };
    let (mut low, mut high) = (Turned::ZERO, Turned::ZERO);
    // SAFETY: planes lie inside a block, and units of chunks inside a tile.
    unsafe {
        if let Some(plane) = high_plane {
            blocks.turn(plane.at, BLOCK / 8 * plane.bits as usize, high.0.as_mut_ptr().cast(), same);
        }
        for chunk in 0..BLOCK / plane.span() {
            blocks.turn(plane.at + chunk * plane.stride, plane.stride, low.0.as_mut_ptr().cast(), same);
            // Its high bits start the bytes of half of the vectors, or of all.
            let half = match high_plane {
                Some(high) => (high.place(chunk * plane.span()).0 - high.at) / 32,
                None => 0,
            };
            let planes = (&low, high.0.as_ptr().add(half * MAX_TURNED / 2));
            let units = Units { first: chunk * Packing::<F, BITS, GROUP>::UNITS, out: &out };
            for at in (0..VECTOR_BYTES).step_by(I::LANES * 4) {
                // No loop of all, which would not be unrolled: where the bits of a vector come from is known.
                const { assert!(MAX_PACKED == 24) };
                pack_vectors::<F, I, _, BITS, GROUP, 0>(isa, planes, at, &units);
                pack_vectors::<F, I, _, BITS, GROUP, 4>(isa, planes, at, &units);
                pack_vectors::<F, I, _, BITS, GROUP, 8>(isa, planes, at, &units);
                pack_vectors::<F, I, _, BITS, GROUP, 12>(isa, planes, at, &units);
                pack_vectors::<F, I, _, BITS, GROUP, 16>(isa, planes, at, &units);
                pack_vectors::<F, I, _, BITS, GROUP, 20>(isa, planes, at, &units);
            }
            if let Some(plane_of_high) = high_plane {
                let chunk_bits = plane.span() as u32 / 32 * plane_of_high.bits;
                if chunk_bits < 8 {
                    high.shift(isa, half, chunk_bits);
                }
            }
        }
    }
}

/// Where the units of a chunk lie.
struct Units<'a, O> {
    first: usize,
    out: &'a O,
}

/// Packs four vectors of a chunk from number `FIRST` on, or as many of them as there are, the register at byte `at` of each.
///
/// # Safety
/// As [`pack_planes`], of the turned chunk and its high bits, and a register lies there.
#[inline(always)]
unsafe fn pack_vectors<
    F: QuantBlock,
    I: Isa,
    O: Fn(usize) -> *mut u8,
    const BITS: u32,
    const GROUP: usize,
    const FIRST: usize,
>(
    isa: I,
    (low, high): (&Turned, *const [u8; VECTOR_BYTES]),
    at: usize,
    units: &Units<'_, O>,
) {
    let unit_vectors = Packing::<F, BITS, GROUP>::UNIT_VECTORS;
    for vector in FIRST..(Packing::<F, BITS, GROUP>::UNITS * unit_vectors).min(FIRST + 4) {
        let mut packed = isa.splat(0);
        // SAFETY: the caller's promise; a share's vector is one of those turned.
        unsafe {
            for share in &Packing::<F, BITS, GROUP>::SHARES[vector] {
                if share.mask == 0 {
                    break;
                }
                let from = if share.high { high } else { low.0.as_ptr() };
                let bytes = isa.load(from.add(share.turned).cast::<u8>().add(at));
                let moved = if share.shift < 0 {
                    isa.shr(bytes, -share.shift as u32)
                } else {
                    isa.shl(bytes, share.shift as u32)
                };
                packed = isa.or(packed, isa.and(moved, isa.splat(i32::from_le_bytes([share.mask; 4]))));
            }
            let unit = (units.out)(units.first + vector / unit_vectors);
            isa.store(unit.add(vector % unit_vectors * VECTOR_BYTES + at), packed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::{BlockCodes, Plane, Q2K, Q3K, Q4K, Q5K, Q6K},
        kernel::{SuperTile, Tile, pack::pack_unit},
        simd::{IsaTask, Level, PANEL_ROWS},
    };
    use alloc::{vec, vec::Vec};

    /// A format of `LOW` bits in chunks of `STRIDE` bytes and `HIGH` others.
    #[derive(Debug, Clone, Copy)]
    struct Planed<T, const LOW: u32, const STRIDE: usize, const HIGH: u32>(PhantomData<T>);

    impl<T, const LOW: u32, const STRIDE: usize, const HIGH: u32> Default for Planed<T, LOW, STRIDE, HIGH> {
        fn default() -> Self {
            Planed(PhantomData)
        }
    }

    impl<T: Tile, const LOW: u32, const STRIDE: usize, const HIGH: u32> QuantBlock for Planed<T, LOW, STRIDE, HIGH> {
        const NAME: &'static str = "planed";
        const BLOCK: usize = BLOCK;
        type Block = [u8; 256];
        type Tile = T;
        const PLANES: Option<Planes> = Some(Planes {
            low: Plane { at: 70, bits: LOW, stride: STRIDE },
            high: if HIGH == 0 { None } else { Some(Plane { at: 3, bits: HIGH, stride: 32 }) },
        });

        fn dequantize(_: &Self::Block, _: &mut [f32]) {}

        fn quantize(_: &[f32], _: Option<&[f32]>, _: &mut [Self::Block]) {}

        fn codes(block: &Self::Block, out: &mut BlockCodes) {
            let Some(Planes { low, high }) = Self::PLANES else { return };
            for (i, code) in out.codes.iter_mut().enumerate() {
                let bits = |plane: Plane| {
                    let (byte, bit) = plane.place(i);
                    block[byte] >> bit & plane.mask()
                };
                *code = bits(low) | high.map_or(0, |high| bits(high) << LOW);
            }
        }
    }

    /// The codes of a block of 16 rows, from its planes or from integer views.
    struct Pack<'a, F: QuantBlock, const BITS: u32, const GROUP: usize>(&'a [&'a [F::Block]; PANEL_ROWS], bool);

    impl<F: QuantBlock, const BITS: u32, const GROUP: usize> IsaTask for Pack<'_, F, BITS, GROUP> {
        type Output = Vec<u8>;

        fn run<I: Isa>(self, isa: I) -> Vec<u8> {
            let Pack(rows, from_planes) = self;
            let mut units = vec![0xA5; BLOCK / 8 * BITS as usize * PANEL_ROWS];
            let start = units.as_mut_ptr();
            let out = |unit: usize| start.wrapping_add(unit * unit_bytes(BITS, GROUP));
            let mut views = [BlockCodes::default(); PANEL_ROWS];
            for (row, view) in rows.iter().zip(&mut views) {
                F::codes(&row[1], view);
            }
            // SAFETY: all rows have a second block, and there is room for its units.
            unsafe {
                if from_planes {
                    pack_planes::<F, I, BITS, GROUP>(isa, &RowBlocks::new(isa, rows, 1), out);
                } else {
                    for unit in 0..BLOCK / UNIT_CODES / unit_runs(BITS, GROUP) {
                        pack_unit::<I, BITS, GROUP>(isa, &views, None, unit, out(unit));
                    }
                }
            }
            units
        }
    }

    fn matches_codes<F: QuantBlock, const BITS: u32, const GROUP: usize>() {
        let bytes: Vec<u8> =
            (0..2 * PANEL_ROWS * size_of::<F::Block>()).map(|i| (i * 151 + i / 7 + i / 977) as u8).collect();
        let blocks: &[F::Block] = bytemuck::cast_slice(&bytes);
        let mut rows = [&blocks[..0]; PANEL_ROWS];
        for (row, blocks) in rows.iter_mut().zip(blocks.chunks_exact(2)) {
            *row = blocks;
        }
        let expected = Level::Scalar.dispatch(Pack::<F, BITS, GROUP>(&rows, false));
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            let packed = level.dispatch(Pack::<F, BITS, GROUP>(&rows, true));
            assert!(packed == expected, "{} of {BITS} bits by {}", F::NAME, level.name());
        }
    }

    #[test]
    fn planes_are_packed_as_their_codes_are() {
        matches_codes::<Q2K, 2, 16>();
        matches_codes::<Q3K, 3, 16>();
        matches_codes::<Q4K, 4, 32>();
        matches_codes::<Q5K, 5, 32>();
        matches_codes::<Q6K, 6, 16>();
    }

    #[test]
    fn so_are_all_that_a_format_may_have() {
        type Bits<const BITS: u32, const GROUP: usize> = SuperTile<BITS, 0, GROUP, 8, 0, false>;
        matches_codes::<Planed<Bits<2, 32>, 2, 32, 0>, 2, 32>();
        matches_codes::<Planed<Bits<3, 32>, 2, 32, 1>, 3, 32>();
        matches_codes::<Planed<Bits<4, 16>, 2, 32, 2>, 4, 16>();
        matches_codes::<Planed<Bits<4, 32>, 4, 64, 0>, 4, 32>();
        matches_codes::<Planed<Bits<5, 32>, 4, 64, 1>, 5, 32>();
        matches_codes::<Planed<Bits<6, 32>, 4, 32, 2>, 6, 32>();
    }
}
