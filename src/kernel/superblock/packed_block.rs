//! A packed tile, unpacked in registers where the microkernels ask for it.

use super::{
    super::{
        packed::{UNIT_STEPS, unpack_step},
        stream::{LINE_BYTES, keep_order, prefetch},
        tile::{SuperTile, Tile},
    },
    operands::Operands,
};
use crate::simd::Isa;
use core::marker::PhantomData;

/// A packed tile, of which the rows of `MR` registers are wanted; with `AHEAD`, another is asked for meanwhile.
pub struct PackedBlock<I, T, const MR: usize, const AHEAD: bool> {
    isa: I,
    tile: *const u8,
    /// The first of the rows.
    row: usize,
    /// What is asked for.
    ahead: *const u8,
    class: PhantomData<T>,
}

impl<I: Isa, T, const MR: usize, const AHEAD: bool> PackedBlock<I, T, MR, AHEAD> {
    /// The rows of `MR` registers of the tile at `tile`, from row `row` on, and the tile at `ahead` to be asked for.
    ///
    /// # Safety
    /// A packed tile lies there for as long as the value is used, and the rows end at 16.
    #[inline(always)]
    pub unsafe fn new(isa: I, tile: *const u8, row: usize, ahead: *const u8) -> Self {
        PackedBlock { isa, tile, row, ahead, class: PhantomData }
    }

    /// The first row of register `i`.
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        self.row + i * I::LANES
    }
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
    I: Isa,
    const MR: usize,
    const AHEAD: bool,
> PackedBlock<I, SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>, MR, AHEAD>
{
    /// Step `step` < 64 of the codes, from bit `at` of their bytes on, which is no higher than they stand.
    #[inline(always)]
    pub fn codes_at(&self, step: usize, i: usize, at: u32) -> I::V {
        let steps = SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::UNIT_STEPS;
        let unit = SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::unit_at(step / steps);
        // SAFETY: the tile has units of 64 steps.
        unsafe { unpack_step::<I, BITS, GROUP>(self.isa, self.tile.add(unit + self.row(i) * 4), step % steps, at) }
    }
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
    I: Isa,
    const MR: usize,
    const AHEAD: bool,
> Operands<I> for PackedBlock<I, SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>, MR, AHEAD>
{
    #[inline(always)]
    fn scales(&self, p: usize, i: usize) -> [I::V; 2] {
        self.isa.split_scales(self.scale_pair(p, i))
    }
    #[inline(always)]
    fn scale_pair(&self, p: usize, i: usize) -> I::V {
        // SAFETY: a packed tile, and a register's rows end at 16.
        let pair = unsafe {
            SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::stored_pair(
                self.isa,
                self.tile,
                self.row(i),
                p,
            )
        };
        SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::unbiased(self.isa, pair)
    }
    #[inline(always)]
    fn min_pair(&self, p: usize, i: usize) -> I::V {
        let index = SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::PAIRS + p;
        // SAFETY: as above; the minima are numbered behind the scales.
        unsafe {
            SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::stored_pair(
                self.isa,
                self.tile,
                self.row(i),
                index,
            )
        }
    }
    #[inline(always)]
    fn d(&self, i: usize) -> I::F {
        // SAFETY: the tile has d of 16 rows there.
        unsafe {
            let d = self.tile.add(SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::D_AT);
            if SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::SCALED {
                self.isa.load_f16(d.add(self.row(i) * 2))
            } else {
                self.isa.load_f32(d.add(self.row(i) * 4).cast())
            }
        }
    }
    #[inline(always)]
    fn dmin(&self, i: usize) -> I::F {
        let at = SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::DMIN_AT + self.row(i) * 2;
        // SAFETY: dmin lies there where there are minima, and is not asked for where there are none.
        unsafe { self.isa.load_f16(self.tile.add(at)) }
    }
    #[inline(always)]
    fn prefetch_part(&self, part: usize, parts: usize) {
        if !AHEAD {
            return;
        }
        // Those that take other rows ask for a share of the part as well; every line is asked for once.
        let lines = SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::TILE_BYTES.div_ceil(LINE_BYTES);
        let shares = parts * I::REGISTERS / MR;
        let share = part * (I::REGISTERS / MR) + self.row / I::LANES / MR;
        let (first, end) = (lines * share / shares, lines * (share + 1) / shares);
        prefetch(self.isa, self.ahead.wrapping_add(first * LINE_BYTES), lines / shares * LINE_BYTES);
        // One more or none: a line that is read anyway in its place, and no loop of unknown length.
        let last =
            if end - first > lines / shares { self.ahead.wrapping_add((end - 1) * LINE_BYTES) } else { self.tile };
        self.isa.prefetch_far(last);
    }
    #[inline(always)]
    fn codes(&self, step: usize, i: usize) -> I::V {
        // Where there are scales, dots wait for them, and the compiler does better by itself.
        let scaled = SuperTile::<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>::SCALED;
        if !AHEAD && !scaled && i == 0 && step.is_multiple_of(UNIT_STEPS) {
            keep_order();
        }
        self.codes_at(step, i, 0)
    }
}
