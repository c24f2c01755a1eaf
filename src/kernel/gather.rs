//! Columns of x collected in another order, in the layout that kernels read.

use super::{
    CodeTiles, ColumnArrays, GROUP_COLUMNS, Inputs, Peaks, SharedMut,
    code_tiles::{SharedTiles, tile_groups},
    group_columns, padded_columns,
};
use alloc::vec::Vec;

/// Where columns lie: `m` of them, in groups as [`Inputs`] says.
#[derive(Clone, Copy)]
struct Layout {
    m: usize,
}

impl Layout {
    /// Where the entries of `column` lie in an array of `entries` in a column: the first one, and how far apart they are.
    fn locate(self, column: usize, entries: usize) -> (usize, usize) {
        let group = column / GROUP_COLUMNS * GROUP_COLUMNS;
        (group * entries + column - group, group_columns(group, self.m).1)
    }
}

/// Selections of the columns of one x, one behind the other, each laid out by itself. The buffers are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    arrays: ColumnArrays<Vec<i32>, Vec<f32>>,
    /// Of a column in each of the arrays.
    entries: ColumnArrays<usize, usize>,
    peaks: Vec<Peaks>,
    /// Of a group of columns in `peaks`.
    blocks: usize,
    tiles: CodeTiles,
    k: usize,
}

/// A selection: where it lies in a [`Gathered`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection {
    /// Columns.
    pub m: usize,
    /// Its first column, those that fill groups up included.
    pub first: usize,
    /// Its first group of columns.
    pub first_group: usize,
    /// Its first group of columns in tiles.
    first_tiles: usize,
}

impl Selection {
    /// Where a selection of `m` columns lies that follows this one.
    pub fn next(self, m: usize) -> Selection {
        let first = self.first + padded_columns(self.m);
        let first_group = self.first_group + self.m.div_ceil(GROUP_COLUMNS);
        Selection { m, first, first_group, first_tiles: self.first_tiles + tile_groups(self.m) }
    }

    /// This selection's part of an array with so many entries in a column.
    fn part<T>(self, array: &[T], entries: usize) -> &[T] {
        &array[self.first * entries..][..padded_columns(self.m) * entries]
    }
}

impl Gathered {
    /// Makes room for selections of the columns of `x` up to `end`, which lies behind the last.
    pub fn reserve(&mut self, x: &Inputs<'_>, end: Selection) {
        let each = |len: usize, count: usize| len.checked_div(count).unwrap_or(0);
        let columns = padded_columns(x.m);
        self.entries = x.arrays.map(|array| each(array.len(), columns), |array| each(array.len(), columns));
        self.arrays.each_mut().zip(self.entries).map(
            |(array, entries)| array.resize(end.first * entries, 0),
            |(array, entries)| array.resize(end.first * entries, 0.0),
        );
        self.blocks = each(x.peaks.len(), x.m.div_ceil(GROUP_COLUMNS));
        self.peaks.resize(end.first_group * self.blocks, Peaks::default());
        self.tiles.resize(if x.tiles.is_empty() { 0 } else { end.first_tiles }, x.k);
        self.k = x.k;
    }

    /// The arrays, to be filled selection by selection.
    pub fn targets(&mut self) -> Targets<'_> {
        Targets {
            arrays: self.arrays.each_mut().map(|array| SharedMut::new(array), |array| SharedMut::new(array)),
            entries: self.entries,
            peaks: SharedMut::new(&mut self.peaks),
            blocks: self.blocks,
            tiles: self.tiles.shared(),
        }
    }

    /// A selection as kernels read it.
    pub fn inputs(&self, selection: Selection) -> Inputs<'_> {
        let blocks = self.blocks;
        Inputs {
            m: selection.m,
            k: self.k,
            arrays: self.arrays.each_ref().zip(self.entries).map(
                |(array, entries)| selection.part(array, entries),
                |(array, entries)| selection.part(array, entries),
            ),
            peaks: &self.peaks[selection.first_group * blocks..][..selection.m.div_ceil(GROUP_COLUMNS) * blocks],
            tiles: self.tiles.groups(selection.first_tiles, tile_groups(selection.m)),
        }
    }
}

/// The arrays of a [`Gathered`], which tasks share.
pub(crate) struct Targets<'a> {
    arrays: ColumnArrays<SharedMut<'a, i32>, SharedMut<'a, f32>>,
    entries: ColumnArrays<usize, usize>,
    peaks: SharedMut<'a, Peaks>,
    blocks: usize,
    tiles: SharedTiles<'a>,
}

impl Targets<'_> {
    /// Copies columns of `x`, as many as the selection has: `columns` says which. Columns that fill a group up repeat the
    /// last one.
    ///
    /// # Safety
    /// No other call copies to this selection at the same time.
    pub unsafe fn gather(&self, x: &Inputs<'_>, selection: Selection, columns: impl Fn(usize) -> usize) {
        let copy = Copied { x: Layout { m: x.m }, selection, columns: &columns };
        // SAFETY: selections do not overlap, and this one is the caller's.
        unsafe {
            x.arrays.zip(self.arrays.each_ref()).zip(self.entries).map(
                |((from, to), entries)| copy.run(from, to, entries),
                |((from, to), entries)| copy.run(from, to, entries),
            );
        }
        // Of few columns there are no tiles: what lies there is another selection's.
        let in_tiles = if x.tiles.is_empty() || tile_groups(selection.m) == 0 { 0 } else { selection.m };
        for column in 0..in_tiles {
            // SAFETY: as above.
            unsafe { self.tiles.copy_column(selection.first_tiles, column, x.tiles, columns(column)) };
        }
        let blocks = self.blocks;
        for group in (0..selection.m).step_by(GROUP_COLUMNS) {
            let at = (selection.first_group + group / GROUP_COLUMNS) * blocks;
            // SAFETY: as above.
            let peaks = unsafe { self.peaks.slice(at, blocks) };
            peaks.fill(Peaks::default());
            for column in group..selection.m.min(group + GROUP_COLUMNS) {
                let from = columns(column) / GROUP_COLUMNS * blocks;
                // The bounds of a group hold for each of its columns.
                for (peak, of) in peaks.iter_mut().zip(&x.peaks[from..][..blocks]) {
                    *peak = Peaks { of_16: peak.of_16.max(of.of_16), of_32: peak.of_32.max(of.of_32) };
                }
            }
        }
    }
}

/// The copy of one selection, array by array.
struct Copied<'a, C> {
    x: Layout,
    selection: Selection,
    columns: &'a C,
}

impl<C: Fn(usize) -> usize> Copied<'_, C> {
    /// Copies an array of so many entries in a column.
    ///
    /// # Safety
    /// The selection's part of `to` is the caller's.
    unsafe fn run<T: Copy>(&self, from: &[T], to: &SharedMut<'_, T>, entries: usize) {
        let padded = padded_columns(self.selection.m);
        // SAFETY: the caller's promise.
        let to = unsafe { to.slice(self.selection.first * entries, padded * entries) };
        if to.is_empty() {
            return;
        }
        let layout = Layout { m: self.selection.m };
        for column in 0..padded {
            let (source, source_step) = self.x.locate((self.columns)(column.min(self.selection.m - 1)), entries);
            let (target, target_step) = layout.locate(column, entries);
            let source = from[source..].iter().step_by(source_step);
            for (to, from) in to[target..].iter_mut().step_by(target_step).take(entries).zip(source) {
                *to = *from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activations, Kinds, Level, Serial};

    #[test]
    fn few_columns_leave_the_tiles_of_others_alone() {
        let (m, k) = (40, 256);
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 - 500.0).collect();
        let mut a = Activations::with_level(Level::Amx);
        a.quantize(&x, m, k, Kinds::BLOCK256, &Serial).unwrap();
        let x = a.inputs("", Kinds::BLOCK256).unwrap();
        let few = Selection::default().next(3);
        let many = few.next(20);
        let mut gathered = Gathered::default();
        gathered.reserve(&x, many.next(0));
        let targets = gathered.targets();
        // SAFETY: one after the other.
        unsafe {
            targets.gather(&x, many, |column| column);
            targets.gather(&x, few, |column| 30 + column);
        }
        let tiles = gathered.inputs(many).tiles;
        assert_eq!(tiles.len(), 2 * k / 64);
        for column in 0..20 {
            for step in 0..k / 64 {
                let at = column / 16 * (k / 64) + step;
                assert_eq!(tiles[at].0[column % 16], x.tiles[at].0[column % 16], "column {column}");
            }
        }
        assert!(gathered.inputs(few).tiles.is_empty());
    }
}
