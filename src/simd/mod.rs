//! Instruction sets: which there are, which this machine has, and how to choose one.
//!
//! Kernels are generic over an [`Isa`], a token that proves the CPU's features. [`Level`] names the sets at run time;
//! [`Level::dispatch`] is the one place where a level becomes a token.

mod array;
mod code_tile;
mod cpu;
mod isa;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod stack;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use array::array_of;
pub(crate) use code_tile::{CodeTile, TILE_CODES, TILE_COLUMNS};
pub(crate) use cpu::{is_amd_avx512, is_avx512};
pub use isa::{
    FLOAT_ORIGIN, Isa, PANEL_ROWS, ROUND, RegisterTile, VECTOR_BYTES, dot_register_scaled, largest_code, sums_fit,
};
pub use scalar::Scalar;

/// Enters the features of pulp token `$token` and calls `$f`.
#[cfg(target_arch = "x86_64")]
macro_rules! vectorize_with {
    ($token:expr, $f:expr) => {{
        struct Call<F>(F);
        impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Call<F> {
            type Output = R;
            #[inline(always)]
            fn call(self) -> R {
                (self.0)()
            }
        }
        $token.vectorize(Call($f))
    }};
}
#[cfg(target_arch = "x86_64")]
use vectorize_with;

use crate::{Error, Result};
use alloc::format;
use core::str::FromStr;

/// An instruction set level that kernels are built for. Every level gives the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, on every machine.
    Scalar,
    /// x86-64 with AVX2, F16C and FMA.
    Avx2,
    /// x86-64 with AVX2, F16C, FMA and AVX-VNNI: Intel's CPUs without AVX-512 from Alder Lake on.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// The same with AMX's tiles of bytes, in which K-quants are multiplied by more than a few columns: Intel's servers from
    /// Sapphire Rapids on, with Linux, which is asked (once, for the whole process) to let the process use tiles.
    Amx,
}

/// Work that is written once, for any instruction set.
pub trait IsaTask {
    /// What the work gives.
    type Output;
    /// Does the work; runs with the instructions of `isa` enabled if it is `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// Runs `task` with the instructions of `isa` enabled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn enter<I: Isa, T: IsaTask>(isa: I, task: T) -> T::Output {
    isa.vectorize(
        #[inline(always)]
        || task.run(isa),
    )
}

impl Level {
    /// All levels, the slowest first.
    pub const ALL: [Level; 5] = [Level::Scalar, Level::Avx2, Level::AvxVnni, Level::Avx512Vnni, Level::Amx];

    /// The fastest level that this CPU has.
    pub fn best() -> Level {
        Level::ALL.into_iter().rev().find(|level| level.is_available()).unwrap_or(Level::Scalar)
    }

    /// Whether this CPU has the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            Level::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::Avx2::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => avx2::AvxVnni::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => avx512::Avx512Vnni::is_available(),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => avx512::Avx512Vnni::is_available() && amx::Amx::try_new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The level itself where the CPU has it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it has not.
    pub fn checked(self) -> Result<Level> {
        if self.is_available() {
            return Ok(self);
        }
        Err(Error::Unsupported {
            what: format!("instruction set level {} on this CPU", self.name()),
            instead: format!("the fastest that it has is {}", Level::best().name()),
        })
    }

    /// The name that a level is parsed from: `scalar`, `avx2`, `avxvnni`, `avx512vnni`, `amx`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512Vnni => "avx512vnni",
            Level::Amx => "amx",
        }
    }

    /// Runs `task` with this level's instructions enabled, or with plain Rust where the CPU lacks them (the bits are
    /// the same).
    #[inline]
    pub fn dispatch<T: IsaTask>(self, task: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            // Tiles are for the kernels that know of them.
            Level::Avx512Vnni | Level::Amx => {
                if let Some(isa) = avx512::Avx512Vnni::try_new() {
                    return enter(isa, task);
                }
            }
            Level::AvxVnni => {
                if let Some(isa) = avx2::AvxVnni::try_new() {
                    return enter(isa, task);
                }
            }
            Level::Avx2 => {
                if let Some(isa) = avx2::Avx2::try_new() {
                    return enter(isa, task);
                }
            }
            Level::Scalar => {}
        }
        task.run(Scalar)
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| Error::Unsupported {
            what: format!("instruction set level `{name}`"),
            instead: format!("there are {}", Level::ALL.map(Level::name).join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec, vec::Vec};

    #[test]
    fn names_round_trip_and_scalar_is_everywhere() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert!("mmx".parse::<Level>().is_err_and(|error| error.to_string().contains("scalar, avx2")));
        assert!(Level::Scalar.is_available() && Level::best().is_available());
    }

    /// What moves lanes and adds across them, against the same on arrays.
    struct AcrossLanes;

    impl AcrossLanes {
        fn lanes<I: Isa>(isa: I, v: I::V) -> Vec<i32> {
            let mut lanes = vec![0i32; I::LANES];
            // SAFETY: there are LANES of them.
            unsafe { isa.store(lanes.as_mut_ptr().cast(), v) };
            lanes
        }
    }

    impl IsaTask for AcrossLanes {
        type Output = ();

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let words: Vec<i32> = (0..128).map(|i: i32| i.wrapping_mul(0x9E37_79B9u32 as i32) >> 3).collect();
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            // SAFETY: there are the bytes of 8 registers of 16 lanes, here and below.
            let load = |r: usize| unsafe { isa.load(bytes.as_ptr().add(r * I::LANES * 4)) };

            // SAFETY: as above.
            let twice = Self::lanes(isa, unsafe { isa.load_half_twice(bytes.as_ptr(), 3) });
            for (i, lane) in twice.iter().enumerate() {
                let (half, i) = (i / (I::LANES / 2), i % (I::LANES / 2));
                assert_eq!(*lane as u32, words[i] as u32 >> [0, 3][half]);
            }

            // SAFETY: as above.
            let sixteens = Self::lanes(isa, unsafe { isa.load_sixteens(|i| bytes.as_ptr().add(21 * i + 1)) });
            let expected: Vec<u8> = (0..I::LANES / 4).flat_map(|i| bytes[21 * i + 1..][..16].to_vec()).collect();
            assert_eq!(bytemuck::cast_slice::<i32, u8>(&sixteens), expected);

            // SAFETY: as above.
            let transposed = unsafe { isa.transpose_rows(|row| bytes.as_ptr().add(24 * row)) };
            for (i, register) in transposed.into_iter().enumerate() {
                let column: Vec<i32> = (0..I::LANES).map(|row| words[6 * row + i]).collect();
                assert_eq!(Self::lanes(isa, register), column);
            }

            let codes = [isa.splat(0x0F03_0A05), isa.splat(0x0001_0E07)];
            let bits: &[u8] = bytemuck::cast_slice(&words);
            // SAFETY: 4 bytes at each of at most four places.
            let sixteens = unsafe { isa.add_sixteens(codes, |i| bits[7 * i..].as_ptr()) };
            for half in 0..2 {
                let (codes, sixteens) = (Self::lanes(isa, codes[half]), Self::lanes(isa, sixteens[half]));
                let codes: &[u8] = bytemuck::cast_slice(&codes);
                for (i, byte) in bytemuck::cast_slice::<i32, u8>(&sixteens).iter().enumerate() {
                    let bit = 16 * half + i % 16;
                    assert_eq!(*byte, codes[i] + (bits[7 * (i / 16) + bit / 8] >> (bit % 8) & 1) * 16);
                }
            }

            let sum = |lanes: &[i32]| lanes.iter().fold(0i32, |sum, &lane| sum.wrapping_add(lane));
            let fours: Vec<i32> = words.chunks(4).take(I::LANES).map(sum).collect();
            assert_eq!(Self::lanes(isa, isa.sum_fours([load(0), load(1), load(2), load(3)])), fours);
            let eights: Vec<i32> = words.chunks(8).take(I::LANES).map(sum).collect();
            assert_eq!(Self::lanes(isa, isa.sum_eights(array_of(load))), eights);
            let folded = Self::lanes(isa.narrow(), isa.fold_lanes(load(0)));
            assert_eq!(sum(&folded), sum(&words[..I::LANES]));

            // The largest 6-bit codes, and x that makes the sums of their products as far from zero as they come.
            let (w, half) = (isa.splat(0x3F3F_3F3F), I::LANES * 2);
            let x = [isa.splat(0x7F7F_7F7F), isa.splat(0x8181_8181u32 as i32)];
            let (scales, bias): ([u8; 16], _) = (core::array::from_fn(|i| (i * i % 64) as u8), 32);
            let halves = [0, 1].map(|r| [2 * r * half, (2 * r + 1) * half]);
            let mut pair = [[isa.splat(0)]];
            isa.dot_pair_scaled::<16>(&mut pair, (&scales, bias), halves, [w; 2], x);
            let scale = |code: usize| scales[code / 16] as i32 - bias as i32;
            let expected = (0..2 * half).map(|i| 63 * 127 * (scale(i) - scale(2 * half + i))).sum::<i32>();
            assert_eq!(sum(&Self::lanes(isa, pair[0][0])), expected);
        }
    }

    #[test]
    fn lanes_move_and_add_as_arrays_do() {
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            level.dispatch(AcrossLanes);
        }
    }
}
