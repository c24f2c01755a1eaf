//! Who made the CPU: what two makers' chips with the same instructions do differently.

use super::{Isa, Level};
use core::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const OTHER: u8 = 1;
const AMD: u8 = 2;

/// Whether instructions of `I` are AVX-512 on a CPU of AMD's: there nothing but a multiplication takes a dot's place, and long
/// streams are read ahead well.
#[inline(always)]
pub fn is_amd_avx512<I: Isa>() -> bool {
    matches!(I::LEVEL, Level::Avx512Vnni) && is_amd()
}

/// Whether AMD made this CPU. It is asked once: the question takes a virtual machine microseconds.
fn is_amd() -> bool {
    static VENDOR: AtomicU8 = AtomicU8::new(UNKNOWN);
    match VENDOR.load(Ordering::Relaxed) {
        UNKNOWN => {
            let amd = ask();
            VENDOR.store(if amd { AMD } else { OTHER }, Ordering::Relaxed);
            amd
        }
        vendor => vendor == AMD,
    }
}

#[cfg(target_arch = "x86_64")]
fn ask() -> bool {
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 CPU has the instruction, and leaf 0.
    let name = unsafe { core::arch::x86_64::__cpuid(0) };
    [name.ebx, name.edx, name.ecx] == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes)
}

#[cfg(not(target_arch = "x86_64"))]
fn ask() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_answer_is_the_first() {
        assert_eq!([is_amd(), is_amd()], [ask(); 2]);
    }

    #[test]
    #[cfg(all(target_os = "linux", feature = "std"))]
    fn the_system_says_the_same() {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        assert_eq!(is_amd(), cpus.contains("AuthenticAMD"));
    }
}
