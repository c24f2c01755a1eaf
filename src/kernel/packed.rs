//! How small integers of 16 rows lie packed, and how they come back in registers.
//!
//! The unit is 32 codes of 16 rows: 8 steps of one vector (4 codes of each row), in `BITS` vectors. A vector's bytes hold as
//! many whole codes as fit, and the bits that are left at the top of them hold what is left of the eight steps, in pieces:
//! of 3 bits two codes and two bits, of 5 one and three, of 6 one and two. A whole code costs a shift and a mask, a piece one
//! more instruction: 19, 23 and 22 for a unit of 3, 5 and 6 bits, where planes of 4, 2 and 1 bits would cost 37, 35 and 36.
//!
//! Of 2 and 3 bits in groups of 16 it is 128 codes, each group of which has one place in the bytes of four vectors: multiplied
//! where they stand, its codes cost a mask each, and all of them a shift.
//!
//! Group scales and minima are pairs of 16-bit halves in the lanes of the rows (what an i16 dot multiplies), `BITS` wide, in
//! planes: 4 pairs to a vector of the 4-bit plane, 8 to one of the 2-bit plane.

use crate::simd::{Isa, VECTOR_BYTES};

/// Steps (vectors of codes) in a unit.
pub const UNIT_STEPS: usize = 8;
/// Codes of each row in a unit.
pub const UNIT_CODES: usize = 32;
/// Runs of as many steps in a long unit.
pub const LONG_RUNS: usize = 4;

/// Runs of eight steps in a unit of codes of `bits` in groups of `group`.
#[inline(always)]
pub const fn unit_runs(bits: u32, group: usize) -> usize {
    if group == 16 && (bits == 2 || bits == 3) { LONG_RUNS } else { 1 }
}

/// Bytes of a unit.
#[inline(always)]
pub const fn unit_bytes(bits: u32, group: usize) -> usize {
    unit_runs(bits, group) * bits as usize * VECTOR_BYTES
}

/// A unit of codes of `BITS` in groups of `GROUP`. Its tables are references: a table by itself would be copied, and made
/// again, by every kernel that looks something up.
pub struct Unit<const BITS: u32, const GROUP: usize>;

impl<const BITS: u32, const GROUP: usize> Unit<BITS, GROUP> {
    /// Where the codes of each step lie; only the first of a long unit's steps are those of others.
    const LAYOUT: &'static [Pieces; LONG_RUNS * UNIT_STEPS] = &layout(BITS, GROUP);
    /// What each vector holds: the pieces of the layout.
    pub const CONTENTS: &'static [Pieces; MAX_VECTORS] = &contents(&layout(BITS, GROUP));
    /// For each step the highest place in its bytes that its codes may have without a piece of them being moved up.
    pub const PLACES: &'static [u32; LONG_RUNS * UNIT_STEPS] = &places(BITS, &layout(BITS, GROUP));
}

/// Some bits of a step's codes.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Which of the unit's steps they are of.
    pub step: usize,
    /// Which of the unit's vectors has them.
    pub vector: usize,
    /// Their first bit in the vector's bytes, at or above that in the codes.
    pub from: u32,
    /// Their first bit in the codes.
    pub to: u32,
    /// How many bits.
    pub width: u32,
}

/// The pieces of a step, or of a vector; those behind the last have no bits.
pub type Pieces = [Piece; 8];

const NONE: Pieces = [Piece { step: 0, vector: 0, from: 0, to: 0, width: 0 }; 8];
/// Vectors of a unit, at most.
pub const MAX_VECTORS: usize = 12;

/// [`Unit::LAYOUT`].
const fn layout(bits: u32, group: usize) -> [Pieces; LONG_RUNS * UNIT_STEPS] {
    let mut steps = [NONE; LONG_RUNS * UNIT_STEPS];
    let mut step = 0;
    while step < unit_runs(bits, group) * UNIT_STEPS {
        steps[step] = if unit_runs(bits, group) == 1 { pieces(bits, step) } else { long_pieces(bits, step) };
        step += 1;
    }
    steps
}

/// [`layout`] of one step of a long unit of 2 or 3 bits. Each field of the first eight vectors holds the whole codes of a run.
/// Of 3 bits, which leave room for two fields and two bits, four more vectors hold the third run in theirs; the two bits are the
/// last run's, the upper two of its codes in the first eight vectors, the lowest ones in the other four.
const fn long_pieces(bits: u32, step: usize) -> Pieces {
    const FIRST: usize = UNIT_STEPS;
    const OTHERS: usize = UNIT_STEPS / 2;
    let mut pieces = NONE;
    let (run, i) = (step / UNIT_STEPS, step % UNIT_STEPS);
    if run < 8 / bits as usize {
        pieces[0] = Piece { step, vector: i, from: run as u32 * bits, to: 0, width: bits };
    } else if run == 2 {
        pieces[0] = Piece { step, vector: FIRST + i % OTHERS, from: (i / OTHERS) as u32 * bits, to: 0, width: bits };
    } else {
        pieces[0] = Piece { step, vector: i, from: 6, to: 1, width: 2 };
        pieces[1] = Piece { step, vector: FIRST + i % OTHERS, from: 6 + (i / OTHERS) as u32, to: 0, width: 1 };
    }
    pieces
}

/// [`Unit::CONTENTS`].
const fn contents(layout: &[Pieces; LONG_RUNS * UNIT_STEPS]) -> [Pieces; MAX_VECTORS] {
    let mut contents = [NONE; MAX_VECTORS];
    let mut counts = [0; MAX_VECTORS];
    let mut i = 0;
    while i < layout.len() * 8 {
        let piece = layout[i / 8][i % 8];
        if piece.width != 0 {
            contents[piece.vector][counts[piece.vector]] = piece;
            counts[piece.vector] += 1;
        }
        i += 1;
    }
    contents
}

/// [`Unit::PLACES`].
const fn places(bits: u32, layout: &[Pieces; LONG_RUNS * UNIT_STEPS]) -> [u32; LONG_RUNS * UNIT_STEPS] {
    let mut places = [8 - bits; LONG_RUNS * UNIT_STEPS];
    let mut step = 0;
    while step < places.len() {
        let mut i = 0;
        while i < 8 {
            let Piece { from, to, width, .. } = layout[step][i];
            if width != 0 && from - to < places[step] {
                places[step] = from - to;
            }
            i += 1;
        }
        step += 1;
    }
    places
}

/// [`layout`] of one step. Each half of the unit, a group of 16, has half of the whole codes, so that it reads few vectors.
const fn pieces(bits: u32, step: usize) -> Pieces {
    const HALF: usize = UNIT_STEPS / 2;
    let mut pieces = NONE;
    let in_vector = 8 / bits;
    let left = 8 - in_vector * bits;
    let whole = (bits * in_vector) as usize;
    let first_half = whole.div_ceil(2);
    let (half, i) = (step / HALF, step % HALF);
    let wholes = if half == 0 { first_half } else { whole - first_half };
    if i < wholes {
        let index = (half * first_half + i) as u32;
        let vector = (index / in_vector) as usize;
        pieces[0] = Piece { step, vector, from: index % in_vector * bits, to: 0, width: bits };
        return pieces;
    }
    let split = (half * (HALF - first_half) + i - wholes) as u32;
    let (mut to, mut count) = (0, 0);
    while to < bits {
        let at = split * bits + to;
        let room = left - at % left;
        let width = if room < bits - to { room } else { bits - to };
        let from = in_vector * bits + at % left;
        pieces[count] = Piece { step, vector: (at / left) as usize, from, to, width };
        to += width;
        count += 1;
    }
    pieces
}

/// `width` ones from bit `at` of each byte on.
#[inline(always)]
pub const fn byte_mask(width: u32, at: u32) -> i32 {
    (0x0101_0101 * (((1u32 << width) - 1) << at)) as i32
}

/// Step `step` of the codes of a unit, from bit `at` of their bytes on, which is no higher than their place in [`Unit::PLACES`].
///
/// # Safety
/// `unit` points to a unit of `BITS` in groups of `GROUP`, plus the offset of the register's rows.
#[inline(always)]
pub unsafe fn unpack_step<I: Isa, const BITS: u32, const GROUP: usize>(
    isa: I,
    unit: *const u8,
    step: usize,
    at: u32,
) -> I::V {
    let mut codes = isa.splat(0);
    for &Piece { vector, from, to, width, .. } in &Unit::<BITS, GROUP>::LAYOUT[step] {
        if width == 0 {
            break;
        }
        // SAFETY: the vectors lie inside the unit.
        let v = unsafe { isa.load(unit.add(vector * VECTOR_BYTES)) };
        codes = isa.or(codes, isa.and(isa.shr(v, from - to - at), isa.splat(byte_mask(width, to + at))));
    }
    codes
}

/// One row's code `i` of a packed unit of `BITS` in groups of `GROUP`.
#[inline]
pub fn unpack_code<const BITS: u32, const GROUP: usize>(unit: &[u8], row: usize, i: usize) -> u8 {
    let byte = row * 4 + i % 4;
    let mut code = 0;
    for &Piece { vector, from, to, width, .. } in &Unit::<BITS, GROUP>::LAYOUT[i / 4] {
        if width == 0 {
            break;
        }
        code |= ((unit[vector * VECTOR_BYTES + byte] >> from) as u32 & ((1 << width) - 1)) << to;
    }
    code as u8
}

/// How many pairs of `bits` lie in a vector, or their low bits.
pub const fn pairs_in_vector(bits: u32) -> usize {
    if bits == 8 { 2 } else { 4 }
}

/// How many vectors hold `pairs` pairs of `bits` (0, 4, 6 or 8), or their low bits.
pub const fn low_vectors(bits: u32, pairs: usize) -> usize {
    if bits == 0 { 0 } else { pairs.div_ceil(pairs_in_vector(bits)) }
}

/// How many vectors hold the high bits of `pairs` pairs, which are numbered behind those of the low bits.
pub const fn high_vectors(bits: u32, pairs: usize) -> usize {
    if bits == 6 { pairs.div_ceil(8) } else { 0 }
}

/// Bytes of `pairs` packed pairs of `bits`.
#[cfg(test)]
pub const fn pairs_bytes(bits: u32, pairs: usize) -> usize {
    (low_vectors(bits, pairs) + high_vectors(bits, pairs)) * VECTOR_BYTES
}

/// Pair `index` of those whose values are the bytes of lanes, four of them in each: in the halves of the lane.
#[inline(always)]
pub fn pair_of_four<I: Isa>(isa: I, four: I::V, index: usize) -> I::V {
    let two = isa.shr(four, 16 * (index % 2) as u32);
    isa.or(isa.and(two, isa.splat(0xFF)), isa.shl(isa.and(two, isa.splat(0xFF00)), 8))
}

/// Pair `index` of `pairs`: two small integers in the halves of each lane. `vector(i)` is where vector `i` of the pairs lies.
///
/// # Safety
/// The vectors hold packed pairs, of which a register is read.
#[inline(always)]
pub unsafe fn unpack_pair<I: Isa, const BITS: u32>(
    isa: I,
    vector: impl Fn(usize) -> *const u8,
    pairs: usize,
    index: usize,
) -> I::V {
    // SAFETY: the pairs have these vectors.
    unsafe {
        if const { BITS == 8 } {
            let v = isa.load(vector(index / 2));
            return isa.and(isa.shr(v, 8 * (index % 2) as u32), isa.splat(0x00FF_00FF));
        }
        let v = isa.load(vector(index / 4));
        let low = isa.and(isa.shr(v, 4 * (index % 4) as u32), isa.splat(0x000F_000F));
        if const { BITS == 4 } {
            return low;
        }
        let v = isa.load(vector(low_vectors(BITS, pairs) + index / 8));
        // To bit 4 of the halves.
        let at = 2 * (index % 8) as u32;
        let high = if at < 4 { isa.shl(v, 4 - at) } else { isa.shr(v, at - 4) };
        isa.or(low, isa.and(high, isa.splat(0x0030_0030)))
    }
}

/// Packs `pairs` pairs: `value(row, i)` gives the row's i-th small integer. `out` is zeroed.
#[cfg(test)]
pub fn pack_pairs(bits: u32, pairs: usize, value: impl Fn(usize, usize) -> u32, out: &mut [u8]) {
    let mut or = |vector: usize, row: usize, half: usize, field: u32| {
        let at = vector * VECTOR_BYTES + row * 4 + half * 2;
        let bits = u16::from_le_bytes([out[at], out[at + 1]]) | field as u16;
        out[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    };
    for row in 0..crate::simd::PANEL_ROWS {
        for i in 0..2 * pairs {
            let (index, half, v) = (i / 2, i % 2, value(row, i));
            if bits == 8 {
                or(index / 2, row, half, (v & 255) << (8 * (index % 2)));
            } else {
                or(index / 4, row, half, (v & 15) << (4 * (index % 4)));
                if bits == 6 {
                    or(low_vectors(bits, pairs) + index / 8, row, half, ((v >> 4) & 3) << (2 * (index % 8)));
                }
            }
        }
    }
}

/// One row's small integer `i` of packed pairs, vector `v` of which is at `start(v)` of `packed`.
pub fn unpack_value(
    bits: u32,
    pairs: usize,
    (packed, start): (&[u8], impl Fn(usize) -> usize),
    row: usize,
    i: usize,
) -> i16 {
    let (index, half) = (i / 2, i % 2);
    let field = |vector: usize| {
        let at = start(vector) + row * 4 + half * 2;
        u16::from_le_bytes([packed[at], packed[at + 1]])
    };
    let value = match bits {
        8 => (field(index / 2) >> (8 * (index % 2))) & 255,
        _ => (field(index / 4) >> (4 * (index % 4))) & 15,
    };
    let high = if bits == 6 { (field(low_vectors(bits, pairs) + index / 8) >> (2 * (index % 8))) & 3 } else { 0 };
    (value | high << 4) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::BlockCodes,
        kernel::pack::pack_unit,
        simd::{PANEL_ROWS, Scalar},
    };
    use alloc::vec;

    fn round_trip<const BITS: u32, const GROUP: usize>() {
        let mut blocks = [BlockCodes::default(); PANEL_ROWS];
        for (row, block) in blocks.iter_mut().enumerate() {
            for (i, code) in block.codes.iter_mut().enumerate() {
                *code = (row * 37 + i * 101 + 5) as u8 & ((1u32 << BITS) - 1) as u8;
            }
        }
        let (codes, mut unit) = (unit_runs(BITS, GROUP) * UNIT_CODES, vec![0; unit_bytes(BITS, GROUP)]);
        // SAFETY: the unit is whole.
        unsafe { pack_unit::<_, BITS, GROUP>(Scalar, &blocks, None, 0, unit.as_mut_ptr()) };
        for (row, block) in blocks.iter().enumerate() {
            for (i, &code) in block.codes[..codes].iter().enumerate() {
                assert_eq!(unpack_code::<BITS, GROUP>(&unit, row, i), code, "bits {BITS}");
            }
        }
        for (quarter, step) in (0..4).flat_map(|quarter| (0..codes / 4).map(move |step| (quarter, step))) {
            for at in 0..=Unit::<BITS, GROUP>::PLACES[step] {
                // SAFETY: `unit` is a whole unit, a register holds a quarter of its rows.
                let lanes = unsafe { unpack_step::<_, BITS, GROUP>(Scalar, unit.as_ptr().add(quarter * 16), step, at) };
                for (lane, codes) in lanes.iter().enumerate() {
                    let row = &blocks[quarter * 4 + lane].codes[step * 4..][..4];
                    assert!(
                        codes.to_le_bytes().iter().zip(row).all(|(&found, &code)| found == code << at),
                        "bits {BITS}"
                    );
                }
            }
        }
    }

    #[test]
    fn groups_of_long_units_have_one_place() {
        let two = (Unit::<2, 16>::PLACES, [0, 0, 2, 2, 4, 4, 6, 6]);
        let three = (Unit::<3, 16>::PLACES, [0, 0, 3, 3, 0, 3, 5, 5]);
        for (places, of_groups) in [two, three] {
            for (step, &place) in places.iter().enumerate() {
                assert_eq!(place, of_groups[step / 4], "step {step} of {places:?}");
            }
        }
    }

    #[test]
    fn units_round_trip() {
        round_trip::<1, 32>();
        round_trip::<2, 32>();
        round_trip::<3, 32>();
        round_trip::<4, 32>();
        round_trip::<5, 32>();
        round_trip::<6, 32>();
        round_trip::<7, 32>();
        round_trip::<8, 32>();
        round_trip::<2, 16>();
        round_trip::<3, 16>();
    }

    fn pairs_round_trip<const BITS: u32>(pairs: usize) {
        let value = |row: usize, i: usize| ((row * 29 + i * 13 + 7) as u32) & ((1 << BITS) - 1);
        let mut packed = vec![0; pairs_bytes(BITS, pairs)];
        pack_pairs(BITS, pairs, value, &mut packed);
        for quarter in 0..4 {
            for index in 0..pairs {
                // SAFETY: `packed` holds all pairs, a register holds a quarter of its rows.
                let vector = |v: usize| packed[v * VECTOR_BYTES + quarter * 16..].as_ptr();
                let v = unsafe { unpack_pair::<_, BITS>(Scalar, vector, pairs, index) };
                for (lane, both) in v.into_iter().enumerate() {
                    let row = quarter * 4 + lane;
                    let second = unpack_value(BITS, pairs, (&packed, |v| v * VECTOR_BYTES), row, 2 * index + 1);
                    assert_eq!(second as u32, value(row, 2 * index + 1));
                    assert_eq!(both as u32, value(row, 2 * index) | value(row, 2 * index + 1) << 16, "bits {BITS}");
                }
            }
        }
    }

    #[test]
    fn pairs_of_scales_round_trip() {
        pairs_round_trip::<4>(16);
        pairs_round_trip::<6>(8);
        pairs_round_trip::<6>(4);
        pairs_round_trip::<8>(8);
    }
}
