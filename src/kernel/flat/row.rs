//! Decode from native blocks of 32: lanes are codes of one row, then blocks of that row.

use super::{
    super::{
        Inputs,
        planes::UNIT_CODES,
        tile::{FlatTile, RowBlocks},
    },
    remaining_bias,
};
use crate::simd::{Isa, PANEL_ROWS, array_of};
use core::ops::Range;

/// What of x the blocks meet, where x ends before the registers do.
#[repr(C, align(64))]
struct Tail {
    codes: [[i8; UNIT_CODES]; PANEL_ROWS],
    d: [f32; PANEL_ROWS],
    d_sums: [f32; PANEL_ROWS],
    neg_sums: [i32; PANEL_ROWS],
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> FlatTile<BITS, BIAS, MIN> {
    /// [`IntTile::row_terms`](super::super::tile::IntTile::row_terms).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn terms<I: Isa>(
        isa: I,
        row: &RowBlocks<'_>,
        x: &Inputs<'_>,
        range: Range<usize>,
        terms: *mut f32,
    ) {
        let len = range.len();
        let first = range.start;
        let mut tail;
        // SAFETY: `len` blocks of x from `first` on are inside its arrays, and LANES elements inside the tail's; there are
        // LANES blocks of weights.
        unsafe {
            let mut codes: *const u8 = x.codes.as_ptr().cast::<u8>().add(first * UNIT_CODES);
            let (mut dx, mut d_sums) = (x.d.as_ptr().add(first), x.d_sums.as_ptr().add(first));
            let mut neg_sums = x.neg_sums.as_ptr().add(first);
            if len < I::LANES {
                tail = Tail {
                    codes: [[0; UNIT_CODES]; PANEL_ROWS],
                    d: [0.0; PANEL_ROWS],
                    d_sums: [0.0; PANEL_ROWS],
                    neg_sums: [0; PANEL_ROWS],
                };
                core::ptr::copy_nonoverlapping(codes, tail.codes.as_mut_ptr().cast(), len * UNIT_CODES);
                core::ptr::copy_nonoverlapping(dx, tail.d.as_mut_ptr(), len);
                core::ptr::copy_nonoverlapping(d_sums, tail.d_sums.as_mut_ptr(), len);
                core::ptr::copy_nonoverlapping(neg_sums, tail.neg_sums.as_mut_ptr(), len);
                (codes, dx, d_sums) = (tail.codes.as_ptr().cast(), tail.d.as_ptr(), tail.d_sums.as_ptr());
                neg_sums = tail.neg_sums.as_ptr();
            }
            let mut sums = isa.sum_eights(array_of(
                #[inline(always)]
                |i| {
                    let mut sum = [[isa.splat(0)]];
                    isa.dot::<BITS, 1, 1, 1>(
                        &mut sum,
                        #[inline(always)]
                        |_, _| row.load_units(isa, i),
                        #[inline(always)]
                        |_, _| isa.load(codes.add(i * I::LANES * 4)),
                    );
                    sum[0][0]
                },
            ));
            let bias = const { remaining_bias::<I>(BITS, BIAS) };
            if bias != 0 {
                sums = isa.add(sums, isa.mul(isa.load(neg_sums.cast()), isa.splat(bias)));
            }
            let d = isa.widen_f16(isa.load(row.d.as_ptr().cast()));
            let sums = isa.add(sums, isa.splat(I::SUM_ORIGIN));
            let mut term = isa.mul_f32(isa.scale_sum(sums, d, isa.scale_origin(d)), isa.load_f32(dx));
            if MIN {
                let m = isa.widen_f16(isa.load(row.dmin.as_ptr().cast()));
                term = isa.add_f32(term, isa.mul_f32(m, isa.load_f32(d_sums)));
            }
            isa.store_f32(terms, term);
        }
    }
}
