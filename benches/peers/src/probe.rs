//! What the machine can do: reading memory, and integer multiply-adds on registers.

use quantblock::{
    Level,
    executor::{Executor, ThreadPool},
    memory,
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Bytes that the read probe goes through at least.
const LEAST_READ_BYTES: usize = 256 << 20;

/// Trials that decide how memory is read.
const READ_TRIALS: usize = 7;

/// Rounds of the dot loop in one call.
const DOT_LOOPS: usize = 200_000;

/// Threads and memory of the probes.
pub struct Machine {
    pub pool: ThreadPool,
    /// The instructions that quantblock and the dots use.
    pub level: Level,
    memory: Vec<u64>,
    /// How it is read fastest.
    reading: Reading,
}

/// How a thread reads its part of memory.
#[derive(Clone, Copy)]
enum Reading {
    Plain,
    /// Asks for what comes next.
    Ahead,
    /// Four quarters side by side, asking for what comes next.
    SideBySide,
}

impl Machine {
    pub fn new(threads: usize, level: Level) -> Self {
        let mut machine = Machine {
            pool: ThreadPool::new(threads),
            level,
            memory: huge(bytes_beyond_caches() / 8, 1),
            reading: Reading::Plain,
        };
        let all = [Reading::Plain, Reading::Ahead, Reading::SideBySide];
        let mut fastest = [Duration::MAX; 3];
        for _ in 0..READ_TRIALS {
            for (reading, fastest) in all.into_iter().zip(&mut fastest) {
                machine.reading = reading;
                let start = Instant::now();
                machine.read();
                *fastest = start.elapsed().min(*fastest);
            }
        }
        let first = (0..3).min_by_key(|&i| fastest[i]).unwrap_or(0);
        machine.reading = all[first];
        machine
    }

    /// Bytes that [`Machine::read`] reads.
    pub fn read_bytes(&self) -> usize {
        self.memory.len() * 8
    }

    /// Reads the memory.
    pub fn read(&self) {
        let threads = self.pool.threads();
        self.pool.run(threads, &|task| {
            let part = self.memory.len() / threads;
            let memory = &self.memory[task * part..][..part];
            match self.reading {
                Reading::Plain => read::<false, 1>(memory),
                Reading::Ahead => read::<true, 1>(memory),
                Reading::SideBySide => read::<true, 4>(memory),
            }
        });
    }

    /// Multiply-adds of [`Machine::dot`].
    pub fn dot_macs(&self) -> usize {
        dot_instruction(self.level).1 * DOT_LOOPS * self.pool.threads()
    }

    /// The level's u8 × i8 multiply-add, on registers only.
    pub fn dot(&self) {
        let (_, _, dot) = dot_instruction(self.level);
        self.pool.run(self.pool.threads(), &|_| dot(DOT_LOOPS));
    }

    /// The instruction behind [`Machine::dot`].
    pub fn dot_name(&self) -> &'static str {
        dot_instruction(self.level).0
    }
}

/// The chunks of memory, those of `STREAMS` parts in turns.
fn chunks<const STREAMS: usize>(memory: &[u64]) -> impl Iterator<Item = &[u64; 32]> {
    let chunks = memory.as_chunks::<32>().0;
    let part = chunks.len() / STREAMS;
    (0..part).flat_map(move |i| (0..STREAMS).map(move |stream| &chunks[stream * part + i]))
}

/// Reads and sums, which is faster than any memory; one load after the other: of a plain sum, wide registers make gathers,
/// which read a sixth less.
#[cfg(target_arch = "x86_64")]
fn read<const PREFETCH: bool, const STREAMS: usize>(memory: &[u64]) {
    use core::arch::x86_64::{__m128i, _mm_add_epi64, _mm_loadu_si128, _mm_setzero_si128};
    // SAFETY: SSE2 is part of x86-64; a chunk has 16 registers.
    unsafe {
        let mut sums = [_mm_setzero_si128(); 16];
        for chunk in chunks::<STREAMS>(memory) {
            if PREFETCH {
                prefetch(chunk);
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm_add_epi64(*sum, _mm_loadu_si128(chunk.as_ptr().cast::<__m128i>().add(i)));
            }
        }
        black_box(sums);
    }
}

/// Reads and sums, which is faster than any memory.
#[cfg(not(target_arch = "x86_64"))]
fn read<const PREFETCH: bool, const STREAMS: usize>(memory: &[u64]) {
    let mut sums = [0u64; 32];
    for chunk in chunks::<STREAMS>(memory) {
        if PREFETCH {
            prefetch(chunk);
        }
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    black_box(sums);
}

/// Asks for the lines some way behind a chunk: most cores then have more misses under way than their own prefetcher asks for.
fn prefetch(chunk: &[u64; 32]) {
    #[cfg(target_arch = "x86_64")]
    for line in chunk.chunks(8) {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast::<i8>().wrapping_add(8 << 10)) };
    }
}

/// Name, multiply-adds of one loop, and the loop itself, for a CPU that has the level.
#[cfg(target_arch = "x86_64")]
fn dot_instruction(level: Level) -> (&'static str, usize, fn(usize)) {
    use core::arch::asm;

    fn vpdpbusd(loops: usize) {
        // SAFETY: only called for a level that the CPU has; the registers are declared, memory is not touched.
        unsafe {
            asm!(
                "2:",
                "vpdpbusd zmm0, zmm14, zmm15", "vpdpbusd zmm1, zmm14, zmm15", "vpdpbusd zmm2, zmm14, zmm15",
                "vpdpbusd zmm3, zmm14, zmm15", "vpdpbusd zmm4, zmm14, zmm15", "vpdpbusd zmm5, zmm14, zmm15",
                "vpdpbusd zmm6, zmm14, zmm15", "vpdpbusd zmm7, zmm14, zmm15", "vpdpbusd zmm8, zmm14, zmm15",
                "vpdpbusd zmm9, zmm14, zmm15", "vpdpbusd zmm10, zmm14, zmm15", "vpdpbusd zmm11, zmm14, zmm15",
                "dec {loops}", "jnz 2b",
                loops = inout(reg) loops => _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                options(nomem, nostack),
            );
        }
    }

    fn vpdpbusd_ymm(loops: usize) {
        // SAFETY: only called for a level that the CPU has; the registers are declared, memory is not touched.
        unsafe {
            asm!(
                "2:",
                "{{vex}} vpdpbusd ymm0, ymm14, ymm15", "{{vex}} vpdpbusd ymm1, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm2, ymm14, ymm15", "{{vex}} vpdpbusd ymm3, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm4, ymm14, ymm15", "{{vex}} vpdpbusd ymm5, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm6, ymm14, ymm15", "{{vex}} vpdpbusd ymm7, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm8, ymm14, ymm15", "{{vex}} vpdpbusd ymm9, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm10, ymm14, ymm15", "{{vex}} vpdpbusd ymm11, ymm14, ymm15",
                "dec {loops}", "jnz 2b",
                loops = inout(reg) loops => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                options(nomem, nostack),
            );
        }
    }

    fn vpmaddubsw(loops: usize) {
        // SAFETY: only called for a level that the CPU has; the registers are declared, memory is not touched.
        unsafe {
            asm!(
                "2:",
                "vpmaddubsw ymm6, ymm14, ymm15", "vpaddw ymm0, ymm0, ymm6",
                "vpmaddubsw ymm7, ymm14, ymm15", "vpaddw ymm1, ymm1, ymm7",
                "vpmaddubsw ymm8, ymm14, ymm15", "vpaddw ymm2, ymm2, ymm8",
                "vpmaddubsw ymm9, ymm14, ymm15", "vpaddw ymm3, ymm3, ymm9",
                "vpmaddubsw ymm10, ymm14, ymm15", "vpaddw ymm4, ymm4, ymm10",
                "vpmaddubsw ymm11, ymm14, ymm15", "vpaddw ymm5, ymm5, ymm11",
                "dec {loops}", "jnz 2b",
                loops = inout(reg) loops => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                options(nomem, nostack),
            );
        }
    }

    match level {
        Level::Amx | Level::Avx512Vnni => ("vpdpbusd zmm", 12 * 64, vpdpbusd),
        Level::AvxVnni => ("vpdpbusd ymm", 12 * 32, vpdpbusd_ymm),
        Level::Avx2 => ("vpmaddubsw+vpaddw ymm", 6 * 32, vpmaddubsw),
        _ => ("none", 0, |_| {}),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dot_instruction(_: Level) -> (&'static str, usize, fn(usize)) {
    ("none", 0, |_| {})
}

/// Bytes of which little is left in the caches when all have been read: twice the largest cache that the system names.
pub fn bytes_beyond_caches() -> usize {
    let cache_bytes = |index| {
        let size = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        Some(size.trim_end().strip_suffix('K')?.parse::<usize>().ok()? << 10)
    };
    (0..8).filter_map(cache_bytes).max().map_or(0, |bytes| 2 * bytes).max(LEAST_READ_BYTES)
}

/// A vector of `len` times `value` in huge pages, where the system has them.
pub fn huge<T: Copy>(len: usize, value: T) -> Vec<T> {
    let mut memory = memory::buffer(len).expect("memory for the weights");
    memory.resize(len, value);
    memory
}
