//! The layout classes: what a kernel has to know of a format, as constants.

/// A layout class: how codes, scales and minima of 16 rows lie interleaved, and the arithmetic over them.
pub trait Tile: Copy + core::fmt::Debug + Send + Sync + 'static {
    /// Bits of a stored code.
    const BITS: u32;
    /// What is subtracted from the unsigned code.
    const BIAS: i32;
    /// Weights that share one integer scale; equal to the block where there are no integer scales.
    const GROUP: usize;
    /// Whether groups (or 32-blocks) have a minimum.
    const MIN: bool;
}

/// Blocks of 32 with an f16 scale and, with `MIN`, an f16 minimum that is added: `w = d·(code − BIAS) + m`.
#[derive(Debug, Clone, Copy)]
pub struct FlatTile<const BITS: u32, const BIAS: i32, const MIN: bool>;

/// Superblocks of 256 with an f16 scale over integer scales of `SCALE_BITS` per group of `GROUP`, and with `MIN` an f16
/// over integer minima of as many bits: `w = d·(scale − SCALE_BIAS)·(code − BIAS) − dmin·min`.
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

/// Floating-point weights of `BITS` bits, interleaved as they are.
#[derive(Debug, Clone, Copy)]
pub struct FloatTile<const BITS: u32>;

impl<const BITS: u32, const BIAS: i32, const MIN: bool> Tile for FlatTile<BITS, BIAS, MIN> {
    const BITS: u32 = BITS;
    const BIAS: i32 = BIAS;
    const GROUP: usize = 32;
    const MIN: bool = MIN;
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> Tile for SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    const BITS: u32 = BITS;
    const BIAS: i32 = BIAS;
    const GROUP: usize = GROUP;
    const MIN: bool = MIN;
}

impl<const BITS: u32> Tile for FloatTile<BITS> {
    const BITS: u32 = BITS;
    const BIAS: i32 = 0;
    const GROUP: usize = 1;
    const MIN: bool = false;
}
