//! Activations, quantized once and shared by every matmul that reads them (Q/K/V, gate and up).
//!
//! The rule is one for all instruction sets: a group (32 values for the formats of 32-blocks, 256 for the K-quants) has
//! `d = amax / 127` as f32, codes `x · (127 / amax)` rounded half to even, and the sums of codes that formats with a bias or
//! minima need. A group with `amax < 1e-36` counts as zero. **A NaN or an infinity makes its group's scale NaN**, and so
//! every element of that row of y.

mod stretch;

use crate::{
    Error, Executor, Result,
    executor::for_ranges,
    kernel::{
        CodeTiles, ColumnArrays, GROUP_COLUMNS, Inputs, Peaks, SharedMut, TileRows, group_columns, padded_columns,
        prefetch,
    },
    simd::{Isa, IsaTask, Level},
};
use alloc::{format, vec::Vec};
use stretch::{CodeRows, STRETCH, Stretch};

/// Which quantized forms of the activations there are: one for each block length that weight formats have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// None: float formats read x as it is.
    pub const NONE: Kinds = Kinds(0);
    /// A scale per 32 values: the legacy formats.
    pub const BLOCK32: Kinds = Kinds(1);
    /// A scale per 256 values: the K-quants.
    pub const BLOCK256: Kinds = Kinds(2);
    /// The values themselves: the float formats.
    pub const F32: Kinds = Kinds(4);

    /// Whether all of `other` are in `self`.
    pub const fn contains(self, other: Kinds) -> bool {
        self.0 & other.0 == other.0
    }

    const fn name(self) -> &'static str {
        match self.0 {
            0 => "none",
            1 => "BLOCK32",
            2 => "BLOCK256",
            3 => "BLOCK32 | BLOCK256",
            4 => "F32",
            _ => "F32 and quantized",
        }
    }
}

impl core::ops::BitOr for Kinds {
    type Output = Kinds;
    fn bitor(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Kinds) {
        self.0 |= other.0;
    }
}

/// Activations `[m, k]` in the forms that matmuls read.
///
/// The buffers are kept: quantizing again allocates only if the new shape needs more room.
#[derive(Debug, Clone)]
pub struct Activations {
    level: Level,
    m: usize,
    k: usize,
    kinds: Kinds,
    exact: bool,
    values: Vec<f32>,
    block32: Quantized,
    block256: Quantized,
}

/// One quantized form: codes with a scale per group of `GROUP`, and their sums, laid out as [`Inputs`] says.
#[derive(Debug, Clone, Default)]
struct Quantized {
    arrays: ColumnArrays<Vec<i32>, Vec<f32>>,
    peaks: Vec<Peaks>,
    tiles: CodeTiles,
}

impl Default for Activations {
    fn default() -> Self {
        Self::new()
    }
}

impl Activations {
    /// No activations yet, quantized later by the fastest level of this CPU.
    pub fn new() -> Self {
        Self::with_level(Level::best())
    }

    /// No activations yet, quantized later by `level`, or by plain Rust if this CPU lacks it; the bits are the same.
    pub fn with_level(level: Level) -> Self {
        Activations {
            level,
            m: 0,
            k: 0,
            kinds: Kinds::NONE,
            exact: false,
            values: Vec::new(),
            block32: Quantized::default(),
            block256: Quantized::default(),
        }
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The forms that are there.
    pub fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// Whether matmuls run in f32 ([`Activations::keep_f32`]).
    pub fn is_f32(&self) -> bool {
        self.exact
    }

    /// Takes `x`, `[m, k]` row-major, in each of `kinds` (`weight.kinds()`, or'ed for several weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have `m · k` elements, [`Error::Block`] if `k` is not a multiple of a kind's block.
    pub fn quantize(&mut self, x: &[f32], m: usize, k: usize, kinds: Kinds, executor: &impl Executor) -> Result<()> {
        self.quantize_on(x, m, k, kinds, executor)
    }

    /// [`Activations::quantize`], compiled once.
    fn quantize_on(&mut self, x: &[f32], m: usize, k: usize, kinds: Kinds, executor: &dyn Executor) -> Result<()> {
        check_len(x, m, k)?;
        for (kind, block) in [(Kinds::BLOCK32, 32), (Kinds::BLOCK256, 256)] {
            if kinds.contains(kind) && !k.is_multiple_of(block) {
                return Err(Error::Block { format: kind.name(), block, k });
            }
        }
        (self.m, self.k, self.kinds, self.exact) = (m, k, kinds, false);
        if kinds.contains(Kinds::F32) {
            self.values.clear();
            self.values.extend_from_slice(x);
        }
        if kinds.contains(Kinds::BLOCK32) {
            self.block32.quantize::<32>(self.level, x, m, k, executor);
        }
        if kinds.contains(Kinds::BLOCK256) {
            self.block256.quantize::<256>(self.level, x, m, k, executor);
        }
        Ok(())
    }

    /// Takes `x`, `[m, k]` row-major, as it is: every matmul then multiplies dequantized weights by these f32 values, in
    /// f32. This is for verification, not for speed.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have `m · k` elements.
    pub fn keep_f32(&mut self, x: &[f32], m: usize, k: usize) -> Result<()> {
        check_len(x, m, k)?;
        (self.m, self.k, self.kinds, self.exact) = (m, k, Kinds::F32, true);
        self.values.clear();
        self.values.extend_from_slice(x);
        Ok(())
    }

    /// What an integer kernel reads, if the activations were quantized that way.
    pub(crate) fn inputs(&self, format: &'static str, kind: Kinds) -> Result<Inputs<'_>> {
        if !self.kinds.contains(kind) {
            return Err(Error::ActivationKind { format, expected: kind.name(), found: self.kinds.name() });
        }
        let q = if kind == Kinds::BLOCK32 { &self.block32 } else { &self.block256 };
        Ok(Inputs {
            m: self.m,
            k: self.k,
            arrays: q.arrays.each_ref().map(Vec::as_slice, Vec::as_slice),
            peaks: &q.peaks,
            tiles: q.tiles.as_slice(),
        })
    }

    /// The values themselves, if they were kept.
    pub(crate) fn values(&self, format: &'static str) -> Result<&[f32]> {
        if !self.kinds.contains(Kinds::F32) {
            let (expected, found) = (Kinds::F32.name(), self.kinds.name());
            return Err(Error::ActivationKind { format, expected, found });
        }
        Ok(&self.values)
    }
}

fn check_len(x: &[f32], m: usize, k: usize) -> Result<()> {
    let Some(expected) = m.checked_mul(k) else {
        return Err(Error::Overflow { what: format!("x of [m, k] = [{m}, {k}]") });
    };
    if x.len() != expected {
        return Err(Error::Shape { what: format!("x of [m, k] = [{m}, {k}]"), expected, found: x.len() });
    }
    Ok(())
}

/// A group of columns: its slices of a [`Quantized`], each as long as its columns fill.
struct GroupMut<'a> {
    width: usize,
    arrays: ColumnArrays<&'a mut [i32], &'a mut [f32]>,
    peaks: &'a mut [Peaks],
    /// Of the columns, if there are tiles.
    tiles: Option<TileRows<'a>>,
}

struct QuantizeGroup<'a, const GROUP: usize> {
    /// The columns' values, one column after the other.
    x: &'a [f32],
    k: usize,
    group: GroupMut<'a>,
    /// Zeros where columns are missing.
    stretch: &'a mut Stretch,
}

impl<const GROUP: usize> IsaTask for QuantizeGroup<'_, GROUP> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        if self.group.width == 1 && self.group.tiles.is_none() {
            return self.run_alone(isa);
        }
        let stretch = self.stretch;
        let mut own_codes = [[0; GROUP_COLUMNS]; STRETCH / 4];
        for start in (0..self.k).step_by(STRETCH) {
            let end = self.k.min(start + STRETCH);
            // Columns lie too far apart for the CPU to see the next stretch coming; behind the last are the next columns.
            let next = if end < self.k { end } else { GROUP_COLUMNS * self.k };
            for (column, x) in self.x.chunks_exact(self.k).enumerate() {
                prefetch(isa, x.as_ptr().wrapping_add(next).cast(), STRETCH * size_of::<f32>());
                stretch.measure::<I, GROUP>(isa, &x[start..end], column);
            }
            // Columns are the lanes of scales and sums: no more than eight.
            stretch.scale::<I::Narrow, GROUP>(isa.narrow(), end - start);
            for (column, x) in self.x.chunks_exact(self.k).enumerate() {
                stretch.quantize::<I, GROUP>(isa, &x[start..end], column);
            }
            let in_place = self.group.code_rows(start);
            let is_in_place = in_place.is_some();
            let codes = in_place.unwrap_or(&mut own_codes);
            stretch.sum::<I::Narrow, GROUP>(isa.narrow(), codes, end - start);
            if !is_in_place {
                put(self.group.arrays.codes, (0, self.group.width), start / 4, &own_codes);
            }
            self.group.put::<GROUP>(start, stretch, 0);
            if let Some(tiles) = &self.group.tiles {
                // SAFETY: the group's columns are this task's own.
                unsafe { tiles.put(start, &stretch.by_column, end - start) };
            }
        }
    }
}

impl<const GROUP: usize> QuantizeGroup<'_, GROUP> {
    /// One column: stretches of it side by side, as columns are.
    #[inline(always)]
    fn run_alone<I: Isa>(mut self, isa: I) {
        let stretch = self.stretch;
        let mut codes = [[0; GROUP_COLUMNS]; STRETCH / 4];
        for (i, x) in self.x.chunks(GROUP_COLUMNS * STRETCH).enumerate() {
            for (column, x) in x.chunks(STRETCH).enumerate() {
                stretch.measure::<I, GROUP>(isa, x, column);
            }
            // Behind the end of a shorter last one, what was there before is summed, and not taken.
            let len = x.len().min(STRETCH);
            stretch.scale::<I::Narrow, GROUP>(isa.narrow(), len);
            for (column, x) in x.chunks(STRETCH).enumerate() {
                stretch.quantize::<I, GROUP>(isa, x, column);
            }
            stretch.sum::<I::Narrow, GROUP>(isa.narrow(), &mut codes, len);
            for (column, x) in x.chunks(STRETCH).enumerate() {
                let start = (i * GROUP_COLUMNS + column) * STRETCH;
                let codes = &mut self.group.arrays.codes[start / 4..][..x.len() / 4];
                bytemuck::cast_slice_mut::<i32, i8>(codes).copy_from_slice(&stretch.by_column[column][..x.len()]);
                self.group.put::<GROUP>(start, stretch, column);
            }
        }
    }
}

impl GroupMut<'_> {
    /// Where the codes of a stretch from `start` of k on lie, if it is whole and all columns are there.
    #[inline(always)]
    fn code_rows(&mut self, start: usize) -> Option<&mut CodeRows> {
        if self.width < GROUP_COLUMNS {
            return None;
        }
        self.arrays.codes.as_chunks_mut().0.get_mut(start / 4..start / 4 + STRETCH / 4)?.try_into().ok()
    }

    /// Takes over the stretch from `start` of k on, but for its codes, from column `first` of it on.
    #[inline(always)]
    fn put<const GROUP: usize>(&mut self, start: usize, stretch: &Stretch, first: usize) {
        let (columns, to) = ((first, self.width), &mut self.arrays);
        put(to.d, columns, start / GROUP, &stretch.d[..STRETCH / GROUP]);
        put(to.neg_sums, columns, start / GROUP, &stretch.neg_sums[..STRETCH / GROUP]);
        if GROUP == 256 {
            put(to.centres, columns, start / 16, &stretch.centres);
            put(to.half_centres, columns, start / 16, &stretch.half_centres);
            put(to.sums16, columns, start / 32, &stretch.sums16);
            put(to.sums32, columns, start / 64, &stretch.sums32);
            self.peaks[start / 256] = stretch.peaks(first, self.width);
        } else {
            put(to.d_sums, columns, start / 32, &stretch.d_sums);
            put(to.starts, columns, start / 32, &stretch.starts);
        }
    }
}

/// Copies `width` entries from entry `first` of each row on behind each other, from row `at` of `to` on, as far as that goes.
#[inline(always)]
fn put<T: Copy>(to: &mut [T], (first, width): (usize, usize), at: usize, rows: &[[T; GROUP_COLUMNS]]) {
    let to = &mut to[at * width..];
    match width {
        1 => put_rows::<T, 1>(to, rows, first),
        2 => put_rows::<T, 2>(to, rows, first),
        4 => put_rows::<T, 4>(to, rows, first),
        _ => put_rows::<T, GROUP_COLUMNS>(to, rows, first),
    }
}

#[inline(always)]
fn put_rows<T: Copy, const W: usize>(to: &mut [T], rows: &[[T; GROUP_COLUMNS]], first: usize) {
    for (to, row) in to.as_chunks_mut::<W>().0.iter_mut().zip(rows) {
        to.copy_from_slice(&row[first..first + W]);
    }
}

impl Quantized {
    fn quantize<const GROUP: usize>(&mut self, level: Level, x: &[f32], m: usize, k: usize, executor: &dyn Executor) {
        fn resized<T: Clone + Default>(array: &mut Vec<T>, len: usize) -> SharedMut<'_, T> {
            array.resize(len, T::default());
            SharedMut::new(array)
        }
        let (entries, columns) = (ColumnArrays::entries::<GROUP>(k), padded_columns(m));
        let arrays = self.arrays.each_mut().zip(entries).map(
            |(array, entries)| resized(array, columns * entries),
            |(array, entries)| resized(array, columns * entries),
        );
        let blocks = if GROUP == 256 { k / 256 } else { 0 };
        let peaks = resized(&mut self.peaks, m.div_ceil(GROUP_COLUMNS) * blocks);
        // Blocks of 32 are not multiplied so.
        self.tiles.resize_for(level, if GROUP == 256 { m } else { 0 }, k);
        let tiles = self.tiles.shared();
        let quantize_group = |g: usize, stretch: &mut Stretch| {
            let first = g * GROUP_COLUMNS;
            let (columns, width) = group_columns(first, m);
            // SAFETY: the ranges of the group's columns are this task's own: each group is quantized by one task.
            let group = unsafe {
                GroupMut {
                    width,
                    arrays: arrays.zip(entries).map(
                        |(array, entries)| array.slice(first * entries, width * entries),
                        |(array, entries)| array.slice(first * entries, width * entries),
                    ),
                    peaks: peaks.slice(g * blocks, blocks),
                    tiles: tiles.part(first),
                }
            };
            let x = &x[first * k..(first + columns) * k];
            level.dispatch(QuantizeGroup::<GROUP> { x, k, group, stretch });
        };
        let groups = if k == 0 { 0 } else { m.div_ceil(GROUP_COLUMNS) };
        for_ranges(executor, groups, m * k, &|groups| {
            let (first, mut stretch) = (groups.start, Stretch::new());
            for g in groups {
                // Where the last group lacks columns, those of the one before would stay.
                if g > first && (g + 1) * GROUP_COLUMNS > m {
                    stretch = Stretch::new();
                }
                quantize_group(g, &mut stretch);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;
    use alloc::vec;

    fn quantized(x: &[f32], level: Level, kinds: Kinds) -> Activations {
        let mut a = Activations::with_level(level);
        a.quantize(x, 1, x.len(), kinds, &Serial).unwrap();
        a
    }

    #[test]
    fn codes_and_sums_follow_the_rule() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let a = quantized(&x, Level::Scalar, Kinds::BLOCK32 | Kinds::BLOCK256);
        for (g, group) in x.chunks(32).enumerate() {
            let amax = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert_eq!(a.block32.arrays.d[g], amax / 127.0);
            let sum: i32 = (0..32).map(|i| (group[i] * (127.0 / amax)).round_ties_even() as i32).sum();
            assert_eq!(a.block32.arrays.neg_sums[g], -sum);
            assert_eq!(a.block32.arrays.d_sums[g], amax / 127.0 * sum as f32);
        }
        let codes: &[i8] = bytemuck::cast_slice(&a.block256.arrays.codes[..64]);
        let sum16: Vec<i16> = codes.chunks(16).map(|codes| codes.iter().map(|&code| code as i16).sum()).collect();
        let halves =
            |pairs: &[i32]| pairs.iter().flat_map(|&pair| [pair as i16, (pair >> 16) as i16]).collect::<Vec<_>>();
        assert_eq!(halves(&a.block256.arrays.sums16), sum16);
        let sum32: Vec<i16> = sum16.chunks(2).map(|pair| pair[0] + pair[1]).collect();
        assert_eq!(halves(&a.block256.arrays.sums32), sum32);
        assert_eq!(a.block256.arrays.neg_sums[0], -sum16.iter().map(|&sum| sum as i32).sum::<i32>());
        let centres: Vec<i32> = sum16.iter().map(|&sum| -32 * sum as i32).collect();
        assert_eq!(a.block256.arrays.centres[..16], centres);
        let of_half = |codes: &[i8], half: usize| {
            -32 * codes.chunks(4).flat_map(|four| &four[2 * half..][..2]).map(|&code| code as i16).sum::<i16>()
        };
        let half_centres: Vec<i16> =
            codes.chunks(16).flat_map(|codes| [of_half(codes, 0), of_half(codes, 1)]).collect();
        assert_eq!(halves(&a.block256.arrays.half_centres), half_centres);
        let magnitudes = |codes: &[i8]| codes.iter().map(|&code| code.unsigned_abs() as u16).sum::<u16>();
        let of_sign = |codes: &[i8], sign| {
            codes.iter().filter(|code| code.signum() == sign).map(|&code| code.unsigned_abs() as u16).sum::<u16>()
        };
        let peaks = a.block256.peaks[0];
        assert_eq!(Some(peaks.of_16), codes.chunks(16).map(magnitudes).max());
        assert_eq!(Some(peaks.of_32), codes.chunks(32).map(|c| of_sign(c, 1).max(of_sign(c, -1))).max());
    }

    #[test]
    fn columns_of_a_group_are_interleaved() {
        // One column has stretches of its own side by side: all places, and some.
        let (m, k) = (GROUP_COLUMNS + 3, (GROUP_COLUMNS + 2) * STRETCH);
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 180.0).collect();
        let kinds = Kinds::BLOCK32 | Kinds::BLOCK256;
        let mut a = Activations::new();
        a.quantize(&x, m, k, kinds, &Serial).unwrap();
        let mut peaks = vec![Peaks::default(); 2 * k / 256];
        for column in 0..m {
            let alone = quantized(&x[column * k..][..k], Level::Scalar, kinds);
            for (of_group, alone) in peaks[column / GROUP_COLUMNS * k / 256..].iter_mut().zip(&alone.block256.peaks) {
                of_group.of_16 = of_group.of_16.max(alone.of_16);
                of_group.of_32 = of_group.of_32.max(alone.of_32);
            }
            let group = column / GROUP_COLUMNS * GROUP_COLUMNS;
            let (width, first) = (group_columns(group, m).1, column - group);
            let at = |entries: usize, i: usize| group * entries + i * width + first;
            for i in 0..k / 4 {
                assert_eq!(a.block32.arrays.codes[at(k / 4, i)], alone.block32.arrays.codes[i]);
                assert_eq!(a.block256.arrays.codes[at(k / 4, i)], alone.block256.arrays.codes[i]);
            }
            for i in 0..k / 32 {
                assert_eq!(a.block32.arrays.d[at(k / 32, i)], alone.block32.arrays.d[i]);
                assert_eq!(a.block32.arrays.d_sums[at(k / 32, i)], alone.block32.arrays.d_sums[i]);
                assert_eq!(a.block256.arrays.sums16[at(k / 32, i)], alone.block256.arrays.sums16[i]);
            }
            for i in 0..k / 16 {
                assert_eq!(a.block256.arrays.centres[at(k / 16, i)], alone.block256.arrays.centres[i]);
                assert_eq!(a.block256.arrays.half_centres[at(k / 16, i)], alone.block256.arrays.half_centres[i]);
            }
        }
        assert_eq!(a.block256.peaks, peaks);
    }

    #[test]
    fn tiles_hold_the_codes_of_each_column() {
        let (m, k) = (37, 768);
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 180.0).collect();
        // Whether or not this CPU multiplies them: levels that it lacks are plain Rust.
        let mut a = Activations::with_level(Level::Amx);
        a.quantize(&x, m, k, Kinds::BLOCK32 | Kinds::BLOCK256, &Serial).unwrap();
        let tiles = a.block256.tiles.as_slice();
        for column in 0..m {
            let alone = quantized(&x[column * k..][..k], Level::Scalar, Kinds::BLOCK256).block256.arrays.codes;
            for (step, codes) in bytemuck::cast_slice::<i32, i8>(&alone).chunks(64).enumerate() {
                assert_eq!(tiles[column / 16 * (k / 64) + step].0[column % 16], codes, "column {column}, tile {step}");
            }
        }
        assert!(a.block32.tiles.as_slice().is_empty());
        for (level, m) in [(Level::Amx, 16), (Level::Avx512Vnni, 37)] {
            let mut a = Activations::with_level(level);
            a.quantize(&x[..m * k], m, k, Kinds::BLOCK256, &Serial).unwrap();
            assert!(a.block256.tiles.as_slice().is_empty(), "{level:?}, {m} columns");
        }
    }

    #[test]
    fn stretches_and_columns_that_are_not_full_keep_nothing_of_those_before() {
        for (m, k) in [(GROUP_COLUMNS + 3, 256 + 96), (2 * GROUP_COLUMNS + 1, 2560 + 64), (3, 32)] {
            let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 180.0).collect();
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                let mut a = Activations::with_level(level);
                a.quantize(&x, m, k, Kinds::BLOCK32, &Serial).unwrap();
                let arrays = &a.block32.arrays;
                let padded = padded_columns(m);
                for column in 0..padded {
                    let row = if column < m { &x[column * k..][..k] } else { &vec![0.0; k] };
                    let alone = quantized(row, Level::Scalar, Kinds::BLOCK32).block32.arrays;
                    let group = column / GROUP_COLUMNS * GROUP_COLUMNS;
                    let (width, first) = (group_columns(group, m).1, column - group);
                    let at = |entries: usize, i: usize| group * entries + i * width + first;
                    for i in 0..k / 4 {
                        assert_eq!(arrays.codes[at(k / 4, i)], alone.codes[i], "{level:?} [{m}, {k}]");
                    }
                    for i in 0..k / 32 {
                        assert_eq!(arrays.d[at(k / 32, i)], alone.d[i], "{level:?} [{m}, {k}]");
                        assert_eq!(arrays.neg_sums[at(k / 32, i)], alone.neg_sums[i], "{level:?} [{m}, {k}]");
                        assert_eq!(arrays.starts[at(k / 32, i)], alone.starts[i], "{level:?} [{m}, {k}]");
                    }
                }
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let x: Vec<f32> = (0..512).map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 180.0).collect();
        let kinds = Kinds::BLOCK32 | Kinds::BLOCK256;
        let reference = quantized(&x, Level::Scalar, kinds);
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            let a = quantized(&x, level, kinds);
            assert_eq!(a.block32.arrays.codes, reference.block32.arrays.codes);
            assert_eq!(a.block256.arrays.codes, reference.block256.arrays.codes);
            assert_eq!(a.block256.arrays.d, reference.block256.arrays.d);
        }
    }

    #[test]
    fn what_is_not_finite_makes_its_group_nan_and_tiny_groups_are_zero() {
        let mut x = vec![1.0; 96];
        x[3] = f32::INFINITY;
        x[32..64].fill(1e-40);
        let a = quantized(&x, Level::best(), Kinds::BLOCK32);
        assert!(a.block32.arrays.d[0].is_nan() && a.block32.arrays.d_sums[0].is_nan());
        assert_eq!((a.block32.arrays.d[1], a.block32.arrays.d[2]), (0.0, 1.0 / 127.0));
        assert_eq!(a.block32.arrays.codes[..16], [0; 16]);
        x[3] = f32::NAN;
        assert!(quantized(&x, Level::best(), Kinds::BLOCK32).block32.arrays.d[0].is_nan());
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let mut a = Activations::new();
        assert!(matches!(a.quantize(&[0.0; 31], 1, 32, Kinds::BLOCK32, &Serial), Err(Error::Shape { .. })));
        assert!(matches!(a.quantize(&[0.0; 33], 1, 33, Kinds::BLOCK32, &Serial), Err(Error::Block { .. })));
        assert!(matches!(a.quantize(&[0.0; 32], 1, 32, Kinds::BLOCK256, &Serial), Err(Error::Block { .. })));
        assert!(matches!(a.quantize(&[], usize::MAX, 32, Kinds::BLOCK32, &Serial), Err(Error::Overflow { .. })));
        assert!(a.quantize(&[], 0, 32, Kinds::BLOCK32, &Serial).is_ok());
    }
}
