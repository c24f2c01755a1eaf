//! Bit planes: how small integers of 16 rows lie packed, and how they come back in registers.
//!
//! The unit is 32 codes of 16 rows: 8 steps of one vector (4 codes of each row). A vector of the 4-bit plane holds the
//! low nibbles of step `j` and, above them, those of step `j + 4`; a vector of the 2-bit plane holds 4 steps, one of the
//! 1-bit plane all 8. A code of 6 bits is 4 + 2, of 5 is 4 + 1, of 3 is 2 + 1, so a unit takes `BITS · 64` bytes.
//!
//! Group scales and minima are pairs of 16-bit halves in the lanes of the rows (what an i16 dot multiplies), `BITS` wide,
//! in planes of the same kind: 4 pairs to a vector of the 4-bit plane, 8 to one of the 2-bit plane.

use crate::simd::{Isa, VECTOR_BYTES};

/// Steps (vectors of codes) in a unit.
pub const UNIT_STEPS: usize = 8;
/// Codes of each row in a unit.
pub const UNIT_CODES: usize = 32;

/// Bytes of a unit.
#[inline(always)]
pub const fn unit_bytes(bits: u32) -> usize {
    bits as usize * VECTOR_BYTES
}

/// The codes of a unit, a register for each step.
///
/// # Safety
/// `unit` points to a unit of `BITS`, plus the offset of the register's rows.
#[inline(always)]
pub unsafe fn unpack_unit<I: Isa, const BITS: u32>(isa: I, unit: *const u8) -> [I::V; UNIT_STEPS] {
    let mut out = [isa.splat(0); UNIT_STEPS];
    // SAFETY: all vectors read lie inside the unit's BITS · 64 bytes.
    unsafe {
        if BITS == 8 {
            for (step, codes) in out.iter_mut().enumerate() {
                *codes = isa.load(unit.add(step * VECTOR_BYTES));
            }
            return out;
        }
        let mut plane = unit;
        if BITS & 4 != 0 {
            let mask = isa.splat(0x0F0F_0F0F);
            for j in 0..4 {
                let v = isa.load(plane.add(j * VECTOR_BYTES));
                out[j] = isa.and(v, mask);
                out[j + 4] = isa.and(isa.shr(v, 4), mask);
            }
            plane = plane.add(4 * VECTOR_BYTES);
        }
        if BITS & 2 != 0 {
            let at = BITS & 4;
            let mask = isa.splat(0x0303_0303 << at);
            for j in 0..2 {
                let v = isa.load(plane.add(j * VECTOR_BYTES));
                for s in 0..4 {
                    let shift = 2 * s as u32;
                    let moved = if shift >= at { isa.shr(v, shift - at) } else { isa.shl(v, at - shift) };
                    out[j * 4 + s] = isa.or(out[j * 4 + s], isa.and(moved, mask));
                }
            }
            plane = plane.add(2 * VECTOR_BYTES);
        }
        if BITS & 1 != 0 {
            let at = BITS & 6;
            let mask = isa.splat(0x0101_0101 << at);
            let v = isa.load(plane);
            for (s, codes) in out.iter_mut().enumerate() {
                let shift = s as u32;
                let moved = if shift >= at { isa.shr(v, shift - at) } else { isa.shl(v, at - shift) };
                *codes = isa.or(*codes, isa.and(moved, mask));
            }
        }
    }
    out
}

/// Packs the codes of a unit: `codes(row)` gives the row's 32 codes. `out` is a unit.
///
/// A step's four codes of a row move as one u32, as they do in the lanes of [`unpack_unit`].
#[cfg(test)]
pub fn pack_unit<'a>(bits: u32, codes: impl Fn(usize) -> &'a [u8; UNIT_CODES], out: &mut [u8]) {
    for row in 0..crate::simd::PANEL_ROWS {
        let codes = codes(row).as_chunks::<4>().0;
        let step = |s: usize| u32::from_le_bytes(codes[s]);
        let mut vectors = out.chunks_exact_mut(VECTOR_BYTES);
        let mut put = |word: u32| {
            if let Some(vector) = vectors.next() {
                vector[row * 4..][..4].copy_from_slice(&word.to_le_bytes());
            }
        };
        if bits == 8 {
            (0..UNIT_STEPS).for_each(|s| put(step(s)));
            continue;
        }
        if bits & 4 != 0 {
            (0..4).for_each(|j| put(step(j) & 0x0F0F_0F0F | (step(j + 4) & 0x0F0F_0F0F) << 4));
        }
        if bits & 2 != 0 {
            let crumb = |s: usize| (step(s) >> (bits & 4) & 0x0303_0303) << (2 * (s % 4));
            (0..2).for_each(|j| put((4 * j..4 * j + 4).fold(0, |word, s| word | crumb(s))));
        }
        if bits & 1 != 0 {
            put((0..UNIT_STEPS).fold(0, |word, s| word | (step(s) >> (bits & 6) & 0x0101_0101) << s));
        }
    }
}

/// One row's code of a packed unit: code `i` of 32.
pub fn unpack_code(bits: u32, unit: &[u8], row: usize, i: usize) -> u8 {
    let (step, byte) = (i / 4, row * 4 + i % 4);
    if bits == 8 {
        return unit[step * VECTOR_BYTES + byte];
    }
    let (mut plane, mut code) = (0, 0);
    if bits & 4 != 0 {
        code = (unit[(step % 4) * VECTOR_BYTES + byte] >> (4 * (step / 4))) & 15;
        plane += 4;
    }
    if bits & 2 != 0 {
        let crumb = (unit[(plane + step / 4) * VECTOR_BYTES + byte] >> (2 * (step % 4))) & 3;
        code |= crumb << (bits & 4);
        plane += 2;
    }
    if bits & 1 != 0 {
        code |= ((unit[plane * VECTOR_BYTES + byte] >> step) & 1) << (bits & 6);
    }
    code
}

/// Bytes of `pairs` packed pairs of `bits` (0, 4, 6 or 8): whole vectors of each plane.
#[inline(always)]
pub const fn pairs_bytes(bits: u32, pairs: usize) -> usize {
    let vectors = match bits {
        0 => 0,
        4 => pairs.div_ceil(4),
        6 => pairs.div_ceil(4) + pairs.div_ceil(8),
        _ => pairs.div_ceil(2),
    };
    vectors * VECTOR_BYTES
}

/// Pair `index` of `pairs`: two small integers in the halves of each lane.
///
/// # Safety
/// `at` points to packed pairs, plus the offset of the register's rows.
#[inline(always)]
pub unsafe fn unpack_pair<I: Isa, const BITS: u32>(isa: I, at: *const u8, pairs: usize, index: usize) -> I::V {
    // SAFETY: all vectors read lie inside the `pairs_bytes` at `at`.
    unsafe {
        if BITS == 8 {
            let v = isa.load(at.add(index / 2 * VECTOR_BYTES));
            return isa.and(isa.shr(v, 8 * (index % 2) as u32), isa.splat(0x00FF_00FF));
        }
        let v = isa.load(at.add(index / 4 * VECTOR_BYTES));
        let low = isa.and(isa.shr(v, 4 * (index % 4) as u32), isa.splat(0x000F_000F));
        if BITS == 4 {
            return low;
        }
        let v = isa.load(at.add((pairs.div_ceil(4) + index / 8) * VECTOR_BYTES));
        let high = isa.and(isa.shr(v, 2 * (index % 8) as u32), isa.splat(0x0003_0003));
        isa.or(low, isa.shl(high, 4))
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
                    or(pairs.div_ceil(4) + index / 8, row, half, ((v >> 4) & 3) << (2 * (index % 8)));
                }
            }
        }
    }
}

/// One row's small integer `i` of packed pairs.
pub fn unpack_value(bits: u32, pairs: usize, packed: &[u8], row: usize, i: usize) -> i16 {
    let (index, half) = (i / 2, i % 2);
    let field = |vector: usize| {
        let at = vector * VECTOR_BYTES + row * 4 + half * 2;
        u16::from_le_bytes([packed[at], packed[at + 1]])
    };
    let value = match bits {
        8 => (field(index / 2) >> (8 * (index % 2))) & 255,
        _ => (field(index / 4) >> (4 * (index % 4))) & 15,
    };
    let high = if bits == 6 { (field(pairs.div_ceil(4) + index / 8) >> (2 * (index % 8))) & 3 } else { 0 };
    (value | high << 4) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{PANEL_ROWS, Scalar};
    use alloc::vec;

    fn round_trip<const BITS: u32>() {
        let mask = ((1u32 << BITS) - 1) as u8;
        let rows: [[u8; UNIT_CODES]; PANEL_ROWS] =
            core::array::from_fn(|r| core::array::from_fn(|i| ((r * 37 + i * 101 + 5) as u8) & mask));
        let mut unit = vec![0; unit_bytes(BITS)];
        pack_unit(BITS, |row| &rows[row], &mut unit);
        for (row, codes) in rows.iter().enumerate() {
            for (i, &code) in codes.iter().enumerate() {
                assert_eq!(unpack_code(BITS, &unit, row, i), code, "bits {BITS}");
            }
        }
        for quarter in 0..4 {
            // SAFETY: `unit` is a whole unit, a register holds a quarter of its rows.
            let steps = unsafe { unpack_unit::<_, BITS>(Scalar, unit.as_ptr().add(quarter * 16)) };
            for (step, lanes) in steps.iter().enumerate() {
                for (lane, codes) in lanes.iter().enumerate() {
                    assert_eq!(codes.to_le_bytes(), rows[quarter * 4 + lane][step * 4..step * 4 + 4], "bits {BITS}");
                }
            }
        }
    }

    #[test]
    fn units_round_trip() {
        round_trip::<1>();
        round_trip::<2>();
        round_trip::<3>();
        round_trip::<4>();
        round_trip::<5>();
        round_trip::<6>();
        round_trip::<8>();
    }

    fn pairs_round_trip<const BITS: u32>(pairs: usize) {
        let value = |row: usize, i: usize| ((row * 29 + i * 13 + 7) as u32) & ((1 << BITS) - 1);
        let mut packed = vec![0; pairs_bytes(BITS, pairs)];
        pack_pairs(BITS, pairs, value, &mut packed);
        for quarter in 0..4 {
            for index in 0..pairs {
                // SAFETY: `packed` holds all pairs, a register holds a quarter of its rows.
                let v = unsafe { unpack_pair::<_, BITS>(Scalar, packed.as_ptr().add(quarter * 16), pairs, index) };
                for (lane, both) in v.into_iter().enumerate() {
                    let row = quarter * 4 + lane;
                    assert_eq!(
                        unpack_value(BITS, pairs, &packed, row, 2 * index + 1) as u32,
                        value(row, 2 * index + 1)
                    );
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
