//! The GGUF reader on files that are wrong: every case is an error that says what is wrong, and none panics, hangs or
//! allocates more than a small multiple of the file. The files are made here byte by byte, not by the crate's writer.

use quantblock::gguf::{Gguf, GgufWriter, Value};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has allocated now.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most that were allocated at once since the peak was reset.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Parses and reads everything that the parsed file offers; returns the error's message and the peak of allocated bytes.
fn parse(file: &[u8]) -> (Result<(), String>, usize) {
    let start = LIVE.get();
    PEAK.set(start);
    let result = Gguf::parse(file).map(|gguf| {
        for (key, value) in gguf.metadata() {
            assert!(gguf.get(key).is_some());
            if let Value::Array(array) = value {
                assert_eq!(array.iter().count(), array.len());
            }
        }
        for tensor in gguf.tensors() {
            assert_eq!(gguf.tensor_data(tensor.name).unwrap().len(), tensor.range.len());
            assert!(tensor.range.end <= file.len());
            assert!(tensor.n().checked_mul(tensor.k()).is_some() && tensor.type_name() != "unknown");
        }
    });
    let peak = (PEAK.get() - start) as usize;
    (result.map_err(|e| e.to_string()), peak)
}

/// The most that parsing may allocate: a small multiple of the file, and room for one message.
fn allowed(file: &[u8]) -> usize {
    8 * file.len() + 2048
}

/// The bytes of a file, written field by field.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn header(n_tensors: u64, n_pairs: u64) -> Self {
        Bytes(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, v: u32) -> Self {
        self.raw(&v.to_le_bytes())
    }

    fn u64(self, v: u64) -> Self {
        self.raw(&v.to_le_bytes())
    }

    fn str(self, s: &str) -> Self {
        self.u64(s.len() as u64).raw(s.as_bytes())
    }

    /// A key with a u32.
    fn pair(self, key: &str, value: u32) -> Self {
        self.str(key).u32(4).u32(value)
    }

    /// A key with the start of an array.
    fn array(self, key: &str, element: u32, len: u64) -> Self {
        self.str(key).u32(9).u32(element).u64(len)
    }

    fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let entry = self.str(name).u32(dims.len() as u32);
        dims.iter().fold(entry, |entry, &d| entry.u64(d)).u32(type_id).u64(offset)
    }

    /// Padding, then `len` bytes of data.
    fn data(mut self, len: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 1);
        self.0
    }
}

const MINUS_1: u64 = u64::MAX;

/// A malformed file: a name, the bytes, and what the message must mention.
type Case = (&'static str, Vec<u8>, &'static [&'static str]);

fn header_cases() -> Vec<Case> {
    let h = Bytes::header;
    let magic = |magic: &[u8], version: u32| Bytes::default().raw(magic).u32(version).u64(0).u64(0).0;
    vec![
        ("empty file", vec![], &["magic", "truncated"]),
        ("only a magic", b"GGUF".to_vec(), &["version", "truncated"]),
        ("bad magic", magic(b"GGUX", 3), &["magic", "GGUX"]),
        ("magic of control bytes", magic(b"\0\xff\x1b[", 3), &["magic", "\\x1b"]),
        ("model of the time before GGUF", magic(b"tjgg", 3), &["before GGUF"]),
        ("version 0", magic(b"GGUF", 0), &["version 0"]),
        ("version 1", magic(b"GGUF", 1), &["version 1"]),
        ("version 4", magic(b"GGUF", 4), &["version 4"]),
        ("big-endian version 3", magic(b"GGUF", 3u32.swap_bytes()), &["big-endian", "convert"]),
        ("big-endian version 2", magic(b"GGUF", 2u32.swap_bytes()), &["big-endian"]),
        ("tensor count -1", h(MINUS_1, 0).data(64), &["tensor count", "18446744073709551615"]),
        ("key count -1", h(0, MINUS_1).data(64), &["key count", "18446744073709551615"]),
        ("tensor count 2^60", h(1 << 60, 0).data(64), &["tensor count"]),
        ("key count 2^60", h(0, 1 << 60).data(64), &["key count"]),
        ("one key more than there is", h(0, 2).pair("a", 1).data(0), &["pair 1"]),
        ("one tensor more than there is", h(2, 0).tensor("a", &[1], 24, 0).0, &["tensor count", "truncated"]),
    ]
}

fn key_cases() -> Vec<Case> {
    let h = Bytes::header;
    vec![
        ("key size -1", h(0, 1).u64(MINUS_1).data(64), &["key of pair 0", "18446744073709551615"]),
        ("key size beyond 1 GiB", h(0, 1).u64((1 << 30) + 1).data(64), &["key of pair 0", "limit"]),
        ("key size beyond the file", h(0, 1).u64(1000).data(64), &["key of pair 0", "truncated"]),
        ("empty key", h(0, 1).pair("", 1).data(0), &["pair 0", "key is empty"]),
        ("duplicate key", h(0, 3).pair("a", 1).pair("b", 1).pair("a", 1).data(0), &["key `a`", "duplicated"]),
        ("key of invalid UTF-8", h(0, 1).u64(2).raw(b"\xc3\x28").u32(4).u32(1).0, &["key of pair 0", "UTF-8"]),
        ("value type 13", h(0, 1).str("a").u32(13).data(64), &["key `a`", "unknown value type 13"]),
        ("value type -1", h(0, 1).str("a").u32(u32::MAX).data(64), &["key `a`", "unknown value type 4294967295"]),
        ("bool of 2", h(0, 1).str("a").u32(7).raw(&[2]).0, &["key `a`", "bool", "2"]),
        ("string size -1", h(0, 1).str("a").u32(8).u64(MINUS_1).data(64), &["key `a`", "18446744073709551615"]),
        ("string size beyond the file", h(0, 1).str("a").u32(8).u64(100).data(9), &["key `a`", "truncated"]),
        ("string of invalid UTF-8", h(0, 1).str("a").u32(8).u64(1).raw(b"\xff").0, &["key `a`", "UTF-8"]),
        ("array of u8 with -1 elements", h(0, 1).array("a", 0, MINUS_1).data(64), &["key `a`", "limit"]),
        ("array of u8 with 2^60 elements", h(0, 1).array("a", 0, 1 << 60).data(64), &["key `a`", "limit"]),
        ("array of f64 with 2^61+1 elements", h(0, 1).array("a", 12, (1 << 61) + 1).data(64), &["key `a`", "limit"]),
        ("array of u8 beyond the file", h(0, 1).array("a", 0, 1 << 30).data(64), &["key `a`", "truncated"]),
        ("array of f64 beyond the file", h(0, 1).array("a", 12, 90).data(64), &["key `a`", "truncated"]),
        ("array of strings beyond the file", h(0, 1).array("a", 8, 1 << 30).data(64), &["key `a`", "truncated"]),
        ("array with a string of size -1", h(0, 1).array("a", 8, 1).u64(MINUS_1).0, &["key `a`", "limit"]),
        ("array with a string too long", h(0, 1).array("a", 8, 1).u64(9).raw(b"12345678").0, &["key `a`", "truncated"]),
        ("array with invalid UTF-8", h(0, 1).array("a", 8, 1).u64(1).raw(b"\x80").0, &["key `a`", "UTF-8"]),
        ("array of arrays", h(0, 1).array("a", 9, 1).u32(0).u64(0).data(64), &["key `a`", "array of arrays"]),
        ("array of element type 13", h(0, 1).array("a", 13, 1 << 30).data(64), &["key `a`", "unknown value type 13"]),
        ("array of element type 2^31", h(0, 1).array("a", 1 << 31, 1).data(64), &["key `a`", "unknown value type"]),
        ("array of bools with a 3", h(0, 1).array("a", 7, 2).raw(&[1, 3]).0, &["key `a`", "bool", "3"]),
        ("alignment 0", h(0, 1).pair("general.alignment", 0).data(0), &["general.alignment", "0", "power of two"]),
        ("alignment 13", h(0, 1).pair("general.alignment", 13).data(0), &["general.alignment", "13", "power of two"]),
        ("alignment 2 MiB", h(0, 1).pair("general.alignment", 2 << 20).data(0), &["general.alignment", "at most"]),
        ("alignment 2^31", h(0, 1).pair("general.alignment", 1 << 31).data(0), &["general.alignment", "at most"]),
        ("alignment of u64", h(0, 1).str("general.alignment").u32(10).u64(32).0, &["general.alignment", "is u64"]),
        (
            "alignment of a string",
            h(0, 1).str("general.alignment").u32(8).str("32").0,
            &["general.alignment", "string"],
        ),
        ("part of a split model", h(0, 2).pair("split.no", 1).pair("split.count", 3).0, &["part 2 of 3", "merge"]),
        ("split count of a string", h(0, 1).str("split.count").u32(8).str("3").0, &["split.count", "integer"]),
    ]
}

fn tensor_cases() -> Vec<Case> {
    let h = Bytes::header;
    let one = |dims: &[u64], type_id: u32, offset: u64| h(1, 0).tensor("blk.0.w", dims, type_id, offset).data(4096);
    let two = |a: (u64, u64), b: (u64, u64)| h(2, 0).tensor("a", &[a.0], 24, a.1).tensor("b", &[b.0], 24, b.1).data(96);
    let half = (1 << 63) - 32;
    vec![
        ("name size -1", h(1, 0).u64(MINUS_1).data(64), &["name of tensor 0", "limit"]),
        ("name of 64 bytes", h(1, 0).tensor(&"n".repeat(64), &[1], 24, 0).data(64), &["`nnn", "64 bytes", "63"]),
        ("name of invalid UTF-8", h(1, 0).u64(1).raw(b"\xfe").data(64), &["name of tensor 0", "UTF-8"]),
        (
            "duplicate name",
            h(2, 0).tensor("t", &[32], 24, 0).tensor("t", &[32], 24, 32).data(64),
            &["tensor `t`", "duplicated"],
        ),
        ("5 dimensions", one(&[1, 1, 1, 1, 1], 24, 0), &["blk.0.w", "5 dimensions"]),
        ("2^32-1 dimensions", h(1, 0).str("t").u32(u32::MAX).data(64), &["tensor `t`", "4294967295 dimensions"]),
        ("dimension -1", one(&[32, MINUS_1], 24, 0), &["blk.0.w", "dimension 1", "-1"]),
        ("dimension -2^63", one(&[1 << 63], 24, 0), &["blk.0.w", "dimension 0", "negative"]),
        ("dimension 2^63-1 of F32", one(&[i64::MAX as u64], 0, 0), &["blk.0.w", "not representable"]),
        ("dimensions' product 2^64", one(&[1 << 32, 1 << 32], 24, 0), &["blk.0.w", "not representable"]),
        ("dimensions' product 2^63", one(&[1 << 32, 1 << 31], 24, 0), &["blk.0.w", "not representable"]),
        ("dimensions' product wraps to 4", one(&[4, (1 << 62) + 1], 24, 0), &["blk.0.w", "not representable"]),
        ("size wraps when padded", one(&[4, (1 << 30) - 1, (1 << 30) + 1], 0, 0), &["blk.0.w", "not representable"]),
        ("product behind a zero", one(&[0, 1 << 40, 1 << 40], 24, 0), &["blk.0.w", "not representable"]),
        ("F64 bytes not representable", one(&[1 << 60], 28, 0), &["blk.0.w", "not representable"]),
        ("rows of 255 in Q4_K", one(&[255], 12, 0), &["blk.0.w", "255", "Q4_K", "256"]),
        ("rows of 16 in Q8_0", one(&[16, 2], 8, 0), &["blk.0.w", "16", "Q8_0", "32"]),
        ("rows of 32 in NVFP4", one(&[32], 40, 0), &["blk.0.w", "NVFP4", "64"]),
        ("scalar in Q4_0", one(&[], 2, 0), &["blk.0.w", "Q4_0"]),
        ("removed type 4", one(&[32], 4, 0), &["blk.0.w", "type id 4 (Q4_2)", "removed"]),
        ("removed type 5", one(&[32], 5, 0), &["blk.0.w", "Q4_3", "removed"]),
        ("removed type 31", one(&[32], 31, 0), &["blk.0.w", "Q4_0_4_4", "removed"]),
        ("removed type 32", one(&[32], 32, 0), &["blk.0.w", "Q4_0_4_8", "removed"]),
        ("removed type 33", one(&[32], 33, 0), &["blk.0.w", "Q4_0_8_8", "removed"]),
        ("removed type 36", one(&[32], 36, 0), &["blk.0.w", "IQ4_NL_4_4", "removed"]),
        ("removed type 37", one(&[32], 37, 0), &["blk.0.w", "IQ4_NL_4_8", "removed"]),
        ("removed type 38", one(&[32], 38, 0), &["blk.0.w", "IQ4_NL_8_8", "removed"]),
        ("type 43", one(&[32], 43, 0), &["blk.0.w", "unknown type id 43"]),
        ("type -1", one(&[32], u32::MAX, 0), &["blk.0.w", "unknown type id 4294967295"]),
        ("offset not aligned", one(&[32], 24, 33), &["blk.0.w", "offset 33", "alignment of 32"]),
        ("offset past the end", one(&[32], 24, 4096), &["blk.0.w", "offset 4096", "past the end"]),
        ("offset 2^63", one(&[32], 24, 1 << 63), &["blk.0.w", "past the end"]),
        ("offset near 2^64", one(&[32], 24, MINUS_1 - 31), &["blk.0.w", "past the end"]),
        ("offset 2^64 less the size", one(&[64], 24, MINUS_1 - 63), &["blk.0.w", "past the end"]),
        ("empty tensor past the end", one(&[0], 24, 4128), &["blk.0.w", "past the end"]),
        ("empty tensor near 2^64", one(&[0], 24, MINUS_1 - 31), &["blk.0.w", "past the end"]),
        ("one byte of data lacks", h(1, 0).tensor("t", &[32], 24, 0).data(31), &["tensor `t`", "data section has 31"]),
        ("no data", h(1, 0).tensor("t", &[32], 24, 0).0, &["tensor `t`", "data section has 0"]),
        ("overlap", two((64, 0), (64, 32)), &["tensor `b`", "overlap", "`a`"]),
        ("overlap in reverse", two((64, 32), (64, 0)), &["tensor `a`", "overlap", "`b`"]),
        ("same offset", two((32, 0), (32, 0)), &["overlap", "`a`", "`b`"]),
        (
            "a tensor inside another, with an empty one between",
            h(3, 0).tensor("a", &[96], 24, 0).tensor("e", &[0], 24, 32).tensor("b", &[1], 24, 64).data(96),
            &["tensor `b`", "overlap", "`a`"],
        ),
        ("two sizes near 2^63", two((half, 0), (half, half)), &["tensor `a`", "past the end"]),
    ]
}

#[test]
fn every_malformed_file_is_an_error_that_says_why() {
    let cases = [header_cases(), key_cases(), tensor_cases()].concat();
    let (count, mut beyond) = (cases.len(), 0);
    for (name, file, mentions) in cases {
        let (result, peak) = parse(&file);
        let message = result.err().unwrap_or_else(|| panic!("{name}: was accepted"));
        for mention in mentions {
            assert!(message.contains(mention), "{name}: {message:?} does not mention {mention:?}");
        }
        assert!(peak <= allowed(&file), "{name}: {peak} bytes allocated for a file of {}", file.len());
        beyond = beyond.max(peak.saturating_sub(file.len()));
    }
    println!("{count} malformed files; at most {beyond} bytes allocated beyond a file's size, the message included");
}

#[test]
fn the_corpus_fails_for_its_faults_only() {
    let good = Bytes::header(2, 3)
        .pair("general.alignment", 32)
        .pair("a", 1)
        .array("b", 8, 2)
        .str("x")
        .str("y")
        .tensor("blk.0.w", &[256, 2], 12, 32)
        .tensor(&"n".repeat(63), &[1, 1, 1, 1], 24, 0)
        .data(4096);
    assert_eq!(parse(&good).0, Ok(()));
}

/// A small file with every kind of value, and tensors whose padding matters.
fn small_file() -> Vec<u8> {
    let mut w = GgufWriter::new().with_alignment(16).unwrap();
    w.set("general.architecture", "llama").unwrap();
    w.set("a", 1u8).unwrap().set("b", -1i64).unwrap().set("c", 0.5f32).unwrap().set("d", true).unwrap();
    w.set("s", ["x", "", "yz"]).unwrap().set("n", [1u16, 2, 3]).unwrap().set("t", [true, false]).unwrap();
    w.set("split.count", 1u16).unwrap();
    w.tensor("w0", &[32, 2], 8, vec![1; 68]).unwrap();
    w.tensor("e", &[32, 0], 8, vec![]).unwrap();
    w.tensor("w1", &[5], 0, vec![2; 20]).unwrap();
    w.to_vec()
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let file = small_file();
    assert_eq!(parse(&file).0, Ok(()));
    // The last tensor has 20 bytes: 12 of padding may be missing.
    let needed = file.len() - 12;
    for len in 0..file.len() {
        let (result, peak) = parse(&file[..len]);
        assert_eq!(result.is_ok(), len >= needed, "{len} of {} bytes: {result:?}", file.len());
        assert!(peak <= allowed(&file[..len]), "{len} bytes: {peak} allocated");
    }
    println!("{} truncated files", file.len());
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn one_changed_byte_never_panics_or_allocates_much() {
    let file = small_file();
    let mut random = Random(1);
    let (mut accepted, mut refused) = (0, 0);
    for at in 0..file.len() {
        let mut changed = file.clone();
        let random: Vec<u8> = (0..8).map(|_| random.next() as u8).collect();
        let flips = (0..8).map(|bit| file[at] ^ (1 << bit));
        let edges = [0, 1, 0x7f, 0x80, 0xfe, 0xff, file[at].wrapping_add(1), file[at].wrapping_sub(1)];
        for value in flips.chain(edges).chain(random) {
            changed[at] = value;
            let (result, peak) = parse(&changed);
            assert!(peak <= allowed(&changed), "byte {at} = {value}: {peak} allocated");
            match result {
                Ok(()) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
    }
    // Changes to the data are none of the parser's business, changes to lengths and types are: both must occur.
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

#[test]
fn several_changed_fields_never_panic_or_allocate_much() {
    let file = small_file();
    let mut random = Random(2);
    let sizes = [1 << 30, (1 << 30) + 1, 1 << 31, 1 << 32, 1 << 60, i64::MAX as u64, 1 << 63, u64::MAX - 31, u64::MAX];
    let values = [&[0, 1, 9, 32][..], &sizes].concat();
    for round in 0..20_000 {
        let mut changed = file.clone();
        for _ in 0..1 + random.next() % 3 {
            let at = random.next() as usize % (file.len() - 8);
            let value = values[random.next() as usize % values.len()];
            let size = [1, 4, 8][random.next() as usize % 3];
            changed[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        let (_, peak) = parse(&changed);
        assert!(peak <= allowed(&changed), "round {round}: {peak} allocated");
    }
}

#[test]
fn many_small_entries_take_a_small_multiple_of_the_file() {
    // More entries than the header may reserve for, each as small as it can be.
    let n = 200_000u64;
    let name = |i: u64| [b'0' + (i >> 14) as u8, (i >> 7 & 127) as u8, (i & 127) as u8];
    let mut file = Bytes::header(n, n);
    for i in 0..n {
        file = file.u64(3).raw(&name(i)).u32(0).raw(&[0]);
    }
    for i in 0..n {
        file = file.u64(3).raw(&name(i)).u32(0).u32(24).u64(32 * (n - 1 - i));
    }
    let file = file.data(32 * n as usize);
    // Entries in memory are larger than the smallest ones in the file, and vectors grow by doubling.
    let header = file.len() - 32 * n as usize;
    let (result, peak) = parse(&file);
    assert_eq!(result, Ok(()));
    assert!(peak <= 16 * header, "{peak} bytes allocated for a header of {header}");
    assert!(peak <= allowed(&file), "{peak} bytes allocated for a file of {}", file.len());
}

#[test]
fn duplicates_among_many_keys_are_found_without_quadratic_time() {
    let n = 200_000u64;
    let mut file = Bytes::header(0, n + 1);
    for i in (0..n).chain([17]) {
        file = file.pair(&format!("some.long.common.prefix.{i}"), 0);
    }
    assert!(parse(&file.0).0.unwrap_err().contains("`some.long.common.prefix.17`: the key is duplicated"));
}
