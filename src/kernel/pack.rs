//! Packing a panel in registers: what `packed` unpacks.
//!
//! Codes of 16 rows are transposed (lanes are rows), from where they lie in the rows' blocks (planes of superblocks:
//! `turned_planes`) or from integer views, and put together by shifts.

use super::{
    packed::{
        LONG_RUNS, MAX_VECTORS, Piece, UNIT_CODES, UNIT_STEPS, Unit, byte_mask, low_vectors, pair_of_four, unit_bytes,
        unit_runs,
    },
    panel_writer::PanelWriter,
    stream::{LINE_BYTES, ask_for_bursts},
    tile::Tile,
    transpose::{CodesAt, RowBlocks, Steps, UnitSteps, same},
    turned_planes::{pack_planes, planes_of},
};
use crate::{
    QuantBlock,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES, array_of},
};

/// A block of 16 rows (fewer in the last panel; the rest is zeros).
pub(super) struct PanelBlock<'a, F: QuantBlock, I> {
    isa: I,
    rows: &'a [&'a [F::Block]],
    block: usize,
    /// What else is not read from the blocks themselves.
    views: &'a [BlockCodes; PANEL_ROWS],
    codes: Codes<'a, F, I>,
}

/// Where codes are packed from.
enum Codes<'a, F: QuantBlock, I> {
    /// The integer views.
    Views,
    /// Codes with lanes of rows.
    Steps(&'a Steps),
    /// The planes of the blocks.
    Planes(RowBlocks<'a, F, I>),
}

impl<F: QuantBlock, I: Isa> PanelBlock<'_, F, I> {
    /// `d` and `dmin` of row `row`.
    #[inline(always)]
    pub fn scales(&self, row: usize) -> [u32; 2] {
        if const { F::Tile::GROUP < F::BLOCK } {
            let view = &self.views[row];
            return [view.d, view.dmin];
        }
        let Some(row) = self.rows.get(row) else { return [0; 2] };
        F::scales(&row[self.block])
    }

    /// Packs the first `scales` pairs of the groups' scales, then the first `mins` pairs of their minima, in vectors of which
    /// number `v` is at `out(v)`.
    ///
    /// # Safety
    /// The vectors of the packed pairs are writable.
    #[inline(always)]
    pub unsafe fn pack_pairs<const BITS: u32>(&self, scales: usize, mins: usize, out: impl Fn(usize) -> *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { pack_pairs::<I, BITS>(self.isa, self.views, scales, mins, out) }
    }

    /// Packs `units` units of `BITS` in groups of `GROUP`, unit `u` at `out(u)`.
    ///
    /// # Safety
    /// Tiles of `F` have such units, and they are writable.
    #[inline(always)]
    pub unsafe fn pack_codes<const BITS: u32, const GROUP: usize>(&self, units: usize, out: impl Fn(usize) -> *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let steps = match &self.codes {
                Codes::Planes(blocks) => return pack_planes::<F, I, BITS, GROUP>(self.isa, blocks, out),
                Codes::Steps(steps) => Some(*steps),
                Codes::Views => None,
            };
            for unit in 0..units {
                pack_unit::<I, BITS, GROUP>(self.isa, self.views, steps, unit, out(unit));
            }
        }
    }
}

/// The blocks of a panel, one after the other: `pack` makes a tile of their codes and scales.
#[inline(always)]
pub(super) fn pack_blocks<F: QuantBlock, I: Isa>(
    isa: I,
    rows: &[&[F::Block]],
    out: &mut [u8],
    pack: impl Fn(&PanelBlock<'_, F, I>, &mut [u8]),
) {
    let (blocks, mut writer) = (out.len() / F::Tile::TILE_BYTES, PanelWriter::new(out));
    // Rows that are missing stay zero.
    let mut views = [BlockCodes::default(); PANEL_ROWS];
    // Two loops: of one that chose for each block, whole panels of small blocks were packed a fifth slower.
    match <&[&[F::Block]; PANEL_ROWS]>::try_from(rows) {
        Ok(rows) if const { in_place::<F>() } => {
            let mut steps = Steps::ZERO;
            for block in 0..blocks {
                ask_ahead::<F, I>(isa, rows, block);
                // SAFETY: rows are as long as the tiles of `out`, and a block has at most as many steps as there are.
                let codes = unsafe { read_in_place(RowBlocks::new(isa, rows, block), &mut views, &mut steps) };
                let block = PanelBlock { isa, rows, block, views: &views, codes };
                writer.write(
                    isa,
                    F::Tile::TILE_BYTES,
                    #[inline(always)]
                    |tile| pack(&block, tile),
                );
            }
        }
        _ => {
            for block in 0..blocks {
                ask_ahead::<F, I>(isa, rows, block);
                for (row, view) in rows.iter().zip(&mut views) {
                    F::codes(&row[block], view);
                }
                let block = PanelBlock { isa, rows, block, views: &views, codes: Codes::Views };
                writer.write(
                    isa,
                    F::Tile::TILE_BYTES,
                    #[inline(always)]
                    |tile| pack(&block, tile),
                );
            }
        }
    }
}

/// Reads what the views of blocks have to have whose codes come from where they lie, and those that do not lie in planes.
///
/// # Safety
/// There are as many steps as a block has.
#[inline(always)]
unsafe fn read_in_place<'a, F: QuantBlock, I: Isa>(
    blocks: RowBlocks<'a, F, I>,
    views: &mut [BlockCodes; PANEL_ROWS],
    steps: &'a mut Steps,
) -> Codes<'a, F, I> {
    // SAFETY: there are 16 rows; the rest is the caller's promise.
    unsafe {
        if const { F::Tile::GROUP < F::BLOCK } {
            for (row, view) in views.iter_mut().enumerate() {
                blocks.read_scales(row, view);
            }
        }
        if const { planes_of::<F>().is_some() } {
            return Codes::Planes(blocks);
        }
        blocks.codes((&raw mut *steps).cast(), same);
    }
    Codes::Steps(steps)
}

/// Asks, with block `block` of 16 rows, for as much of what is read later.
#[inline(always)]
fn ask_ahead<F: QuantBlock, I: Isa>(isa: I, rows: &[&[F::Block]], block: usize) {
    if rows.len() < PANEL_ROWS {
        return;
    }
    let block_bytes = size_of::<F::Block>();
    let (first, end) = (block * block_bytes, (block + 1) * block_bytes);
    for line in (first.next_multiple_of(LINE_BYTES)..end).step_by(LINE_BYTES) {
        ask_for_bursts(
            isa,
            #[inline(always)]
            |row| rows[row].as_ptr().cast(),
            size_of_val(rows[0]),
            line,
        );
    }
}

/// Whether codes of whole panels come from where they lie: bytes of superblocks come faster by way of the view.
const fn in_place<F: QuantBlock>() -> bool {
    planes_of::<F>().is_some() || F::BLOCK == 32 && !matches!(CodesAt::of::<F>(), CodesAt::View)
}

/// Packs the codes of unit `unit`: those of `steps`, or of the views.
///
/// # Safety
/// The block has the unit, and one of `BITS` in groups of `GROUP` is writable at `out`.
#[inline(always)]
pub(super) unsafe fn pack_unit<I: Isa, const BITS: u32, const GROUP: usize>(
    isa: I,
    views: &[BlockCodes; PANEL_ROWS],
    steps: Option<&Steps>,
    unit: usize,
    out: *mut u8,
) {
    let mut room = [UnitSteps::ZERO; LONG_RUNS];
    let [first_room, others @ ..] = &mut room;
    // SAFETY: the caller vouches for the unit; vectors and registers are inside it.
    unsafe {
        let runs = const { unit_runs(BITS, GROUP) };
        let mut run_steps = [steps_of_run(isa, views, steps, unit * runs, first_room); LONG_RUNS];
        if runs > 1 {
            for (run, room) in others.iter_mut().enumerate() {
                run_steps[run + 1] = steps_of_run(isa, views, steps, unit * runs + run + 1, room);
            }
        }
        for at in (0..VECTOR_BYTES).step_by(I::LANES * 4) {
            // No loop of all, which would not be unrolled: where the bits of a vector come from is known.
            const { assert!(MAX_VECTORS == 12) };
            pack_vectors::<I, BITS, GROUP, 0>(isa, &run_steps, at, out);
            pack_vectors::<I, BITS, GROUP, 4>(isa, &run_steps, at, out);
            pack_vectors::<I, BITS, GROUP, 8>(isa, &run_steps, at, out);
        }
    }
}

/// The eight steps of run `run`: those of `steps`, or of the views, for which there is `room`.
///
/// # Safety
/// The block has the run.
#[inline(always)]
unsafe fn steps_of_run<'a, I: Isa>(
    isa: I,
    views: &[BlockCodes; PANEL_ROWS],
    steps: Option<&'a Steps>,
    run: usize,
    room: &'a mut UnitSteps,
) -> &'a UnitSteps {
    if let Some(steps) = steps {
        return steps.unit(run);
    }
    // SAFETY: the views have the run's codes, 32 bytes of each, and there is room for them.
    unsafe {
        let first = (&raw const views[0].codes).cast::<u8>().add(run * UNIT_CODES);
        isa.interleave_rows::<PANEL_ROWS>(first, size_of::<BlockCodes>(), (&raw mut *room).cast());
    }
    room
}

/// Packs four vectors of a unit from number `FIRST` on, or as many of them as it has, the register at byte `at` of each.
///
/// # Safety
/// A register lies there, and the unit is writable at `out`.
#[inline(always)]
unsafe fn pack_vectors<I: Isa, const BITS: u32, const GROUP: usize, const FIRST: usize>(
    isa: I,
    steps: &[&UnitSteps; LONG_RUNS],
    at: usize,
    out: *mut u8,
) {
    let vectors = const { unit_bytes(BITS, GROUP) / VECTOR_BYTES };
    for vector in FIRST..vectors.min(FIRST + 4) {
        let mut packed = isa.splat(0);
        // SAFETY: the caller's promise; steps have as many vectors' bytes.
        unsafe {
            for &Piece { step, from, to, width, .. } in &Unit::<BITS, GROUP>::CONTENTS[vector] {
                if width == 0 {
                    break;
                }
                let codes = isa.load(steps[step / UNIT_STEPS].0[step % UNIT_STEPS].as_ptr().add(at));
                packed = isa.or(packed, isa.shl(isa.and(codes, isa.splat(byte_mask(width, to))), from - to));
            }
            isa.store(out.add(vector * VECTOR_BYTES + at), packed);
        }
    }
}

/// Packs the first `scales` pairs of the blocks' scales, then the first `mins` pairs of their minima, in vectors of which
/// number `v` is at `out(v)`.
///
/// # Safety
/// The vectors of the packed pairs are writable.
#[inline(always)]
unsafe fn pack_pairs<I: Isa, const BITS: u32>(
    isa: I,
    blocks: &[BlockCodes; PANEL_ROWS],
    scales: usize,
    mins: usize,
    out: impl Fn(usize) -> *mut u8,
) {
    // Vectors of four scales or minima, the scales first.
    const { assert!(core::mem::offset_of!(BlockCodes, mins) == core::mem::offset_of!(BlockCodes, scales) + 16) };
    let mut fours = UnitSteps::ZERO;
    // SAFETY: a block has 16 bytes of scales and as many of minima; at most 8 pairs of each are read, and what is written
    // are the vectors of the pairs.
    unsafe {
        let groups = blocks.as_ptr().cast::<u8>().add(core::mem::offset_of!(BlockCodes, scales));
        isa.interleave_rows::<PANEL_ROWS>(groups, size_of::<BlockCodes>(), (&raw mut fours).cast());
        for at in (0..VECTOR_BYTES).step_by(I::LANES * 4) {
            // No loop of all, which would not be unrolled: where a pair comes from is known.
            let of = (&fours, at, scales);
            let pairs =
                [four_pairs(isa, of, 0), four_pairs(isa, of, 4), four_pairs(isa, of, 8), four_pairs(isa, of, 12)];
            let pairs = &pairs.as_flattened()[..scales + mins];
            if const { BITS == 8 } {
                put_pairs::<I, 8>(isa, pairs, 0, (&out, 0, at));
            } else {
                put_pairs::<I, 4>(isa, pairs, 0, (&out, 0, at));
                if const { BITS == 6 } {
                    put_pairs::<I, 2>(isa, pairs, 4, (&out, low_vectors(BITS, scales + mins), at));
                }
            }
        }
    }
}

/// Four pairs from number `first` on, of `scales` pairs of scales and the minima behind them: the register at byte `at` of each.
///
/// # Safety
/// A register lies there.
#[inline(always)]
unsafe fn four_pairs<I: Isa>(isa: I, (fours, at, scales): (&UnitSteps, usize, usize), first: usize) -> [I::V; 4] {
    array_of(
        #[inline(always)]
        |i| {
            let pair = first + i;
            let (first, pair) = if pair < scales { (0, pair) } else { (UNIT_STEPS / 2, (pair - scales) % 8) };
            // SAFETY: a pair's four values are one of the eight steps.
            let four = unsafe { isa.load(fours.0[first + pair / 2].as_ptr().add(at)) };
            pair_of_four(isa, four, pair)
        },
    )
}

/// Writes a plane of pairs, to byte `at` of each vector from number `first` on: the `WIDTH` bits from bit `shift` on of each
/// half, as many pairs to a vector as it has room for.
///
/// # Safety
/// A register is writable there.
#[inline(always)]
unsafe fn put_pairs<I: Isa, const WIDTH: u32>(
    isa: I,
    pairs: &[I::V],
    shift: u32,
    (out, first, at): (&impl Fn(usize) -> *mut u8, usize, usize),
) {
    let mask = isa.splat(0x0001_0001 * ((1 << WIDTH) - 1));
    for (vector, pairs) in pairs.chunks(16 / WIDTH as usize).enumerate() {
        let mut v = isa.splat(0);
        for (field, &pair) in pairs.iter().enumerate() {
            v = isa.or(v, isa.shl(isa.and(isa.shr(pair, shift), mask), WIDTH * field as u32));
        }
        // SAFETY: the caller's promise.
        unsafe { isa.store(out(first + vector).add(at), v) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::packed::{self, pairs_bytes},
        simd::{IsaTask, Level},
    };
    use alloc::{vec, vec::Vec};

    /// A unit of `BITS` in groups of `GROUP`, and pairs of `PAIR_BITS`.
    struct Packed<'a, const BITS: u32, const GROUP: usize, const PAIR_BITS: u32>(
        &'a [BlockCodes; PANEL_ROWS],
        usize,
        usize,
    );

    impl<const BITS: u32, const GROUP: usize, const PAIR_BITS: u32> IsaTask for Packed<'_, BITS, GROUP, PAIR_BITS> {
        type Output = [Vec<u8>; 2];

        fn run<I: Isa>(self, isa: I) -> [Vec<u8>; 2] {
            let Packed(blocks, scales, mins) = self;
            let (mut unit, mut pairs) =
                (vec![0xAA; unit_bytes(BITS, GROUP)], vec![0xAA; pairs_bytes(PAIR_BITS, scales + mins)]);
            let start = pairs.as_mut_ptr();
            // SAFETY: the second unit of a block's codes, a whole unit and all pairs.
            unsafe {
                pack_unit::<I, BITS, GROUP>(isa, blocks, None, 1, unit.as_mut_ptr());
                pack_pairs::<I, PAIR_BITS>(isa, blocks, scales, mins, |v| start.add(v * VECTOR_BYTES));
            }
            [unit, pairs]
        }
    }

    fn matches_the_layout<const BITS: u32, const GROUP: usize, const PAIR_BITS: u32>(scales: usize, mins: usize) {
        let mut blocks = [BlockCodes::default(); PANEL_ROWS];
        for (row, block) in blocks.iter_mut().enumerate() {
            for (i, code) in block.codes.iter_mut().enumerate() {
                *code = (row * 37 + i * 101 + 5) as u8 & ((1u32 << BITS) - 1) as u8;
            }
            for i in 0..16 {
                let value = |seed: usize| ((row * 29 + i * 13 + seed) & ((1 << PAIR_BITS) - 1)) as u8;
                (block.scales[i], block.mins[i]) = (value(7), value(11));
            }
        }
        let value = |row: usize, i: usize| {
            (if i < 2 * scales { blocks[row].scales[i] } else { blocks[row].mins[i - 2 * scales] }) as u32
        };
        let mut pairs = vec![0; pairs_bytes(PAIR_BITS, scales + mins)];
        packed::pack_pairs(PAIR_BITS, scales + mins, value, &mut pairs);
        let codes = unit_runs(BITS, GROUP) * UNIT_CODES;
        let unit = codes..2 * codes;
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            let packed = level.dispatch(Packed::<BITS, GROUP, PAIR_BITS>(&blocks, scales, mins));
            assert!(packed[1] == pairs, "pairs of {PAIR_BITS}, {}", level.name());
            for (row, block) in blocks.iter().enumerate() {
                for (i, &code) in block.codes[unit.clone()].iter().enumerate() {
                    let found = packed::unpack_code::<BITS, GROUP>(&packed[0], row, i);
                    assert_eq!(found, code, "{BITS} bits, {}, row {row}, code {i}", level.name());
                }
            }
        }
    }

    #[test]
    fn every_level_packs_as_the_layout_says() {
        matches_the_layout::<1, 32, 4>(8, 8);
        matches_the_layout::<2, 32, 4>(8, 0);
        matches_the_layout::<3, 32, 6>(8, 0);
        matches_the_layout::<2, 16, 4>(8, 8);
        matches_the_layout::<3, 16, 6>(8, 0);
        matches_the_layout::<4, 32, 6>(4, 4);
        matches_the_layout::<5, 32, 6>(8, 8);
        matches_the_layout::<6, 32, 8>(8, 0);
        matches_the_layout::<8, 32, 8>(4, 4);
    }
}
