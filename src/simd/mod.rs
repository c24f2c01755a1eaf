//! Instruction sets: which there are, which this machine has, and how to choose one.
//!
//! Kernels are generic over an [`Isa`], a token that proves the CPU's features. [`Level`] names the sets at run time;
//! [`Level::dispatch`] is the one place where a level becomes a token.

mod array;
mod isa;
mod scalar;
mod vendor;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

pub use array::array_of;
pub use isa::{FLOAT_ORIGIN, Isa, PANEL_ROWS, ROUND, RegisterTile, VECTOR_BYTES, largest_code, sums_fit};
pub use scalar::Scalar;
pub(crate) use vendor::is_amd_avx512;

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
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
}

/// Work that is written once, for any instruction set.
pub trait IsaTask {
    /// What the work gives.
    type Output;
    /// Does the work; runs with the instructions of `isa` enabled if it is `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

impl Level {
    /// All levels, the slowest first.
    pub const ALL: [Level; 3] = [Level::Scalar, Level::Avx2, Level::Avx512Vnni];

    /// The fastest level that this CPU has.
    pub fn best() -> Level {
        Level::ALL.into_iter().rev().find(|level| level.is_available()).unwrap_or(Level::Scalar)
    }

    /// Whether this CPU has the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            Level::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::Avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => avx512::Avx512Vnni::is_available(),
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

    /// The name that a level is parsed from: `scalar`, `avx2`, `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512Vnni => "avx512vnni",
        }
    }

    /// Runs `task` with this level's instructions enabled, or with plain Rust where the CPU lacks them (the bits are
    /// the same).
    #[inline]
    pub fn dispatch<T: IsaTask>(self, task: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Level::Avx512Vnni => {
                if let Some(isa) = avx512::Avx512Vnni::try_new() {
                    return isa.vectorize(
                        #[inline(always)]
                        || task.run(isa),
                    );
                }
            }
            Level::Avx2 => {
                if let Some(isa) = avx2::Avx2::try_new() {
                    return isa.vectorize(
                        #[inline(always)]
                        || task.run(isa),
                    );
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
    use alloc::string::ToString;

    #[test]
    fn names_round_trip_and_scalar_is_everywhere() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert!("mmx".parse::<Level>().is_err_and(|error| error.to_string().contains("scalar, avx2")));
        assert!(Level::Scalar.is_available() && Level::best().is_available());
    }
}
