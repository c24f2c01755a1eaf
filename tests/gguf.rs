//! The GGUF reader and writer on files that are right: what one writes, the other reads.

use quantblock::gguf::{Gguf, GgufWriter, TENSOR_TYPES, TensorType, Value, ValueType};
use quantblock::{Error, Result};

/// The message of an error that must be there.
fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

/// A file with one key of every type and an array of every element type.
fn all_values() -> GgufWriter<'static> {
    let mut w = GgufWriter::new();
    w.set("u8", 255u8).unwrap().set("i8", -128i8).unwrap();
    w.set("u16", 65535u16).unwrap().set("i16", -32768i16).unwrap();
    w.set("u32", u32::MAX).unwrap().set("i32", i32::MIN).unwrap();
    w.set("u64", u64::MAX).unwrap().set("i64", i64::MIN).unwrap();
    w.set("f32", 1.5f32).unwrap().set("f64", -2.25f64).unwrap();
    w.set("true", true).unwrap().set("false", false).unwrap();
    w.set("str", "grüße ▁").unwrap().set("empty str", "").unwrap();
    w.set("[u8]", [1u8, 2]).unwrap().set("[i8]", [-1i8]).unwrap();
    w.set("[u16]", [1u16, 2]).unwrap().set("[i16]", [-1i16]).unwrap();
    w.set("[u32]", [1u32, 2]).unwrap().set("[i32]", [-1i32, 7]).unwrap();
    w.set("[u64]", [1u64, 2]).unwrap().set("[i64]", [-1i64]).unwrap();
    w.set("[f32]", [0.5f32, f32::NEG_INFINITY]).unwrap().set("[f64]", vec![1e300f64]).unwrap();
    w.set("[bool]", [true, false, true]).unwrap();
    w.set("[str]", ["a", "", "▁b"]).unwrap();
    w.set("[empty]", Vec::<String>::new()).unwrap();
    w
}

#[test]
fn every_value_type_round_trips() {
    for version in [2, 3] {
        let file = all_values().with_version(version).unwrap().to_vec();
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.metadata().len(), 27);
        assert_eq!(gguf.get("u8"), Some(Value::U8(255)));
        assert_eq!(gguf.get("i8"), Some(Value::I8(-128)));
        assert_eq!(gguf.get("u16"), Some(Value::U16(65535)));
        assert_eq!(gguf.get("i16"), Some(Value::I16(-32768)));
        assert_eq!(gguf.get("u32"), Some(Value::U32(u32::MAX)));
        assert_eq!(gguf.get("i32"), Some(Value::I32(i32::MIN)));
        assert_eq!(gguf.get("u64"), Some(Value::U64(u64::MAX)));
        assert_eq!(gguf.get("i64"), Some(Value::I64(i64::MIN)));
        assert_eq!(gguf.get("f32"), Some(Value::F32(1.5)));
        assert_eq!(gguf.get("f64"), Some(Value::F64(-2.25)));
        assert_eq!(gguf.bool("true"), Ok(true));
        assert_eq!(gguf.bool("false"), Ok(false));
        assert_eq!(gguf.str("str"), Ok("grüße ▁"));
        assert_eq!(gguf.str("empty str"), Ok(""));
        assert_eq!(gguf.array::<u8>("[u8]").unwrap().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(gguf.array::<i64>("[i8]").unwrap().collect::<Vec<_>>(), [-1]);
        assert_eq!(gguf.array::<u32>("[u16]").unwrap().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(gguf.array::<i32>("[i16]").unwrap().collect::<Vec<_>>(), [-1]);
        assert_eq!(gguf.array::<usize>("[u32]").unwrap().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(gguf.array::<i32>("[i32]").unwrap().collect::<Vec<_>>(), [-1, 7]);
        assert_eq!(gguf.array::<u8>("[u64]").unwrap().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(gguf.array::<i8>("[i64]").unwrap().collect::<Vec<_>>(), [-1]);
        assert_eq!(gguf.array::<f32>("[f32]").unwrap().collect::<Vec<_>>(), [0.5, f32::NEG_INFINITY]);
        assert_eq!(gguf.array::<f64>("[f64]").unwrap().collect::<Vec<_>>(), [1e300]);
        assert_eq!(gguf.array::<bool>("[bool]").unwrap().collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(gguf.array::<&str>("[str]").unwrap().collect::<Vec<_>>(), ["a", "", "▁b"]);
        assert_eq!(gguf.array::<&str>("[empty]").unwrap().len(), 0);
        assert_eq!(gguf.get("absent"), None);
    }
}

#[test]
fn copied_metadata_is_the_same_bytes() {
    let file = all_values().to_vec();
    let mut copy = GgufWriter::new();
    copy.copy_metadata(&Gguf::parse(&file).unwrap()).unwrap();
    assert_eq!(copy.to_vec(), file);
}

#[test]
fn arrays_are_read_at_any_place() {
    let file = all_values().to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    let strings: quantblock::gguf::Array<'_> = gguf.require("[str]").unwrap();
    assert_eq!(strings.element_type(), ValueType::Str);
    assert_eq!(strings.get(2), Some(Value::Str("▁b")));
    assert_eq!(strings.get(3), None);
    assert_eq!(strings.iter().len(), 3);
    let numbers: quantblock::gguf::Array<'_> = gguf.require("[i32]").unwrap();
    assert_eq!(numbers.get(1), Some(Value::I32(7)));
    assert_eq!(numbers.get(2), None);
    assert_eq!(numbers.get(usize::MAX), None);
    let mut items = gguf.array::<i32>("[i32]").unwrap();
    assert_eq!((items.next(), items.len(), items.get(0), items.get(2)), (Some(-1), 1, Some(-1), None));
    assert_eq!((items.next(), items.next(), items.next()), (Some(7), None, None));
}

#[test]
fn getters_accept_any_width_and_name_the_key() {
    let file = all_values().to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.u32("u8"), Ok(255));
    assert_eq!(gguf.usize("u16"), Ok(65535));
    assert_eq!(gguf.i32("i8"), Ok(-128));
    assert_eq!(gguf.u64("u64"), Ok(u64::MAX));
    assert_eq!(gguf.f32("f64"), Ok(-2.25));
    assert_eq!(gguf.find::<u32>("absent"), Ok(None));
    assert_eq!(gguf.u32("absent"), Err(Error::Missing { name: "absent".into() }));
    assert_eq!(gguf.array::<u32>("absent").err(), Some(Error::Missing { name: "absent".into() }));

    let cases = [
        (message(gguf.u32("u64")), "`u64`", "18446744073709551615 is out of range"),
        (message(gguf.u32("i32")), "`i32`", "fits u32"),
        (message(gguf.u32("str")), "`str`", "is string (`grüße ▁`)"),
        (message(gguf.u32("true")), "`true`", "is bool"),
        (message(gguf.bool("u8")), "`u8`", "a bool is needed"),
        (message(gguf.f32("u8")), "`u8`", "a float"),
        (message(gguf.str("f32")), "`f32`", "a string is needed"),
        (message(gguf.str("[str]")), "`[str]`", "is array (3 × string)"),
        (message(gguf.array::<u32>("u32")), "`u32`", "an array is needed"),
        (message(gguf.array::<u32>("[i32]")), "element 0 of key `[i32]`", "-1 is out of range"),
        (message(gguf.array::<f32>("[f64]")), "element 0 of key `[f64]`", "out of range"),
        (message(gguf.array::<&str>("[u8]")), "`[u8]`", "a string is needed"),
    ];
    for (message, at, why) in cases {
        assert!(message.contains(at) && message.contains(why), "{message:?} lacks {at:?} or {why:?}");
    }
}

#[test]
fn hyperparameters_per_layer() {
    let mut w = GgufWriter::new();
    w.set("all", 8u16).unwrap().set("each", [1u32, 2, 3]).unwrap().set("zero", 0u32).unwrap();
    let file = w.to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    let all = gguf.per_layer::<usize>("all", 3).unwrap();
    assert_eq!((all.get(0), all.get(2)), (Some(8), Some(8)));
    let each = gguf.per_layer::<usize>("each", 3).unwrap();
    assert_eq!((each.get(0), each.get(2), each.get(3)), (Some(1), Some(3), None));
    let wrong = message(gguf.per_layer::<usize>("each", 4));
    assert!(wrong.contains("`each`") && wrong.contains("3 elements") && wrong.contains("4 layers"), "{wrong}");
    assert!(matches!(gguf.per_layer::<u32>("absent", 4), Err(Error::Missing { .. })));
    assert_eq!(gguf.nonzero("all"), Ok(8));
    assert!(message(gguf.nonzero("zero")).contains("`zero`: must not be 0"));
}

#[test]
fn tensors_of_every_type_round_trip() {
    let bytes = |i: usize, block_bytes: usize| (0..6 * block_bytes).map(|b| (b + i) as u8).collect::<Vec<u8>>();
    let mut w = GgufWriter::new();
    for (i, t) in TENSOR_TYPES.iter().enumerate() {
        w.tensor(&format!("{}.weight", t.name), &[2 * t.block, 3], t.id, bytes(i, t.block_bytes)).unwrap();
    }
    let file = w.to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.tensors().len(), TENSOR_TYPES.len());
    for (i, t) in TENSOR_TYPES.iter().enumerate() {
        let name = format!("{}.weight", t.name);
        let info = gguf.tensor(&name).unwrap();
        assert_eq!((info.name, info.type_id, info.type_name()), (name.as_str(), t.id, t.name));
        assert_eq!((&*info.dims, info.n(), info.k()), (&[2 * t.block, 3][..], 3, 2 * t.block));
        assert_eq!(info.range.start % 32, 0);
        assert_eq!(gguf.tensor_data(&name).unwrap(), bytes(i, t.block_bytes), "{name}");
        assert_eq!(TensorType::from_name(t.name), Some(t));
        assert_eq!(t.row_bytes(2 * t.block), Some(2 * t.block_bytes));
    }
    assert_eq!(gguf.tensor("absent"), None);
    assert_eq!(gguf.tensor_data("absent"), Err(Error::Missing { name: "absent".into() }));
}

#[test]
fn row_bytes_are_checked() {
    let q4_k = TensorType::from_id(12).unwrap();
    assert_eq!((q4_k.row_bytes(256), q4_k.row_bytes(0), q4_k.row_bytes(255)), (Some(144), Some(0), None));
    assert_eq!(TensorType::from_id(0).unwrap().row_bytes(usize::MAX), None);
    for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
        assert_eq!(TensorType::from_id(removed), None, "{removed}");
    }
}

#[test]
fn shapes_of_all_ranks() {
    let bytes = [7; 24 * 4];
    let shapes: [&[usize]; 5] = [&[], &[24], &[4, 6], &[4, 3, 2], &[2, 2, 3, 2]];
    for dims in shapes {
        let elements: usize = dims.iter().product();
        let mut w = GgufWriter::new();
        w.tensor("t", dims, 0, &bytes[..elements * 4]).unwrap();
        let file = w.to_vec();
        let gguf = Gguf::parse(&file).unwrap();
        let info = gguf.tensor("t").unwrap();
        assert_eq!(&*info.dims, dims);
        assert_eq!(info.n() * info.k(), elements);
        assert_eq!(info.range.len(), elements * 4);
    }
}

#[test]
fn alignment_is_kept() {
    for alignment in [1, 8, 64, 4096, 1 << 20] {
        let mut w = GgufWriter::new().with_alignment(alignment).unwrap();
        w.set("general.architecture", "llama").unwrap();
        w.tensor("a", &[3], 24, vec![1, 2, 3]).unwrap();
        w.tensor("b", &[5], 24, vec![4, 5, 6, 7, 8]).unwrap();
        let file = w.to_vec();
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!(gguf.alignment(), alignment);
        assert_eq!(gguf.data_start() % alignment, 0);
        assert_eq!(gguf.tensor("b").unwrap().range.start, gguf.data_start() + 3usize.next_multiple_of(alignment));
        assert_eq!(gguf.tensor_data("a").unwrap(), [1, 2, 3]);
        assert_eq!(gguf.tensor_data("b").unwrap(), [4, 5, 6, 7, 8]);
    }
}

#[test]
fn last_padding_may_be_missing() {
    let mut w = GgufWriter::new();
    w.tensor("a", &[40], 24, vec![9; 40]).unwrap();
    w.tensor("b", &[5], 24, vec![4, 5, 6, 7, 8]).unwrap();
    let file = w.to_vec();
    for missing in 0..=27 {
        let gguf = Gguf::parse(&file[..file.len() - missing]).unwrap();
        assert_eq!(gguf.tensor_data("b").unwrap(), [4, 5, 6, 7, 8]);
    }
    assert!(message(Gguf::parse(&file[..file.len() - 28])).contains("tensor `b`"));
}

#[test]
fn empty_files_and_empty_tensors() {
    let file = GgufWriter::new().to_vec();
    assert_eq!(file.len(), 32);
    for len in 24..=32 {
        let gguf = Gguf::parse(&file[..len]).unwrap();
        assert!(gguf.metadata().is_empty() && gguf.tensors().is_empty() && gguf.data_start() == len);
    }

    let mut w = GgufWriter::new();
    w.tensor("none", &[0], 0, vec![]).unwrap();
    w.tensor("five", &[5], 24, vec![1; 5]).unwrap();
    w.tensor("no rows", &[256, 0, 3], 12, vec![]).unwrap();
    w.tensor("no columns", &[0, 7], 12, vec![]).unwrap();
    let file = w.to_vec();
    for missing in [0, 27] {
        let gguf = Gguf::parse(&file[..file.len() - missing]).unwrap();
        for name in ["none", "no rows", "no columns"] {
            assert_eq!(gguf.tensor_data(name), Ok(&[][..]), "{name}");
        }
        assert_eq!(gguf.tensor_data("five").unwrap(), [1; 5]);
        assert_eq!(gguf.tensor("no rows").unwrap().n(), 0);
        assert_eq!((gguf.tensor("no columns").unwrap().n(), gguf.tensor("no columns").unwrap().k()), (7, 0));
    }
}

#[test]
fn tensors_may_lie_in_any_order_with_gaps() {
    let mut w = GgufWriter::new();
    w.tensor("first", &[4], 24, vec![1; 4]).unwrap();
    w.tensor("second", &[4], 24, vec![2; 4]).unwrap();
    w.tensor("third", &[4], 24, vec![3; 4]).unwrap();
    let mut file = w.to_vec();
    let header = Gguf::parse(&file).unwrap().data_start();
    // The offset is the last field of an entry, behind one dimension and the type.
    let offset_of = |name: &str| {
        let at = file.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
        at + name.len() + 4 + 8 + 4
    };
    let (first, second, third) = (offset_of("first"), offset_of("second"), offset_of("third"));
    file[first] = 64;
    file[third] = 0;
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.tensor_data("first").unwrap(), [3; 4]);
    assert_eq!(gguf.tensor_data("third").unwrap(), [1; 4]);
    assert_eq!(gguf.tensors()[0].name, "first");
    // A gap between the first and the last.
    file[second] = 96;
    file.resize(header + 100, 2);
    assert_eq!(Gguf::parse(&file).unwrap().tensor_data("second").unwrap(), [2; 4]);
    // Two tensors at one place.
    file[second] = 64;
    assert!(message(Gguf::parse(&file)).contains("overlap"));
}

#[test]
fn large_vocabularies_are_looked_up() {
    let tokens: Vec<String> = (0..150_000).map(|i| format!("token {i}")).collect();
    let mut w = GgufWriter::new();
    w.set("tokenizer.ggml.tokens", tokens.as_slice()).unwrap();
    for i in 0..20_000u32 {
        w.set(&format!("key.{i}"), i).unwrap();
    }
    let file = w.to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    for i in 0..20_000 {
        assert_eq!(gguf.u32(&format!("key.{i}")), Ok(i));
    }
    assert!(gguf.array::<&str>("tokenizer.ggml.tokens").unwrap().eq(tokens.iter().map(String::as_str)));
}

#[test]
fn writer_refuses_what_readers_would() {
    let mut w = GgufWriter::new();
    w.set("a", 1u32).unwrap();
    assert!(message(w.set("a", 2u32)).contains("`a`: the key is already there"));
    assert!(message(w.set("", 2u32)).contains("empty"));
    assert!(message(w.set("general.alignment", 64u32)).contains("with_alignment"));
    assert!(message(GgufWriter::new().with_alignment(48)).contains("48"));
    assert!(message(GgufWriter::new().with_alignment(0)).contains("power of two"));
    assert!(message(GgufWriter::new().with_version(1)).contains("version 1"));
    w.tensor("t", &[2], 0, vec![0; 8]).unwrap();
    assert!(message(w.tensor("t", &[2], 0, vec![0; 8])).contains("tensor `t`: the tensor is already there"));
    assert!(message(w.tensor("u", &[2], 0, vec![0; 7])).contains("`u`: length 7, but the shapes need 8"));
    assert!(message(w.tensor("u", &[1; 5], 0, vec![0; 4])).contains("5 dimensions"));
    assert!(message(w.tensor("u", &[255], 12, vec![0; 144])).contains("Q4_K needs a multiple of its block of 256"));
    assert!(message(w.tensor("u", &[32], 4, vec![0; 18])).contains("Q4_2"));
    assert!(message(w.tensor("u", &[usize::MAX, 2], 24, vec![])).contains("not representable"));
    assert!(message(w.tensor(&"n".repeat(64), &[1], 24, vec![0])).contains("64 bytes"));
    w.tensor(&"n".repeat(63), &[1], 24, vec![0]).unwrap();
    let file = w.to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!((gguf.metadata().len(), gguf.tensors().len()), (1, 2));
}

#[test]
fn names_in_messages_are_escaped_and_cut() {
    let mut w = GgufWriter::new();
    w.set("\u{1b}[31mred", 1u32).unwrap().set(&"k".repeat(1000), 1u32).unwrap();
    let file = w.to_vec();
    let gguf = Gguf::parse(&file).unwrap();
    assert!(message(gguf.str("\u{1b}[31mred")).contains(r"`\u{1b}[31mred`"));
    assert!(message(gguf.str(&"k".repeat(1000))).len() < 300);
}

#[cfg(feature = "std")]
mod files {
    use super::{all_values, message};
    use quantblock::gguf::{Gguf, GgufWriter, read_file};

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("quantblock-{}-{name}", std::process::id()))
    }

    #[test]
    fn writing_to_a_stream_gives_the_same_bytes() {
        let mut w = all_values().with_alignment(128).unwrap();
        w.tensor("a", &[5], 24, vec![1; 5]).unwrap();
        w.tensor("b", &[0], 24, vec![]).unwrap();
        w.tensor("c", &[128], 24, vec![1; 128]).unwrap();
        let mut stream = Vec::new();
        w.write_to(&mut stream).unwrap();
        assert!(stream == w.to_vec());
        let full: &mut [u8] = &mut [0; 64];
        assert!(message(w.write_to(full)).contains("writing the GGUF header"));
    }

    #[test]
    fn files_are_read_and_errors_name_them() {
        let path = path("read.gguf");
        let mut w = GgufWriter::new();
        w.set("a", 1u32).unwrap();
        w.write_to(std::fs::File::create(&path).unwrap()).unwrap();
        let bytes = read_file(&path).unwrap();
        assert_eq!(Gguf::parse(&bytes).unwrap().u32("a"), Ok(1));
        // More than a huge page.
        let large: Vec<u8> = (0..5_000_003).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &large).unwrap();
        assert!(read_file(&path).unwrap() == large);
        std::fs::remove_file(&path).unwrap();
        assert!(message(read_file(&path)).contains("read.gguf"));
    }

    #[cfg(feature = "mmap")]
    #[test]
    fn files_are_mapped_and_errors_name_them() {
        use quantblock::gguf::Mmap;
        use std::sync::Arc;

        let path = path("mapped.gguf");
        let mut w = GgufWriter::new();
        w.set("a", 1u32).unwrap();
        std::fs::write(&path, w.to_vec()).unwrap();
        let shared: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(Mmap::open(&path).unwrap());
        assert_eq!(Gguf::parse((*shared).as_ref()).unwrap().u32("a"), Ok(1));
        drop(shared);
        std::fs::write(&path, []).unwrap();
        assert!(message(Gguf::parse(&Mmap::open(&path).unwrap())).contains("truncated"));
        std::fs::remove_file(&path).unwrap();
        assert!(message(Mmap::open(&path)).contains("mapped.gguf"));
    }
}
