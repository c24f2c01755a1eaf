//! One answer: a model's logits have the same bits for any batch, thread count, storage and instruction set level. And
//! files that do not fit together are errors that say what is wrong.
#![cfg(feature = "model")]

use quantblock::{
    Error, Executor, Level, Serial, Storage,
    bytes::SharedBytes,
    executor::ThreadPool,
    for_each_format, format,
    gguf::{GgufWriter, ToMetadata, read_file},
    transformer::{CacheType, LoadOptions, Model, Session},
    weight::FORMATS,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Writes a key of this name.
type WriteKey = Box<dyn Fn(&mut GgufWriter<'_>, &str)>;

/// A model to be written: metadata and float weights, random but the same each time.
struct Spec {
    keys: BTreeMap<&'static str, WriteKey>,
    /// Name, n, k, type id.
    tensors: BTreeMap<String, (usize, usize, u32)>,
}

const VOCAB: usize = 80;
const F32: u32 = 0;
const Q8_0: u32 = 8;

impl Spec {
    /// llama with one layer, whose matrices have the type `type_id` and rows of 256.
    fn llama(type_id: u32) -> Spec {
        let mut spec = Spec { keys: BTreeMap::new(), tensors: BTreeMap::new() };
        let (e, heads, kv_heads, d, ff) = (256, 4, 2, 64, 256);
        spec.set("general.architecture", "llama");
        spec.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
        let sizes = [
            ("llama.block_count", 1),
            ("llama.context_length", 128),
            ("llama.embedding_length", e),
            ("llama.feed_forward_length", ff),
            ("llama.attention.head_count", heads),
            ("llama.attention.head_count_kv", kv_heads),
        ];
        for (key, value) in sizes {
            spec.set(key, value as u32);
        }
        let matrices = [
            ("token_embd.weight", VOCAB, e),
            ("blk.0.attn_q.weight", heads * d, e),
            ("blk.0.attn_k.weight", kv_heads * d, e),
            ("blk.0.attn_v.weight", kv_heads * d, e),
            ("blk.0.attn_output.weight", e, heads * d),
            ("blk.0.ffn_gate.weight", ff, e),
            ("blk.0.ffn_up.weight", ff, e),
            ("blk.0.ffn_down.weight", e, ff),
        ];
        for (name, n, k) in matrices {
            spec.tensors.insert(name.into(), (n, k, type_id));
        }
        for name in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"] {
            spec.tensors.insert(name.into(), (1, e, F32));
        }
        spec
    }

    fn set(&mut self, key: &'static str, value: impl ToMetadata + 'static) {
        self.keys.insert(
            key,
            Box::new(move |writer, key| {
                writer.set(key, Borrowed(&value)).unwrap();
            }),
        );
    }

    fn write(&self) -> SharedBytes {
        let mut seed = 7u32;
        let data: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, &(n, k, type_id))| {
                let floats: Vec<f32> = (0..n * k)
                    .map(|_| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let uniform = (seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
                        if n == 1 { 1.0 + 0.2 * uniform } else { uniform * 2.0 / (k as f32).sqrt() }
                    })
                    .collect();
                (name, n, k, type_id, quantize(type_id, &floats, k))
            })
            .collect();
        let mut writer = GgufWriter::new();
        for (key, set) in &self.keys {
            set(&mut writer, key);
        }
        for (name, n, k, type_id, bytes) in &data {
            let dims = if *n == 1 { vec![*k] } else { vec![*k, *n] };
            writer.tensor(name, &dims, *type_id, bytes).unwrap();
        }
        Arc::new(writer.to_vec())
    }

    fn load(&self) -> quantblock::Result<Model> {
        Model::load_from_gguf(self.write(), LoadOptions::default())
    }
}

/// [`ToMetadata`] by reference.
struct Borrowed<'a, T>(&'a T);

impl<T: ToMetadata> ToMetadata for Borrowed<'_, T> {
    fn value_type(&self) -> quantblock::gguf::ValueType {
        self.0.value_type()
    }
    fn append(&self, out: &mut Vec<u8>) {
        self.0.append(out);
    }
}

macro_rules! quantize_rows {
    ([$type_id:expr, $floats:expr, $k:expr] $($format:ident = $id:literal),* $(,)?) => {
        match $type_id {
            $($id => $floats.chunks_exact($k).flat_map(|row| {
                let mut out = vec![0; format::row_bytes::<format::$format>($k).unwrap()];
                format::quantize_row::<format::$format>(row, None, &mut out).unwrap();
                out
            }).collect(),)*
            _ => unreachable!(),
        }
    };
}

/// Rows of `k` weights as they lie in a file.
fn quantize(type_id: u32, floats: &[f32], k: usize) -> Vec<u8> {
    for_each_format!(quantize_rows type_id, floats, k)
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Bits of the logits behind every token.
fn every(model: &Model, tokens: &[u32], ex: &impl Executor) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    let mut session = Session::new(model).unwrap();
    session
        .prefill_each(tokens, ex, |i, logits| {
            assert_eq!(i, all.len());
            all.push(bits(logits));
        })
        .unwrap();
    all
}

/// Loads the file in many ways and demands the same bits of each.
fn one_answer(what: &str, file: &SharedBytes, tokens: &[u32], options: &LoadOptions) {
    let load = |options: LoadOptions| Model::load_from_gguf(file.clone(), options).unwrap();
    let model = load(options.clone());
    let want = every(&model, tokens, &Serial);
    assert!(want.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()), "{what}");
    assert_ne!(want[0], want[1], "{what}");

    let mut session = Session::new(&model).unwrap();
    for (i, &token) in tokens.iter().enumerate() {
        assert!(bits(session.decode(token, &Serial).unwrap()) == want[i], "{what}: decode of token {i}");
    }
    let (cut, last) = (tokens.len() / 2, tokens.len() - 1);
    session.truncate(cut);
    assert!(bits(session.prefill(&tokens[cut..], &Serial).unwrap()) == want[last], "{what}: prefill after truncation");

    for threads in [1, 2, 3, 7] {
        let pool = ThreadPool::new(threads);
        assert!(every(&model, tokens, &pool) == want, "{what}: {threads} threads");
        let mut session = Session::new(&model).unwrap();
        session.prefill(&tokens[..last], &pool).unwrap();
        assert!(bits(session.decode(tokens[last], &pool).unwrap()) == want[last], "{what}: {threads} threads, decode");
    }
    for batch in [5, 33] {
        let model = load(options.clone().batch(batch));
        assert!(every(&model, tokens, &Serial) == want, "{what}: batches of {batch}");
        let mut session = Session::new(&model).unwrap();
        assert!(bits(session.prefill(tokens, &Serial).unwrap()) == want[last], "{what}: prefill in batches of {batch}");
    }
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        for storage in [Storage::Native, Storage::Packed] {
            let model = load(options.clone().level(level).storage(storage));
            assert!(every(&model, tokens, &Serial) == want, "{what}: {} {storage:?}", level.name());
            let mut session = Session::new(&model).unwrap();
            assert!(
                bits(session.decode(tokens[0], &Serial).unwrap()) == want[0],
                "{what}: {} {storage:?}",
                level.name()
            );
        }
    }
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * i * 31 + i * 7) as u32 % VOCAB as u32).collect()
}

#[test]
fn every_architecture_gives_one_answer() {
    for name in ["tiny_llama", "tiny_qwen2", "tiny_qwen3", "tiny_gemma3"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.gguf"));
        let file: SharedBytes = Arc::new(read_file(path).unwrap());
        one_answer(name, &file, &tokens(101), &LoadOptions::default());
        one_answer(name, &file, &tokens(70), &LoadOptions::default().f32_activations(true));
        for kind in CacheType::ALL {
            one_answer(name, &file, &tokens(70), &LoadOptions::default().cache_type(kind));
        }
    }
}

#[test]
fn every_format_gives_one_answer() {
    for &(type_id, name) in FORMATS {
        one_answer(name, &Spec::llama(type_id).write(), &tokens(21), &LoadOptions::default());
    }
}

/// The message of the error that loading the changed model gives.
fn refused(change: impl FnOnce(&mut Spec)) -> String {
    let mut spec = Spec::llama(Q8_0);
    change(&mut spec);
    spec.load().map(|_| ()).unwrap_err().to_string()
}

#[test]
fn files_that_do_not_fit_together_are_errors_with_names() {
    assert!(Spec::llama(Q8_0).load().is_ok());
    let mentions = |message: String, names: &[&str]| {
        for name in names {
            assert!(message.contains(name), "`{message}` does not say `{name}`");
        }
    };
    for (key, value) in [
        ("llama.block_count", 0u32),
        ("llama.embedding_length", 0),
        ("llama.feed_forward_length", 0),
        ("llama.context_length", 0),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count_kv", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.head_count", 3),
        ("llama.attention.key_length", 8),
        ("llama.attention.key_length", 0),
        ("llama.rope.dimension_count", 66),
        ("llama.rope.dimension_count", 7),
        ("llama.vocab_size", 81),
        ("llama.expert_count", 8),
        ("llama.attention.sliding_window", 64),
    ] {
        mentions(refused(|spec| spec.set(key, value)), &[key]);
    }
    for key in ["llama.block_count", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"] {
        let remove = |spec: &mut Spec| {
            spec.keys.remove(key);
        };
        mentions(refused(remove), &[key]);
    }
    mentions(refused(|spec| spec.set("llama.rope.freq_base", f32::NAN)), &["llama.rope.freq_base"]);
    mentions(refused(|spec| spec.set("llama.attention.layer_norm_rms_epsilon", -1f32)), &["rms_epsilon", "-1"]);
    mentions(refused(|spec| spec.set("llama.rope.scaling.type", "yarn")), &["llama.rope.scaling.type", "yarn"]);
    mentions(refused(|spec| spec.set("general.architecture", "mamba")), &["mamba", "general.architecture"]);
    mentions(refused(|spec| spec.set("llama.block_count", u32::MAX)), &["blk.1.attn_norm.weight"]);
    mentions(refused(|spec| spec.set("llama.attention.head_count", vec![4u32, 4])), &["head_count"]);
    for name in ["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight"] {
        let remove = |spec: &mut Spec| {
            spec.tensors.remove(name);
        };
        mentions(refused(remove), &[name]);
        let reshape = |spec: &mut Spec| {
            spec.tensors.insert(name.into(), (32, 32, Q8_0));
        };
        mentions(refused(reshape), &[name, "[32, 32]"]);
    }
    for name in ["blk.0.attn_q.bias", "output.weight", "rope_freqs.weight"] {
        let add = |spec: &mut Spec| {
            spec.tensors.insert(name.into(), (1, 96, F32));
        };
        mentions(refused(add), &[name, "96"]);
    }
}

#[test]
fn tokens_that_do_not_fit_are_errors_and_leave_the_sequence_as_it_was() {
    let model = Model::load_from_gguf(Spec::llama(Q8_0).write(), LoadOptions::default().context(10)).unwrap();
    let mut session = Session::new(&model).unwrap();
    assert!(matches!(session.prefill(&tokens(11), &Serial), Err(Error::Context { capacity: 10, needed: 11 })));
    assert!(matches!(session.prefill(&[], &Serial), Err(Error::Shape { .. })));
    assert!(matches!(session.prefill(&[0, VOCAB as u32], &Serial), Err(Error::Shape { .. })));
    assert_eq!((session.position(), session.capacity()), (0, 10));
    let want = bits(session.prefill(&tokens(10), &Serial).unwrap());
    assert!(matches!(session.decode(1, &Serial), Err(Error::Context { capacity: 10, needed: 11 })));
    session.truncate(9);
    assert_eq!(bits(session.decode(tokens(10)[9], &Serial).unwrap()), want);
    for options in [LoadOptions::default().context(0), LoadOptions::default().batch(0)] {
        assert!(Model::load_from_gguf(Spec::llama(Q8_0).write(), options).is_err());
    }
}
