//! Decode from native superblocks: lanes are codes of one row, then superblocks, of that row and the ones that follow.
//!
//! Instructions for 64 products with AVX-512, from the assembly: Q2_K 12, Q6_K 14, Q3_K and Q4_K 18, Q5_K 21; 50 to 80 more add
//! across the lanes of 16 superblocks. What limits them on Zen 4 are its four vector ports, of which one of 512 bits holds one
//! for two cycles: from L2 16 (Q2_K, Q4_K) to 22 cycles a superblock. Six-bit scales are unpacked in general registers
//! for that: in vector ones it takes a third of the instructions, and Q3_K and Q5_K were slower.

use super::{
    super::{
        Inputs,
        flat::remaining_bias,
        native::{NativeBlock, Window},
        stream::{AHEAD_BYTES, asks_for_superblocks, prefetch},
        tile::SuperTile,
    },
    BLOCK,
};
use crate::{
    QuantBlock,
    format::{Plane, Planes},
    kernel::Tile,
    simd::{Isa, PANEL_ROWS, array_of, dot_register_scaled},
};
use core::ops::Range;

/// Superblocks whose sums are kept: of two registers. Sums that were only just stored in parts are not loaded whole yet, so
/// those of one are finished when those of the next have been collected.
const KEPT: usize = 2 * PANEL_ROWS;

/// What makes the terms of superblocks.
#[repr(C, align(64))]
struct Sums {
    /// Eight lanes, or as many as there are, of products scaled by groups.
    products: [[i32; 8]; KEPT],
    /// Likewise of minima and x's sums, four lanes for each superblock of eight groups.
    mins: [[i32; 4]; 2 * KEPT],
    /// Scales; f16 ones with their minima's, which lie beside them in blocks, in the upper halves: one load for the two.
    d: [u32; KEPT],
}

/// What superblocks meet of x, from the first one on; numbers go around, as registers that take superblocks of two rows do.
#[derive(Clone, Copy)]
pub struct Operand {
    codes: *const u8,
    d: *const f32,
    /// Sums of the codes of each group.
    group_sums: *const i16,
    neg_sums: *const i32,
}

impl Operand {
    /// [`IntTile::operand`](super::super::tile::IntTile::operand).
    #[inline(always)]
    pub(super) fn new<F: QuantBlock, I: Isa>(x: &Inputs<'_>, first: usize, window: &mut Window) -> Operand {
        let arrays = &x.arrays;
        let group = F::Tile::GROUP;
        let group_sums = if group == 16 { arrays.sums16 } else { arrays.sums32 };
        let codes = match planes::<F, I>() {
            Some(planes) if planes.low.stride < I::LANES * 4 => {
                window.interleave::<32>(x, first * BLOCK, 2, planes.low.span() / planes.low.stride)
            }
            _ => arrays.codes.as_ptr().cast::<u8>().wrapping_add(first * BLOCK),
        };
        let blocks = Window::codes_of(x, first * BLOCK).len() / BLOCK;
        let (numbers, places) = (first..first + blocks, blocks + I::LANES - 1);
        Operand {
            codes,
            d: window.around(0, &arrays.d[numbers.clone()], places),
            group_sums: group_sums.as_ptr().cast::<i16>().wrapping_add(first * (BLOCK / group)),
            neg_sums: window.around(1, &arrays.neg_sums[numbers], places),
        }
    }

    /// With the numbers for superblock `block` of a run that goes around these of x.
    #[inline(always)]
    fn numbers_of(self, x_blocks: &Range<usize>, block: usize) -> Operand {
        let number = x_blocks.start + block % x_blocks.len();
        Operand { d: self.d.wrapping_add(number), neg_sums: self.neg_sums.wrapping_add(number), ..self }
    }
}

/// `N` registers from `p` on.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn registers<I: Isa, const N: usize>(isa: I, p: *const u8) -> [I::V; N] {
    array_of(
        #[inline(always)]
        // SAFETY: the caller's promise.
        |i| unsafe { isa.load(p.add(i * I::LANES * 4)) },
    )
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    /// [`IntTile::run_terms`](super::super::tile::IntTile::run_terms).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn terms_of_run<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        x: Operand,
        x_blocks: Range<usize>,
        terms: *mut f32,
    ) {
        let mut sums = Sums { products: [[0; 8]; KEPT], mins: [[0; 4]; 2 * KEPT], d: [0; KEPT] };
        // The place of the next superblock, and how many registers of them have been collected and finished.
        let (mut at, mut collected, mut finished) = (0, 0, 0);
        // SAFETY: places are below twice LANES, x has the superblocks, and there is room for a register behind all terms.
        unsafe {
            for row in blocks.chunks_exact(x_blocks.len()) {
                for (i, block) in row.iter().enumerate() {
                    Self::collect::<F, I>(isa, block, x, x_blocks.start + i, &mut sums, at);
                    at += 1;
                    if at.is_multiple_of(I::LANES) {
                        collected += 1;
                        at = collected % 2 * I::LANES;
                        if collected > 1 {
                            let first = finished * I::LANES;
                            Self::finish(isa, &sums, at, x.numbers_of(&x_blocks, first), terms.add(first));
                            finished += 1;
                        }
                    }
                }
            }
            while finished * I::LANES < blocks.len() {
                let (at, first) = (finished % 2 * I::LANES, finished * I::LANES);
                Self::finish(isa, &sums, at, x.numbers_of(&x_blocks, first), terms.add(first));
                finished += 1;
            }
        }
    }

    /// Puts what superblock `block` of a row and the one of number `number` of x make together to place `at`.
    ///
    /// # Safety
    /// x has the superblock, and there is the place.
    #[inline(always)]
    unsafe fn collect<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: &F::Block,
        x: Operand,
        number: usize,
        sums: &mut Sums,
        at: usize,
    ) {
        let narrow = isa.narrow();
        if asks_for_superblocks::<I>(NativeBlock::<F>::IN_PLACE.is_some()) {
            let ahead = (&raw const *block).cast::<u8>().wrapping_add(AHEAD_BYTES);
            prefetch(isa, ahead, size_of::<F::Block>());
        }
        let block = NativeBlock::<F>::read(isa, block);
        let count = if GROUP == 16 { 16 } else { 8 };
        let group_sums = x.group_sums.wrapping_add(number * count);
        let bias = const { remaining_bias::<I>(BITS, BIAS) };
        // SAFETY: the caller's promise.
        unsafe {
            let d = if MIN { block.view.d & 0xFFFF | block.view.dmin << 16 } else { block.view.d };
            *sums.d.get_unchecked_mut(at) = d;
            let codes = x.codes.add(number * BLOCK);
            let mut product = isa.fold_lanes(Self::product::<F, I>(isa, &block, codes));
            if Self::SCALED && bias != 0 {
                let scaled = isa.dot_sums(&block.view.scales, SCALE_BIAS as i16, group_sums, count);
                product = narrow.sub(product, narrow.mul(scaled, narrow.splat(bias)));
            }
            narrow.store(sums.products.as_mut_ptr().add(at).cast(), product);
            if MIN {
                let min = isa.dot_sums(&block.view.mins, 0, group_sums, count);
                let mins = sums.mins.as_mut_ptr();
                if const { GROUP == 32 } {
                    narrow.store_four(mins.add(at).cast(), min);
                } else {
                    narrow.store(mins.add(2 * at).cast(), min);
                }
            }
        }
    }

    /// The terms of the superblocks at `LANES` places from `first` on.
    ///
    /// # Safety
    /// There are the places, and `LANES` floats at `terms` are writable.
    #[inline(always)]
    unsafe fn finish<I: Isa>(isa: I, sums: &Sums, first: usize, x: Operand, terms: *mut f32) {
        let bias = const { remaining_bias::<I>(BITS, BIAS) };
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = isa.sum_eights(registers(isa, sums.products.as_ptr().add(first).cast()));
            if !Self::SCALED && bias != 0 {
                sum = isa.add(sum, isa.mul(isa.load(x.neg_sums.cast()), isa.splat(bias)));
            }
            let both = isa.load(sums.d.as_ptr().add(first).cast());
            let [d, dmin] = if Self::SCALED { isa.widen_f16_halves(both) } else { [isa.bits_f32(both); 2] };
            let mut term = isa.mul_f32(d, isa.to_f32(sum));
            if MIN {
                let mins = sums.mins.as_ptr();
                let mins = if const { GROUP == 32 } {
                    isa.sum_fours(registers(isa, mins.add(first).cast()))
                } else {
                    isa.sum_eights(registers(isa, mins.add(2 * first).cast()))
                };
                term = isa.sub_f32(term, isa.mul_f32(dmin, isa.to_f32(mins)));
            }
            isa.store_f32(terms, isa.mul_f32(term, isa.load_f32(x.d)));
        }
    }

    /// In any lanes, the sum of a block's products with x's codes, scaled by groups.
    ///
    /// # Safety
    /// `x` points to 256 codes.
    #[inline(always)]
    unsafe fn product<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, block: &NativeBlock<'_, F>, x: *const u8) -> I::V {
        let mut sum = [[isa.splat(0)]];
        // SAFETY: the caller's promise; a superblock has so many registers.
        unsafe {
            if const { planes::<F, I>().is_none() } {
                for i in 0..BLOCK / 4 / I::LANES {
                    Self::add_register(isa, block, x, i, &mut sum);
                }
            } else {
                Self::add_registers::<F, I>(isa, block, x, 0, &mut sum);
                if const { I::LANES < 16 } {
                    Self::add_registers::<F, I>(isa, block, x, 4, &mut sum);
                }
            }
        }
        sum[0][0]
    }

    /// Adds the products of four registers. Written out: a loop may stay one, and then the places in planes are computed.
    ///
    /// # Safety
    /// `x` points to 256 codes, among which the registers are.
    #[inline(always)]
    unsafe fn add_registers<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: &NativeBlock<'_, F>,
        x: *const u8,
        first: usize,
        sum: &mut [[I::V; 1]; 1],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if const { Self::SCALED && BITS <= 6 } {
                Self::add_pair(isa, block, x, first, sum);
                Self::add_pair(isa, block, x, first + 2, sum);
            } else {
                Self::add_register(isa, block, x, first, sum);
                Self::add_register(isa, block, x, first + 1, sum);
                Self::add_register(isa, block, x, first + 2, sum);
                Self::add_register(isa, block, x, first + 3, sum);
            }
        }
    }

    /// Adds the products of registers `i` and `i + 1`, of scaled codes of at most 6 bits.
    ///
    /// # Safety
    /// `x` points to 256 codes, among which the registers are.
    #[inline(always)]
    unsafe fn add_pair<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: &NativeBlock<'_, F>,
        x: *const u8,
        i: usize,
        sum: &mut [[I::V; 1]; 1],
    ) {
        let halves = [halves::<F, I>(i), halves::<F, I>(i + 1)];
        // SAFETY: the caller's promise, on both sides.
        let (w, x) = unsafe {
            let w = [codes(isa, block, halves[0]), codes(isa, block, halves[1])];
            (w, [isa.load(x.add(i * I::LANES * 4)), isa.load(x.add((i + 1) * I::LANES * 4))])
        };
        isa.dot_pair_scaled::<GROUP>(sum, (&block.view.scales, SCALE_BIAS as i16), halves, w, x);
    }

    /// Adds the products of register `i`.
    ///
    /// # Safety
    /// `x` points to 256 codes, among which the register is.
    #[inline(always)]
    unsafe fn add_register<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        block: &NativeBlock<'_, F>,
        x: *const u8,
        i: usize,
        sum: &mut [[I::V; 1]; 1],
    ) {
        let halves = halves::<F, I>(i);
        // SAFETY: the caller's promise, on both sides.
        let (w, x) = unsafe { (codes(isa, block, halves), isa.load(x.add(i * I::LANES * 4))) };
        if const { !Self::SCALED } {
            return isa.dot::<BITS, 1, 1, 1>(
                sum,
                #[inline(always)]
                |_, _| w,
                #[inline(always)]
                |_, _| x,
            );
        }
        let scales = (&block.view.scales, SCALE_BIAS as i16);
        // One step of 6-bit codes still fits the depth of 4-bit ones, uncentred.
        if const { BITS <= 6 } {
            dot_register_scaled::<I, 4, GROUP>(isa, sum, scales, halves, w, x);
        } else {
            dot_register_scaled::<I, 8, GROUP>(isa, sum, scales, halves, w, x);
        }
    }
}

/// The planes that codes are taken from; what has no vectors better takes them from the integer view.
#[inline(always)]
const fn planes<F: QuantBlock, I: Isa>() -> Option<Planes> {
    if I::LANES < 8 { None } else { const { Planes::of::<F>() } }
}

/// The codes that the two halves of register `i` start with: codes that follow one another, or that lie at the same bits of
/// as many bytes.
#[inline(always)]
const fn halves<F: QuantBlock, I: Isa>(i: usize) -> [usize; 2] {
    let (run, half) = (I::LANES * 4, I::LANES * 2);
    match planes::<F, I>() {
        Some(planes) if planes.low.stride < run => {
            let (stride, span) = (planes.low.stride, planes.low.span());
            assert!(stride == half);
            let first = i * half / span * 2 * span + i * half % span;
            [first, first + span]
        }
        _ => [i * run, i * run + half],
    }
}

/// In every byte, the bits of a plane's code from bit `to` on.
#[inline(always)]
const fn mask(plane: Plane, to: u32) -> i32 {
    ((plane.mask() as i32) << to) * 0x0101_0101
}

/// The unsigned codes of `block` whose halves start at these.
///
/// # Safety
/// They are [`halves`].
#[inline(always)]
unsafe fn codes<F: QuantBlock, I: Isa>(isa: I, block: &NativeBlock<'_, F>, halves: [usize; 2]) -> I::V {
    let Some(planes) = planes::<F, I>() else {
        // SAFETY: the caller's promise.
        return unsafe { NativeBlock::<F>::unsigned(isa, isa.load(block.codes().add(halves[0]))) };
    };
    let (byte, bit) = planes.low.place(halves[0]);
    // SAFETY: the planes are inside the block.
    let low = isa.and(isa.shr(unsafe { isa.load(block.bytes().add(byte)) }, bit), isa.splat(mask(planes.low, 0)));
    let Some(plane) = planes.high else { return low };
    let (first, second, to) = (plane.place(halves[0]), plane.place(halves[1]), planes.low.bits);
    // SAFETY: as above; the bits of both halves lie in the same bytes, or follow one another.
    let high = unsafe {
        let bytes = block.bytes().add(first.0);
        if first.0 == second.0 { isa.load_half_twice(bytes, second.1 - first.1) } else { isa.load(bytes) }
    };
    let high = if first.1 < to { isa.shl(high, to - first.1) } else { isa.shr(high, first.1 - to) };
    isa.or(low, isa.and(high, isa.splat(mask(plane, to))))
}
