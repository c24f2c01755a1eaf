//! What CPUID says of a CPU beyond the instructions that pulp knows of.

use super::{Isa, Level};
use core::sync::atomic::{AtomicU8, Ordering};

const ASKED: u8 = 1;
const AMD: u8 = 2;
#[cfg(target_arch = "x86_64")]
const AVX_VNNI: u8 = 4;
#[cfg(target_arch = "x86_64")]
const AMX: u8 = 8;

/// Whether instructions of `I` are AVX-512 on a CPU of AMD's: there nothing but a multiplication takes a dot's place, and long
/// streams are read ahead well.
#[inline(always)]
pub fn is_amd_avx512<I: Isa>() -> bool {
    is_avx512::<I>() && has(AMD)
}

/// Whether instructions of `I` are AVX-512.
#[inline(always)]
pub const fn is_avx512<I: Isa>() -> bool {
    matches!(I::LEVEL, Level::Avx512Vnni)
}

/// Whether the CPU has AVX-VNNI, and AVX2 if the system lets programs use it.
#[cfg(target_arch = "x86_64")]
pub fn has_avx_vnni() -> bool {
    has(AVX_VNNI)
}

/// Whether the CPU has AMX's tiles of bytes, and the system lets this process use them.
#[cfg(target_arch = "x86_64")]
pub fn has_amx() -> bool {
    has(AMX)
}

/// Whether the CPU has what `trait_` stands for. It is asked once: the question takes a virtual machine microseconds.
fn has(trait_: u8) -> bool {
    static TRAITS: AtomicU8 = AtomicU8::new(0);
    let mut traits = TRAITS.load(Ordering::Relaxed);
    if traits == 0 {
        traits = ASKED | ask();
        TRAITS.store(traits, Ordering::Relaxed);
    }
    traits & trait_ != 0
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)]
fn ask() -> u8 {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    // SAFETY: every x86-64 CPU has the instruction, and leaf 0.
    let first = unsafe { __cpuid(0) };
    let is_amd = [first.ebx, first.edx, first.ecx] == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes);
    // SAFETY: each leaf is asked for only if it is one of those that there are.
    let has_avx_vnni =
        first.eax >= 7 && unsafe { __cpuid_count(7, 0).eax >= 1 && __cpuid_count(7, 1).eax & 1 << 4 != 0 };
    // SAFETY: as above.
    let has_amx = first.eax >= 7 && unsafe { __cpuid_count(7, 0).edx } & AMX_BITS == AMX_BITS && may_use_tiles();
    (is_amd as u8 * AMD) | (has_avx_vnni as u8 * AVX_VNNI) | (has_amx as u8 * AMX)
}

/// AMX-TILE and AMX-INT8.
#[cfg(target_arch = "x86_64")]
const AMX_BITS: u32 = 1 << 24 | 1 << 25;

/// Asks the system to let this process use tiles.
#[cfg(all(target_arch = "x86_64", target_os = "linux", feature = "std"))]
fn may_use_tiles() -> bool {
    // Of `arch_prctl`: what asks for a part of the state, and the part that is the tiles.
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers, and a system that does not know it gives an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Other systems are not asked.
#[cfg(all(target_arch = "x86_64", not(all(target_os = "linux", feature = "std"))))]
fn may_use_tiles() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn ask() -> u8 {
    0
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_second_answer_is_the_first() {
        for trait_ in [AMD, AVX_VNNI, AMX] {
            assert_eq!([has(trait_), has(trait_)], [ask() & trait_ != 0; 2]);
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", feature = "std"))]
    fn the_system_says_the_same() {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        assert_eq!(has(AMD), cpus.contains("AuthenticAMD"));
        assert!(has(AVX_VNNI) || !cpus.contains(" avx_vnni"));
        assert!(!has(AMX) || cpus.contains(" amx_int8"));
    }
}
