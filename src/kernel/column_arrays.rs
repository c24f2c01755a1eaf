//! What is kept of every column of x besides its length: one list of arrays, whoever owns them.

/// Arrays with so many entries for each column; `I` holds those of integers, `F` those of floats.
///
/// They are vectors where columns are quantized or gathered, slices where kernels read them, and counts of entries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ColumnArrays<I, F> {
    /// Codes, four (as the bytes of an i32) to an entry.
    pub codes: I,
    /// Scales, one per 32 or 256.
    pub d: F,
    /// `−Σ codes` per 32 or 256.
    pub neg_sums: I,
    /// `−32 · Σ codes` per 16 (scales per 256 only).
    pub centres: I,
    /// The same of the two lower and of the two upper bytes of the four entries, as i16, the lower in the low half.
    pub half_centres: I,
    /// `Σ codes` per 16, two to an entry as i16, the first in the low half (scales per 256 only).
    pub sums16: I,
    /// `Σ codes` per 32, likewise (scales per 256 only).
    pub sums32: I,
    /// `d · Σ codes` per 32 (scales per 32 only).
    pub d_sums: F,
    /// `FLOAT_ORIGIN − 128 · Σ codes` per 32 (scales per 32 only).
    pub starts: I,
}

impl ColumnArrays<usize, usize> {
    /// Entries of a column of `k` codes with a scale per `GROUP`.
    pub fn entries<const GROUP: usize>(k: usize) -> Self {
        let only = |group: usize, codes: usize| if GROUP == group { k / codes } else { 0 };
        ColumnArrays {
            codes: k / 4,
            d: k / GROUP,
            neg_sums: k / GROUP,
            centres: only(256, 16),
            half_centres: only(256, 16),
            sums16: only(256, 32),
            sums32: only(256, 64),
            d_sums: only(32, 32),
            starts: only(32, 32),
        }
    }
}

impl<I, F> ColumnArrays<I, F> {
    /// What `ints` and `floats` make of each array.
    #[inline(always)]
    pub fn map<J, G>(self, mut ints: impl FnMut(I) -> J, mut floats: impl FnMut(F) -> G) -> ColumnArrays<J, G> {
        ColumnArrays {
            codes: ints(self.codes),
            d: floats(self.d),
            neg_sums: ints(self.neg_sums),
            centres: ints(self.centres),
            half_centres: ints(self.half_centres),
            sums16: ints(self.sums16),
            sums32: ints(self.sums32),
            d_sums: floats(self.d_sums),
            starts: ints(self.starts),
        }
    }

    /// Each array beside the other's.
    #[inline(always)]
    pub fn zip<J, G>(self, other: ColumnArrays<J, G>) -> ColumnArrays<(I, J), (F, G)> {
        ColumnArrays {
            codes: (self.codes, other.codes),
            d: (self.d, other.d),
            neg_sums: (self.neg_sums, other.neg_sums),
            centres: (self.centres, other.centres),
            half_centres: (self.half_centres, other.half_centres),
            sums16: (self.sums16, other.sums16),
            sums32: (self.sums32, other.sums32),
            d_sums: (self.d_sums, other.d_sums),
            starts: (self.starts, other.starts),
        }
    }

    /// The arrays by reference.
    pub fn each_ref(&self) -> ColumnArrays<&I, &F> {
        ColumnArrays {
            codes: &self.codes,
            d: &self.d,
            neg_sums: &self.neg_sums,
            centres: &self.centres,
            half_centres: &self.half_centres,
            sums16: &self.sums16,
            sums32: &self.sums32,
            d_sums: &self.d_sums,
            starts: &self.starts,
        }
    }

    /// The arrays by mutable reference.
    pub fn each_mut(&mut self) -> ColumnArrays<&mut I, &mut F> {
        ColumnArrays {
            codes: &mut self.codes,
            d: &mut self.d,
            neg_sums: &mut self.neg_sums,
            centres: &mut self.centres,
            half_centres: &mut self.half_centres,
            sums16: &mut self.sums16,
            sums32: &mut self.sums32,
            d_sums: &mut self.d_sums,
            starts: &mut self.starts,
        }
    }
}
