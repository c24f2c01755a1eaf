//! What a kernel asks of an instruction set: registers of 32-bit lanes and a dot of bytes.
//!
//! An [`Isa`] value is the proof that the CPU has the instructions, so its methods are safe; only those that touch
//! memory are not. All of them are `#[inline(always)]` and are meant to be called inside [`Isa::vectorize`], where the
//! instructions are enabled. Every implementation gives the same bits: integer sums are exact, and float operations
//! are single IEEE operations, never contracted: where a product and a sum are rounded once, the code says so.

use super::Level;

/// 1.5 · 2²³: adding it to a float below 2²² rounds to an integer, which then stands in the low mantissa bits.
pub const ROUND: f32 = 12_582_912.0;

/// The bits of [`ROUND`]: adding an integer below 2²² to them adds it to the float.
pub const FLOAT_ORIGIN: i32 = ROUND.to_bits() as i32;

/// The largest magnitude of a code of `bits` in [`Isa::dot_scaled`]'s sums: those of 6 bits are centred.
#[inline(always)]
pub const fn largest_code(bits: u32) -> i32 {
    if bits == 6 { 32 } else { (1 << bits) - 1 }
}

/// Whether the sum of the products of any `codes` codes of `bits` and x fits an i16.
#[inline(always)]
pub const fn sums_fit(bits: u32, codes: usize) -> bool {
    largest_code(bits) as usize * 127 * codes <= i16::MAX as usize
}

/// Rows of a panel, whatever the register width: a panel's vectors hold 4 codes of each of 16 rows.
pub const PANEL_ROWS: usize = 16;
/// Bytes of a panel's vector.
pub const VECTOR_BYTES: usize = PANEL_ROWS * 4;

/// A microkernel whose register tile the instruction set chooses.
pub trait RegisterTile {
    /// Runs the kernel over `MR` registers of rows and `NR` columns of a group `W` wide, from its column `first` on.
    ///
    /// # Safety
    /// As the implementation says; [`Isa::register_tile`] and [`Isa::column_tile`] guarantee that `W` is the width that
    /// they were called with, and that the columns are inside the group.
    unsafe fn run<I: Isa, const MR: usize, const NR: usize, const W: usize>(&mut self, isa: I, first: usize);
}

/// An instruction set: a token that proves that the CPU has it.
pub trait Isa: Copy + Send + Sync + 'static {
    /// Which level this is.
    const LEVEL: Level;
    /// 32-bit lanes of a register.
    const LANES: usize;
    /// Registers that hold one vector of a panel.
    const REGISTERS: usize = PANEL_ROWS / Self::LANES;
    /// Panels that the prefill microkernel takes at once.
    const PANELS: usize;
    /// Columns of a group that [`Isa::column_tile`] takes in one run, at most.
    const RUN_COLUMNS: usize;
    /// Whether the byte dot takes 8-bit codes as `code − 128` (it then sums signed bytes).
    const CENTERS_8BIT: bool;
    /// Whether [`Isa::dot_scaled`] takes 6-bit codes as `code − 32`, which its `centre` argument subtracts.
    const CENTERS_6BIT: bool;
    /// Whether it wants `centre` as two i16, for the bytes in each half of a lane, instead of one i32.
    const HALF_CENTRES: bool;
    /// Whether [`Isa::dot_scaled`] gains from knowing that its sums fit an i16.
    const PREFERS_I16_SUMS: bool;
    /// Whether a dot takes whole bytes at the price of narrow codes: expanded ones may all have the bias 128, packed ones be
    /// multiplied where they stand.
    const WHOLE_BYTES: bool;
    /// Whether sums of few steps, added to others, are faster than sums of many, each of which waits for the one before.
    const SHORT_CHAINS: bool;
    /// What the sums that [`Isa::scale_sum`] takes start from.
    const SUM_ORIGIN: i32;
    /// Whether products of codes and group scales are better made once, when a panel is expanded, where they fit a byte.
    const FOLDS_SCALES: bool;
    /// The instruction set itself, or one with eight lanes that this one implies.
    type Narrow: Isa;
    /// Integer lanes, or bytes.
    type V: Copy;
    /// f32 lanes.
    type F: Copy;

    /// Runs `f` with the instructions enabled.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// Runs `f`, which is `#[inline(always)]`, in a function of its own, where the instructions are enabled already: its stack
    /// and its registers hold nothing of what is around it.
    fn outlined<R>(self, f: impl FnOnce() -> R) -> R;

    /// The proof that the CPU has [`Isa::Narrow`].
    fn narrow(self) -> Self::Narrow;

    /// Loads `LANES` 32-bit lanes.
    ///
    /// # Safety
    /// `LANES · 4` bytes at `p` are readable; no alignment needed.
    unsafe fn load(self, p: *const u8) -> Self::V;
    /// Loads half of the lanes, into both halves, the upper one shifted (logically) to the right by `count` < 32 bits.
    ///
    /// # Safety
    /// `LANES · 2` bytes at `p` are readable; no alignment needed.
    unsafe fn load_half_twice(self, p: *const u8, count: u32) -> Self::V;
    /// Loads 16 bytes from each of `LANES / 4` places.
    ///
    /// # Safety
    /// 16 bytes at each place are readable; no alignment needed.
    unsafe fn load_sixteens(self, p: impl Fn(usize) -> *const u8) -> Self::V;
    /// Stores `LANES` 32-bit lanes.
    ///
    /// # Safety
    /// `LANES · 4` bytes at `p` are writable; no alignment needed.
    unsafe fn store(self, p: *mut u8, v: Self::V);
    /// Stores `LANES` 32-bit lanes past the caches, where the CPU can; other threads see them behind an `sfence` only.
    ///
    /// # Safety
    /// `LANES · 4` bytes at `p` are writable, and as many divide its address.
    #[inline(always)]
    unsafe fn store_past_caches(self, p: *mut u8, v: Self::V) {
        // SAFETY: the caller vouches for the bytes at `p`.
        unsafe { self.store(p, v) }
    }
    /// Stores the low halves of the lanes at `low`, the high ones at `high`.
    ///
    /// # Safety
    /// `LANES · 2` bytes at each are writable; no alignment needed.
    unsafe fn store_halves(self, low: *mut u8, high: *mut u8, v: Self::V);
    /// Stores the first four lanes.
    ///
    /// # Safety
    /// 16 bytes at `p` are writable; no alignment needed.
    unsafe fn store_four(self, p: *mut u8, v: Self::V);
    /// Asks for the cache line at `p`, which need not be readable.
    fn prefetch(self, p: *const u8);
    /// Asks for the cache line at `p` to be brought to the second-level cache, which has more misses under way at a time.
    fn prefetch_far(self, p: *const u8);
    /// The i32 at `p` in every lane.
    ///
    /// # Safety
    /// 4 bytes at `p` are readable; no alignment needed.
    unsafe fn broadcast(self, p: *const u8) -> Self::V;
    /// Adds 16 to every byte `i` of each 16 whose bit `i` is set: of the lower 16 of the 32 bits that lie at each of `LANES / 4`
    /// places to the first codes, of the upper ones to the second codes, all of which are below 16.
    ///
    /// # Safety
    /// 4 bytes at each place are readable; no alignment needed.
    unsafe fn add_sixteens(self, codes: [Self::V; 2], bits: impl Fn(usize) -> *const u8) -> [Self::V; 2];
    /// `value` in every lane.
    fn splat(self, value: i32) -> Self::V;
    /// Bitwise and.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise or.
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Wrapping i32 addition.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger i32.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Wrapping i32 subtraction.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// Low 32 bits of the i32 product.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// Shift to the left by `count` < 32 bits.
    fn shl(self, a: Self::V, count: u32) -> Self::V;
    /// Logical shift to the right by `count` < 32 bits.
    fn shr(self, a: Self::V, count: u32) -> Self::V;

    /// Loads f32 lanes.
    ///
    /// # Safety
    /// `LANES · 4` bytes at `p` are readable; no alignment needed.
    unsafe fn load_f32(self, p: *const f32) -> Self::F;
    /// Loads f16 lanes and widens them.
    ///
    /// # Safety
    /// `LANES · 2` bytes at `p` are readable; no alignment needed.
    unsafe fn load_f16(self, p: *const u8) -> Self::F;
    /// Loads bf16 lanes and widens them.
    ///
    /// # Safety
    /// `LANES · 2` bytes at `p` are readable; no alignment needed.
    unsafe fn load_bf16(self, p: *const u8) -> Self::F;
    /// Stores f32 lanes.
    ///
    /// # Safety
    /// `LANES · 4` bytes at `p` are writable; no alignment needed.
    unsafe fn store_f32(self, p: *mut f32, v: Self::F);
    /// `value` in every lane.
    fn splat_f32(self, value: f32) -> Self::F;
    /// Addition.
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// Subtraction.
    fn sub_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// Multiplication.
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn mul_add_f32(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The f16 in the low halves of the lanes and those in the high halves, widened.
    fn widen_f16_halves(self, a: Self::V) -> [Self::F; 2];
    /// The bits of each lane as an f32.
    fn bits_f32(self, a: Self::V) -> Self::F;
    /// The bits of each f32 lane.
    fn float_bits(self, a: Self::F) -> Self::V;
    /// The low bytes of the lanes of four registers, in their order.
    fn pack_bytes(self, v: [Self::V; 4]) -> Self::V;
    /// Exact for |lane| ≤ 2²⁴, else rounded to nearest even.
    fn to_f32(self, a: Self::V) -> Self::F;

    /// `acc + Σ` over the two i16 halves of each lane of `a · b`.
    fn dot_i16(self, acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Two groups' integer scales, the halves of each lane (signed), in the form that [`Isa::dot_scaled`] multiplies by.
    fn split_scales(self, pair: Self::V) -> [Self::V; 2];
    /// The magnitudes of bytes.
    fn abs_i8(self, a: Self::V) -> Self::V;
    /// What [`Isa::scale_sum`] wants beside a scale, for any number of sums.
    fn scale_origin(self, d: Self::F) -> Self::F;
    /// `d · (sum − SUM_ORIGIN)`, rounded once, for |sum − SUM_ORIGIN| < 2²² and d widened from an f16; NaN if d is not finite.
    fn scale_sum(self, sum: Self::V, d: Self::F, origin: Self::F) -> Self::F;
    /// Subtraction of the i16 halves.
    fn sub_i16(self, a: Self::V, b: Self::V) -> Self::V;
    /// Low 16 bits of the products of the i16 halves.
    fn mul_i16(self, a: Self::V, b: Self::V) -> Self::V;

    /// Has a register tile's sums in memory by now, where the set has too few registers for them and for what comes next:
    /// the compiler would choose worse ones to spill.
    #[inline(always)]
    fn set_aside<T, const MR: usize, const NR: usize>(self, _: &mut [[T; NR]; MR]) {}

    /// `acc[i][j] += Σ_s w(s, i) · x(s, j)` for each of `MR` × `NR`: the four u8 codes of each lane of w, `BITS` wide, times
    /// the four i8 of x.
    fn dot<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize>(
        self,
        acc: &mut [[Self::V; NR]; MR],
        w: impl Fn(usize, usize) -> Self::V,
        x: impl Fn(usize, usize) -> Self::V,
    );

    /// `acc[i][j] += scale[i] · Σ_s w(s, i) · x(s, j)`, scales, which fit an i8, as [`Isa::split_scales`] gives them.
    /// `centre(s, j)` is `−32 · Σ x` over four steps from `s` on, read only where the set centres 6-bit codes. `FIT` promises
    /// that the sums, centred so, fit an i16.
    fn dot_scaled<const BITS: u32, const STEPS: usize, const MR: usize, const NR: usize, const FIT: bool>(
        self,
        acc: &mut [[Self::V; NR]; MR],
        scale: [Self::V; MR],
        centre: impl Fn(usize, usize) -> Self::V,
        w: impl Fn(usize, usize) -> Self::V,
        x: impl Fn(usize, usize) -> Self::V,
    );

    /// Adds to `sum` the products of two registers of codes of at most 6 bits and two of x's, scaled as
    /// [`Isa::spread_scales`] says.
    #[inline(always)]
    fn dot_pair_scaled<const GROUP: usize>(
        self,
        sum: &mut [[Self::V; 1]; 1],
        (scales, bias): (&[u8; 16], i16),
        halves: [[usize; 2]; 2],
        w: [Self::V; 2],
        x: [Self::V; 2],
    ) {
        dot_registers_scaled::<Self, GROUP>(self, sum, (scales, bias), halves, w, x);
    }

    /// In any lanes, of 8 in any of the first four, the products of the first `count` (8 or 16) bytes, less `bias`, and i16.
    ///
    /// # Safety
    /// `count` i16 are readable at `b`.
    unsafe fn dot_sums(self, a: &[u8; 16], bias: i16, b: *const i16, count: usize) -> <Self::Narrow as Isa>::V;

    /// The scales of `GROUP` (16 or 32) codes each, less `bias`, for lanes of a row's codes whose halves start at the codes
    /// `halves`, in the form that [`Isa::dot_scaled`] multiplies by; fewer than 16 lanes follow one another.
    fn spread_scales<const GROUP: usize>(self, scales: &[u8; 16], bias: i16, halves: [usize; 2]) -> Self::V;

    /// Lanes, as many as [`Isa::Narrow`] has, whose sum is that of all lanes.
    fn fold_lanes(self, v: Self::V) -> <Self::Narrow as Isa>::V;

    /// Lane b is the sum of four lanes, the b-th of all that the registers hold one after the other.
    fn sum_fours(self, v: [Self::V; 4]) -> Self::V;

    /// Lane b is the sum of eight lanes, the b-th of all that the registers hold one after the other.
    fn sum_eights(self, v: [Self::V; 8]) -> Self::V;

    /// Transposes the 4 × 4 lanes that the same 16 bytes of four registers are.
    fn transpose_fours(self, v: [Self::V; 4]) -> [Self::V; 4];

    /// Register i has bytes `4 · i` to `4 · i + 3` of each of `LANES` rows, of which row r is at `row(r)`.
    ///
    /// # Safety
    /// 16 bytes at each row are readable.
    #[inline(always)]
    unsafe fn transpose_rows(self, row: impl Fn(usize) -> *const u8) -> [Self::V; 4] {
        self.transpose_fours(super::array_of(
            #[inline(always)]
            // SAFETY: the caller vouches for the rows.
            |i| unsafe {
                self.load_sixteens(
                    #[inline(always)]
                    |four| row(i + 4 * four),
                )
            },
        ))
    }

    /// Interleaves `ROWS` rows of 32 bytes, `stride_bytes` apart: for each of 8 steps, 4 bytes of each row.
    ///
    /// # Safety
    /// 32 bytes at each of the rows are readable, `ROWS · 32` bytes at `out` writable.
    #[inline(always)]
    unsafe fn interleave_rows<const ROWS: usize>(self, rows: *const u8, stride_bytes: usize, out: *mut u8) {
        let isa = self.narrow();
        for first in (0..ROWS).step_by(Self::Narrow::LANES) {
            for half in 0..2 {
                // SAFETY: rows and steps are those that the caller vouches for.
                unsafe {
                    let steps = isa.transpose_rows(
                        #[inline(always)]
                        |row| rows.add((first + row) * stride_bytes + 16 * half),
                    );
                    for (i, step) in steps.into_iter().enumerate() {
                        isa.store(out.add((4 * half + i) * ROWS * 4 + first * 4), step);
                    }
                }
            }
        }
    }

    /// Runs `kernel` with `PANELS` panels of rows in registers over all columns of a group of `width` (1, 2, 4 or 8).
    ///
    /// # Safety
    /// As the kernel's.
    unsafe fn register_tile<K: RegisterTile>(self, width: usize, kernel: &mut K);

    /// Runs `kernel` with one register of rows and as many columns as suit a kernel that unpacks codes in registers, over
    /// at least the first columns, as many as said, of a group of a width (1, 2, 4 or 8).
    ///
    /// # Safety
    /// As the kernel's.
    unsafe fn column_tile<K: RegisterTile>(self, columns_and_width: (usize, usize), kernel: &mut K);
}

/// [`Isa::dot_pair_scaled`], one register after the other.
#[inline(always)]
pub fn dot_registers_scaled<I: Isa, const GROUP: usize>(
    isa: I,
    sum: &mut [[I::V; 1]; 1],
    scales: (&[u8; 16], i16),
    halves: [[usize; 2]; 2],
    w: [I::V; 2],
    x: [I::V; 2],
) {
    // One step of 6-bit codes still fits the depth of 4-bit ones, uncentred.
    dot_register_scaled::<I, 4, GROUP>(isa, sum, scales, halves[0], w[0], x[0]);
    dot_register_scaled::<I, 4, GROUP>(isa, sum, scales, halves[1], w[1], x[1]);
}

/// [`Isa::dot_pair_scaled`], of one register.
#[inline(always)]
pub fn dot_register_scaled<I: Isa, const BITS: u32, const GROUP: usize>(
    isa: I,
    sum: &mut [[I::V; 1]; 1],
    (scales, bias): (&[u8; 16], i16),
    halves: [usize; 2],
    w: I::V,
    x: I::V,
) {
    isa.dot_scaled::<BITS, 1, 1, 1, false>(
        sum,
        [isa.spread_scales::<GROUP>(scales, bias, halves)],
        #[inline(always)]
        |_, _| isa.splat(0),
        #[inline(always)]
        |_, _| w,
        #[inline(always)]
        |_, _| x,
    );
}
