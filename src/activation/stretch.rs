//! 256 codes of a group of columns: quantized column by column, then interleaved, and summed with columns in the lanes.
//! Scales, too, are of all columns at once: a reduction and two divisions for each one would take longer than its codes. A
//! column that is alone has eight stretches of its own side by side instead.

use crate::{
    kernel::{GROUP_COLUMNS, Peaks},
    simd::{FLOAT_ORIGIN, Isa, array_of},
};

/// Codes of a column that are quantized at a time, whatever the scales' group.
pub(super) const STRETCH: usize = 256;
/// Codes of which sums are kept, and twice as many.
const UNIT: usize = 32;
const UNITS: usize = STRETCH / UNIT;
/// Entries of four codes in a unit.
const STEPS: usize = UNIT / 4;
/// Lanes of the widest register.
const WIDEST: usize = 16;

/// Entries of all columns of a full group; where columns are missing, they stay zero.
pub(super) type Row<T> = [T; GROUP_COLUMNS];
/// Entries of four codes of a stretch.
pub(super) type CodeRows = [Row<i32>; STRETCH / 4];

/// What [`Inputs`](crate::kernel::Inputs) holds of a stretch beside the codes, for a full group of columns.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Stretch {
    pub by_column: Row<[i8; STRETCH]>,
    /// The bits of each group's largest magnitude: in one of the lanes, or the others hold smaller ones.
    magnitudes: [Row<[i32; WIDEST]>; UNITS],
    inverses: [Row<f32>; UNITS],
    /// What of the codes counts: nothing where the scale is NaN or 0.
    masks: [Row<i32>; UNITS],
    pub d: [Row<f32>; UNITS],
    pub neg_sums: [Row<i32>; UNITS],
    pub centres: [Row<i32>; 2 * UNITS],
    pub half_centres: [Row<i32>; 2 * UNITS],
    pub sums16: [Row<i32>; UNITS],
    pub sums32: [Row<i32>; UNITS / 2],
    pub d_sums: [Row<f32>; UNITS],
    pub starts: [Row<i32>; UNITS],
    /// What the columns' [`Peaks`] hold.
    of_16: Row<i32>,
    of_32: Row<i32>,
}

impl Stretch {
    /// All zeros.
    pub fn new() -> Self {
        Stretch {
            by_column: [[0; STRETCH]; GROUP_COLUMNS],
            magnitudes: [[[0; WIDEST]; GROUP_COLUMNS]; UNITS],
            inverses: [[0.0; GROUP_COLUMNS]; UNITS],
            masks: [[0; GROUP_COLUMNS]; UNITS],
            d: [[0.0; GROUP_COLUMNS]; UNITS],
            neg_sums: [[0; GROUP_COLUMNS]; UNITS],
            centres: [[0; GROUP_COLUMNS]; 2 * UNITS],
            half_centres: [[0; GROUP_COLUMNS]; 2 * UNITS],
            sums16: [[0; GROUP_COLUMNS]; UNITS],
            sums32: [[0; GROUP_COLUMNS]; UNITS / 2],
            d_sums: [[0.0; GROUP_COLUMNS]; UNITS],
            starts: [[0; GROUP_COLUMNS]; UNITS],
            of_16: [0; GROUP_COLUMNS],
            of_32: [0; GROUP_COLUMNS],
        }
    }

    /// Finds the largest magnitude of each group of up to 256 values of a column.
    #[inline(always)]
    pub fn measure<I: Isa, const GROUP: usize>(&mut self, isa: I, x: &[f32], column: usize) {
        const { assert!(I::LANES <= WIDEST) };
        // Magnitudes of floats order as integers, NaN above all.
        let magnitude = isa.splat(0x7FFF_FFFF);
        for (x, out) in x.as_chunks::<GROUP>().0.iter().zip(&mut self.magnitudes) {
            let mut largest = [isa.splat(0); 2];
            for at in (0..GROUP).step_by(2 * I::LANES) {
                for (i, largest) in largest.iter_mut().enumerate() {
                    // SAFETY: 2 · LANES divides GROUP.
                    let values = unsafe { isa.load(x.as_ptr().add(at + i * I::LANES).cast()) };
                    *largest = isa.max(*largest, isa.and(values, magnitude));
                }
            }
            // SAFETY: a register has at most as many lanes.
            unsafe { isa.store(out[column].as_mut_ptr().cast(), isa.max(largest[0], largest[1])) };
        }
    }

    /// The scales of all columns' first `len` values, from what was measured.
    #[inline(always)]
    pub fn scale<I: Isa, const GROUP: usize>(&mut self, isa: I, len: usize) {
        const { assert!(GROUP_COLUMNS.is_multiple_of(I::LANES) && WIDEST == 2 * GROUP_COLUMNS) };
        for group in 0..len / GROUP {
            let magnitudes = &mut self.magnitudes[group];
            let mut by_lane = [[0; GROUP_COLUMNS]; GROUP_COLUMNS];
            let mut amax = [0; GROUP_COLUMNS];
            // SAFETY: a column has lanes for two rows, of which the first takes the larger ones; 8 columns of 32 bytes are
            // interleaved into 8 rows; a register of columns ends with the row.
            unsafe {
                for lanes in magnitudes.iter_mut() {
                    for at in (0..GROUP_COLUMNS).step_by(I::LANES) {
                        let first: *mut u8 = lanes.as_mut_ptr().add(at).cast();
                        isa.store(first, isa.max(isa.load(first), isa.load(first.add(size_of::<Row<i32>>()))));
                    }
                }
                let to: *mut u8 = by_lane.as_mut_ptr().cast();
                isa.interleave_rows::<GROUP_COLUMNS>(magnitudes.as_ptr().cast(), WIDEST * 4, to);
                for at in (0..GROUP_COLUMNS).step_by(I::LANES) {
                    let mut largest = isa.splat(0);
                    for row in &by_lane {
                        largest = isa.max(largest, isa.load(row.as_ptr().add(at).cast()));
                    }
                    store(isa, &mut amax, at, largest);
                }
            }
            for (column, bits) in amax.into_iter().enumerate() {
                let (d, inverse) = scale_of(f32::from_bits(bits as u32));
                self.d[group][column] = d;
                self.inverses[group][column] = inverse;
                self.masks[group][column] = if inverse == 0.0 { 0 } else { -1 };
            }
        }
    }

    /// Quantizes up to 256 values of a column, whole groups, by the scales.
    #[inline(always)]
    pub fn quantize<I: Isa, const GROUP: usize>(&mut self, isa: I, x: &[f32], column: usize) {
        let span = 4 * I::LANES;
        if let Ok(x) = <&[f32; STRETCH]>::try_from(x) {
            for first in (0..STRETCH).step_by(span) {
                // SAFETY: 4 · LANES divides STRETCH.
                unsafe { self.quantize_span::<I, GROUP>(isa, x.as_ptr().add(first), first, column) };
            }
            return;
        }
        let mut padded = [0.0; 4 * WIDEST];
        for (i, values) in x[..x.len().min(STRETCH)].chunks(span).enumerate() {
            let from = if values.len() == span {
                values.as_ptr()
            } else {
                padded[..values.len()].copy_from_slice(values);
                padded.as_ptr()
            };
            // SAFETY: 4 · LANES values, and spans up to that of the last one are inside the stretch.
            unsafe { self.quantize_span::<I, GROUP>(isa, from, i * span, column) };
        }
    }

    /// Quantizes 4 · LANES values, which are those from `first` on of a column of the stretch.
    ///
    /// # Safety
    /// They are readable at `x`, and inside the stretch.
    #[inline(always)]
    unsafe fn quantize_span<I: Isa, const GROUP: usize>(&mut self, isa: I, x: *const f32, first: usize, column: usize) {
        // Adding 1.5 · 2²³ leaves the integer, rounded half to even, in the low bits.
        let magic = isa.bits_f32(isa.splat(FLOAT_ORIGIN));
        // SAFETY: the caller's promise; the column is one of the row's.
        unsafe {
            let codes = isa.pack_bytes(array_of(
                #[inline(always)]
                |quarter| {
                    let at = first + quarter * I::LANES;
                    let of_group = |rows: *const u8| isa.broadcast(rows.add(at / GROUP * size_of::<Row<i32>>()));
                    let inverse = of_group(self.inverses[0].as_ptr().add(column).cast());
                    let mask = of_group(self.masks[0].as_ptr().add(column).cast());
                    let scaled = isa.mul_f32(isa.load_f32(x.add(quarter * I::LANES)), isa.bits_f32(inverse));
                    let integer = isa.float_bits(isa.add_f32(scaled, magic));
                    // What is not finite would not be zero.
                    isa.and(integer, mask)
                },
            ));
            isa.store(self.by_column[column].as_mut_ptr().add(first).cast(), codes);
        }
    }

    /// Interleaves the columns' first `len` codes and sums them.
    #[inline(always)]
    pub fn sum<I: Isa, const GROUP: usize>(&mut self, isa: I, codes: &mut CodeRows, len: usize) {
        let units = len.min(STRETCH) / UNIT;
        for unit in 0..units {
            // SAFETY: 8 columns of 32 bytes, and 8 steps of 32 bytes.
            unsafe {
                let from = self.by_column.as_ptr().cast::<u8>().add(unit * UNIT);
                isa.interleave_rows::<GROUP_COLUMNS>(from, STRETCH, codes[unit * STEPS].as_mut_ptr().cast());
            }
        }
        for lanes in (0..GROUP_COLUMNS).step_by(I::LANES) {
            if GROUP == STRETCH {
                self.sum_superblock(isa, codes, lanes);
            } else {
                self.sum_blocks(isa, codes, lanes, units);
            }
        }
    }

    /// The sums of up to eight blocks of 32.
    #[inline(always)]
    fn sum_blocks<I: Isa>(&mut self, isa: I, codes: &CodeRows, lanes: usize, blocks: usize) {
        for unit in 0..blocks {
            let [a, b] = array_of(
                #[inline(always)]
                |half| {
                    sum_16(
                        isa,
                        codes,
                        0x0101_0101,
                        unit * STEPS + 4 * half,
                        lanes,
                        #[inline(always)]
                        |codes| codes,
                    )
                },
            );
            let sum = isa.add(a, b);
            // SAFETY: a register of columns ends with the row.
            unsafe {
                let d_sum = isa.mul_f32(isa.load_f32(self.d[unit].as_ptr().add(lanes)), isa.to_f32(sum));
                isa.store_f32(self.d_sums[unit].as_mut_ptr().add(lanes), d_sum);
                store(isa, &mut self.neg_sums[unit], lanes, isa.sub(isa.splat(0), sum));
                store(isa, &mut self.starts[unit], lanes, isa.sub(isa.splat(FLOAT_ORIGIN), isa.shl(sum, 7)));
            }
        }
    }

    /// Stores the centres of the sixteen `group`; gives the sum of its codes and that of their magnitudes.
    #[inline(always)]
    fn sum_centred<I: Isa>(&mut self, isa: I, codes: &CodeRows, group: usize, lanes: usize) -> (I::V, I::V) {
        let (step, zero) = (4 * group, isa.splat(0));
        let sums: [I::V; 2] = array_of(
            #[inline(always)]
            |upper| {
                sum_16(
                    isa,
                    codes,
                    0x0101 << (16 * upper),
                    step,
                    lanes,
                    #[inline(always)]
                    |codes| codes,
                )
            },
        );
        let magnitude = sum_16(
            isa,
            codes,
            0x0101_0101,
            step,
            lanes,
            #[inline(always)]
            |codes| isa.abs_i8(codes),
        );
        let [low, high] = array_of(
            #[inline(always)]
            |half| isa.sub(zero, isa.shl(sums[half], 5)),
        );
        store(isa, &mut self.centres[group], lanes, isa.add(low, high));
        store(isa, &mut self.half_centres[group], lanes, pair(isa, low, high));
        (isa.add(sums[0], sums[1]), magnitude)
    }

    /// The sums of a superblock.
    #[inline(always)]
    fn sum_superblock<I: Isa>(&mut self, isa: I, codes: &CodeRows, lanes: usize) {
        let zero = isa.splat(0);
        let (mut total, mut before, mut of_16, mut of_32) = (zero, zero, zero, zero);
        for unit in 0..UNITS {
            let (a, abs_a) = self.sum_centred(isa, codes, 2 * unit, lanes);
            let (b, abs_b) = self.sum_centred(isa, codes, 2 * unit + 1, lanes);
            let sum = isa.add(a, b);
            store(isa, &mut self.sums16[unit], lanes, pair(isa, a, b));
            if unit % 2 == 1 {
                store(isa, &mut self.sums32[unit / 2], lanes, pair(isa, before, sum));
            }
            before = sum;
            total = isa.add(total, sum);
            of_16 = isa.max(of_16, isa.max(abs_a, abs_b));
            // Positive codes sum to (Σ|x| + Σx) / 2, negative ones to (Σ|x| − Σx) / 2.
            let magnitude = isa.max(sum, isa.sub(zero, sum));
            of_32 = isa.max(of_32, isa.shr(isa.add(isa.add(abs_a, abs_b), magnitude), 1));
        }
        store(isa, &mut self.neg_sums[0], lanes, isa.sub(zero, total));
        store(isa, &mut self.of_16, lanes, of_16);
        store(isa, &mut self.of_32, lanes, of_32);
    }

    /// The bounds of `width` columns from column `first` on.
    #[inline(always)]
    pub fn peaks(&self, first: usize, width: usize) -> Peaks {
        let largest = |sums: &Row<i32>| sums[first..first + width].iter().fold(0, |max, &sum| max.max(sum as u16));
        Peaks { of_16: largest(&self.of_16), of_32: largest(&self.of_32) }
    }
}

/// `Σ f(codes)` over the four entries from `step` on, of the bytes of an entry that are 1 in `bytes`.
#[inline(always)]
fn sum_16<I: Isa>(isa: I, codes: &CodeRows, bytes: i32, step: usize, lanes: usize, f: impl Fn(I::V) -> I::V) -> I::V {
    let mut sum = [[isa.splat(0)]];
    isa.dot::<1, 4, 1, 1>(
        &mut sum,
        #[inline(always)]
        |_, _| isa.splat(bytes),
        #[inline(always)]
        |s, _| {
            // SAFETY: a register of columns ends with the row.
            f(unsafe { isa.load(codes[step + s].as_ptr().add(lanes).cast()) })
        },
    );
    sum[0][0]
}

/// The low halves of the lanes of `a`, those of `b` above them.
#[inline(always)]
fn pair<I: Isa>(isa: I, a: I::V, b: I::V) -> I::V {
    isa.or(isa.and(a, isa.splat(0xFFFF)), isa.shl(b, 16))
}

/// Stores a register of columns, from column `lanes` on.
#[inline(always)]
fn store<I: Isa>(isa: I, row: &mut Row<i32>, lanes: usize, v: I::V) {
    // SAFETY: a register of columns ends with the row.
    unsafe { isa.store(row.as_mut_ptr().add(lanes).cast(), v) }
}

/// The smallest group maximum that is not taken for zero: its reciprocal times 127 is still finite.
const SMALLEST: f32 = 1e-36;

/// The scale of a group and what its values are multiplied by; NaN and 0 if a value is not finite.
#[inline(always)]
fn scale_of(amax: f32) -> (f32, f32) {
    // Divided whatever comes of it: a choice between results takes no branch.
    let (d, inverse) = (amax / 127.0, 127.0 / amax);
    let (finite, counts) = (amax.is_finite(), amax >= SMALLEST);
    let d = if counts { d } else { 0.0 };
    (if finite { d } else { f32::NAN }, if finite & counts { inverse } else { 0.0 })
}
