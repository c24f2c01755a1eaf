//! The layout classes: what a kernel has to know of a format, as constants.

use super::{driver::Job, native::Window};
use crate::{
    QuantBlock,
    activation::Kinds,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::ops::Range;

/// A layout class: how codes, scales and minima of 16 rows lie interleaved, and the arithmetic over them.
///
/// Formats choose one of [`FlatTile`], [`SuperTile`] and [`FloatTile`]; there are no others.
pub trait Tile: sealed::Sealed + Copy + core::fmt::Debug + Send + Sync + 'static {
    /// Weights of a row in a block.
    const BLOCK: usize;
    /// Bits of a stored code.
    const BITS: u32;
    /// What is subtracted from the unsigned code.
    const BIAS: i32;
    /// Weights that share one integer scale; equal to the block where there are no integer scales.
    const GROUP: usize;
    /// Whether groups (or 32-blocks) have a minimum.
    const MIN: bool;
    /// The form of the activations that the kernels multiply by.
    const KINDS: Kinds;
    /// The kernel's name without the instruction set: `flat4`, `super6x16`, …
    const KERNEL: &'static str;
    /// Bytes of one packed block of 16 rows.
    const TILE_BYTES: usize;

    /// Multiplies the rows of `panels` (of 16 rows) by all of x.
    #[doc(hidden)]
    fn multiply<F: QuantBlock<Tile = Self>>(job: &Job<'_>, panels: Range<usize>);

    /// Packs a panel: the blocks of 16 rows (fewer in the last panel; the rest becomes zeros), all of k. Writes all of `out`.
    #[doc(hidden)]
    fn pack<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, rows: &[&[F::Block]], out: &mut [u8]);

    /// The weights of native blocks of one row.
    #[doc(hidden)]
    #[inline(always)]
    fn dequantize_native<F: QuantBlock<Tile = Self>, I: Isa>(_: I, blocks: &[F::Block], out: &mut [f32]) {
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(F::BLOCK)) {
            F::dequantize(block, out);
        }
    }

    /// Widens packed blocks that are floats already, lanes of rows; `false` where they are not.
    #[doc(hidden)]
    #[inline(always)]
    fn widen_packed<I: Isa>(_: I, _: &[u8], _: &mut [[f32; 16]]) -> bool {
        false
    }

    /// The weights of one row of a packed block, bit for bit as the format's `dequantize` gives them.
    #[doc(hidden)]
    fn dequantize_packed(tile: &[u8], row: usize, out: &mut [f32]);
}

mod sealed {
    pub trait Sealed {}
    impl<const BITS: u32, const BIAS: i32, const MIN: bool> Sealed for super::FlatTile<BITS, BIAS, MIN> {}
    impl<
        const BITS: u32,
        const BIAS: i32,
        const GROUP: usize,
        const SCALE_BITS: u32,
        const SCALE_BIAS: i32,
        const MIN: bool,
    > Sealed for super::SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
    {
    }
    impl<const BITS: u32, const EXPONENT_BITS: u32> Sealed for super::FloatTile<BITS, EXPONENT_BITS> {}
}

/// Blocks of 32 with an f16 scale and, with `MIN`, an f16 minimum that is added: `w = d·(code − BIAS) + m`.
#[derive(Debug, Clone, Copy)]
pub struct FlatTile<const BITS: u32, const BIAS: i32, const MIN: bool>;

/// Superblocks of 256 with an f16 scale over integer scales of `SCALE_BITS` per group of `GROUP`, and with `MIN` an f16
/// over integer minima of as many bits: `w = d·(scale − SCALE_BIAS)·(code − BIAS) − dmin·min`, where `scale − SCALE_BIAS` fits an
/// i8.
///
/// `SCALE_BITS = 0` stands for one f32 scale per superblock and no group scales.
#[derive(Debug, Clone, Copy)]
pub struct SuperTile<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
>;

/// Floating-point weights of `BITS` bits, `EXPONENT_BITS` of them the exponent, interleaved as they are.
#[derive(Debug, Clone, Copy)]
pub struct FloatTile<const BITS: u32, const EXPONENT_BITS: u32>;

/// High bytes of the products of a superblock's codes and scales, as codes lie.
pub type HighBytes = [[u8; VECTOR_BYTES]; 64];

/// What a scratch block of 16 rows and the integer microkernels over it are, for one tile class.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AMX is x86-64's"))]
pub(super) trait IntTile: Tile {
    /// One block of 16 rows, first its codes as bytes, then scales as the microkernel wants them.
    type Expanded: Copy;
    /// What native blocks meet of x: places in x and in a [`Window`].
    type Operand: Copy;

    /// Whether expanded codes may be products with their groups' scales, which many columns gain from.
    const FOLDABLE: bool = false;
    /// Whether products with groups' scales take two bytes.
    const TWO_BYTES: bool = false;
    /// Whether blocks have one sum for so many codes that tiles are worth it: what lanes do with a sum takes as long as tiles
    /// take for a hundred codes.
    const IN_TILES: bool = Self::BLOCK >= 256;

    /// Expands a packed block; with `FOLDED`, codes become products with their groups' scales.
    ///
    /// # Safety
    /// `tile` points to `TILE_BYTES` readable bytes, `out` to a writable block.
    unsafe fn expand_packed<I: Isa, const FOLDED: bool>(isa: I, tile: *const u8, out: *mut Self::Expanded);

    /// Makes the codes of an expanded block products with their groups' scales, the low bytes; the high ones go to `high`.
    ///
    /// # Safety
    /// `out` is an expanded block of products of two bytes, `high` writable.
    #[inline(always)]
    unsafe fn split<I: Isa>(_: I, _: *mut Self::Expanded, _: *mut HighBytes) {}

    /// Adds what the integer sums of an expanded block and `W` columns come to, which are those of products with groups' scales
    /// where there are such: of their low bytes and, if they take two, of the high ones. Only for classes [`IntTile::IN_TILES`].
    /// `from` and `to` say where the sums of floats lie before and after, and how many floats lie from those of a column to those
    /// of the next.
    ///
    /// # Safety
    /// The block is expanded, x has the columns and the block, sums of 16 rows lie there for each column.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn add_sums<I: Isa, const W: usize>(
        _: I,
        _: &super::Inputs<'_>,
        _: super::Columns<W>,
        _: usize,
        _: *const Self::Expanded,
        _: [*const [i32; PANEL_ROWS]; 2],
        _: (*const f32, usize),
        _: (*mut f32, usize),
    ) {
    }

    /// Codes as they lie expanded.
    #[inline(always)]
    fn expanded_codes<I: Isa>(_: I, codes: I::V) -> I::V {
        codes
    }

    /// Adds what belongs to the codes of an expanded block, from the views of 16 rows; folds it into the codes if
    /// `FOLDED`.
    ///
    /// # Safety
    /// `out` points to a writable block with codes.
    unsafe fn expand_scales<I: Isa, const FOLDED: bool>(isa: I, views: &[BlockCodes; 16], out: *mut Self::Expanded);

    /// The register tile over expanded panels: `acc` plus the product of `MR` registers of rows from `panels` on (panels
    /// are `stride` blocks apart) and `NR` `columns` over `blocks` of k. `before` is called with the number, from 0 on, of each
    /// block.
    ///
    /// # Safety
    /// The panels are expanded and the columns, blocks and outputs inside their arrays.
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply_expanded<I: Isa, const MR: usize, const NR: usize, const W: usize, const FOLDED: bool>(
        isa: I,
        panels: *const Self::Expanded,
        stride: usize,
        x: &super::Inputs<'_>,
        columns: super::Columns<W>,
        blocks: Range<usize>,
        acc: [[I::F; NR]; MR],
        before: impl Fn(usize),
    ) -> [[I::F; NR]; MR];

    /// Decode and small batches: adds the product of a packed tile's rows from `row` on, `MR` registers of them, and of `NR` columns
    /// of x to the sums. Codes are unpacked in registers; with `AHEAD`, all calls for a tile together ask for the tile behind it
    /// in the pair.
    ///
    /// # Safety
    /// A packed tile lies at the first of the pair, the rows end at 16, x has the columns and the block.
    unsafe fn multiply_tile<I: Isa, const MR: usize, const NR: usize, const W: usize, const AHEAD: bool>(
        isa: I,
        tile: (*const u8, *const u8),
        row: usize,
        x: &super::Inputs<'_>,
        columns: super::Columns<W>,
        block: usize,
        acc: &mut [[I::F; NR]; MR],
    );

    /// The only column of x from block `first` on as decode from native blocks meets it, what has to be moved in `window`.
    fn operand<F: QuantBlock<Tile = Self>, I: Isa>(
        x: &super::Inputs<'_>,
        first: usize,
        window: &mut Window,
    ) -> Self::Operand;

    /// Decode from native blocks: what each block of a run of rows adds to its row's sum, one after the other; the first block
    /// meets the first of `x_blocks`, and those behind one that meets the last begin with the first again.
    ///
    /// # Safety
    /// `x` has the blocks and is still where it was, and there is room for the terms and a register.
    unsafe fn run_terms<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        x: Self::Operand,
        x_blocks: Range<usize>,
        terms: *mut f32,
    );
}
