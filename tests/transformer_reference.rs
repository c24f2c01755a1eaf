//! The transformer against an independent float32 forward pass (`data/make_logits.py`), int8 activations against f32 and
//! against llama.cpp (`data/make_llamacpp_logits.py`).
//!
//! The tests of real models are ignored unless asked for: they read `smollm2.gguf` and `gemma3-270m.gguf` from the
//! directory that `QUANTBLOCK_MODELS` names.
#![cfg(feature = "model")]

use quantblock::{
    Storage,
    bytes::SharedBytes,
    executor::ThreadPool,
    gguf::{Mmap, read_file},
    transformer::{CacheType, LoadOptions, Model, Session},
};
use std::{path::Path, sync::Arc};

/// A position of a `.logits` file: what the reference gives there.
struct Position {
    /// log Σ exp of all logits.
    log_sum: f64,
    /// log-probability of the token that follows in the text.
    following: f64,
    /// The largest logits, the largest first.
    top: Vec<(usize, f64)>,
}

impl Position {
    /// How much likelier the likeliest token is than the second, in nat.
    fn margin(&self) -> f64 {
        self.top[0].1 - self.top[1].1
    }
}

struct Fixture {
    tokens: Vec<u32>,
    positions: Vec<Position>,
}

impl Fixture {
    fn read(name: &str) -> Fixture {
        let bytes = read_file(data(&format!("{name}.logits"))).unwrap();
        let mut words = bytes.chunks_exact(4).map(|word| <[u8; 4]>::try_from(word).unwrap());
        let mut word = || words.next().unwrap();
        let [t, kept, _vocab] = [(); 3].map(|_| u32::from_le_bytes(word()) as usize);
        let tokens: Vec<u32> = (0..t).map(|_| u32::from_le_bytes(word())).collect();
        let positions = (0..t).map(|_| {
            let [log_sum, following] = [(); 2].map(|_| f64::from(f32::from_le_bytes(word())));
            let ids: Vec<usize> = (0..kept).map(|_| u32::from_le_bytes(word()) as usize).collect();
            let top = ids.into_iter().map(|id| (id, f64::from(f32::from_le_bytes(word())))).collect();
            Position { log_sum, following, top }
        });
        let positions = positions.collect();
        assert!(words.next().is_none());
        Fixture { tokens, positions }
    }
}

fn data(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

fn tiny(name: &str, options: LoadOptions) -> Model {
    let file: SharedBytes = Arc::new(read_file(data(&format!("{name}.gguf"))).unwrap());
    Model::load_from_gguf(file, options).unwrap()
}

fn real(name: &str, options: LoadOptions) -> Model {
    let directory = std::env::var_os("QUANTBLOCK_MODELS").expect("QUANTBLOCK_MODELS names a directory with the models");
    let file = Mmap::open(Path::new(&directory).join(format!("{name}.gguf"))).unwrap();
    Model::load_from_gguf(Arc::new(file), options.context(512)).unwrap()
}

fn pool() -> ThreadPool {
    ThreadPool::new(std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let peak = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    peak + logits.iter().map(|&l| (f64::from(l) - peak).exp()).sum::<f64>().ln()
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// How far two runs over the same tokens are apart.
#[derive(Debug, Default)]
struct Distance {
    mean_kl: f64,
    /// Share of the positions with the same likeliest token.
    top1: f64,
    /// The largest margin, in nat, at which the likeliest token differs.
    widest_miss: f64,
    /// Largest difference of a log-probability among the reference's largest.
    worst: f64,
    perplexities: [f64; 2],
}

impl Distance {
    fn add(&mut self, kl: f64, margin: f64, same_top: bool, of: usize) {
        self.mean_kl += kl / of as f64;
        self.top1 += f64::from(u8::from(same_top)) / of as f64;
        if !same_top {
            self.widest_miss = self.widest_miss.max(margin);
        }
    }
}

/// A model against the fixture. The KL divergence takes all tokens beyond the kept ones as one.
fn against_reference(model: &Model, fixture: &Fixture) -> Distance {
    assert!(model.context() >= fixture.tokens.len());
    let (mut distance, mut nll, t) = (Distance::default(), [0.0; 2], fixture.tokens.len());
    let each = |i: usize, logits: &[f32]| {
        let want = &fixture.positions[i];
        let log_sum = log_sum_exp(logits);
        let (mut kl, mut rest_p, mut rest_q) = (0.0, 1.0, 1.0);
        for &(id, logit) in &want.top {
            let (p, q) = (logit - want.log_sum, f64::from(logits[id]) - log_sum);
            kl += p.exp() * (p - q);
            rest_p -= p.exp();
            rest_q -= q.exp();
            distance.worst = distance.worst.max((p - q).abs());
        }
        if rest_p > 1e-6 {
            kl += rest_p * (rest_p / rest_q).ln();
        }
        distance.add(kl, want.margin(), argmax(logits) == want.top[0].0, t);
        if let Some(&next) = fixture.tokens.get(i + 1) {
            nll[0] -= want.following / (t - 1) as f64;
            nll[1] -= (f64::from(logits[next as usize]) - log_sum) / (t - 1) as f64;
        }
    };
    Session::new(model).unwrap().prefill_each(&fixture.tokens, &pool(), each).unwrap();
    distance.perplexities = nll.map(f64::exp);
    distance
}

/// Bound for f32 activations: only the order of f32 sums differs.
fn assert_exact(name: &str, distance: &Distance) {
    println!("{name}, f32 activations against the reference: {distance:?}");
    assert!(distance.mean_kl.abs() <= 1e-6, "{name}: {distance:?}");
    assert!(distance.widest_miss <= 0.02, "{name}: {distance:?}");
    assert!(distance.worst < 5e-3, "{name}: {distance:?}");
}

/// Bound for two runs that round activations differently.
fn assert_near(what: &str, distance: &Distance) {
    println!("{what}: {distance:?}");
    assert!(distance.mean_kl <= 1e-2, "{what}: {distance:?}");
    assert!(distance.top1 >= 0.93, "{what}: {distance:?}");
    assert!(distance.widest_miss <= 0.5, "{what}: {distance:?}");
    let [exact, quantized] = distance.perplexities;
    assert!((quantized / exact - 1.0).abs() <= 0.02, "{what}: {distance:?}");
}

/// Two models teacher-forced over the same tokens.
fn between(exact: &Model, quantized: &Model, tokens: &[u32]) -> Distance {
    let mut want = Vec::new();
    Session::new(exact).unwrap().prefill_each(tokens, &pool(), |_, logits| want.push(logits.to_vec())).unwrap();
    let (mut distance, mut nll, t) = (Distance::default(), [0.0; 2], tokens.len());
    let each = |i: usize, logits: &[f32]| {
        let want = &want[i];
        let sums = [log_sum_exp(want), log_sum_exp(logits)];
        let logs = want.iter().zip(logits).map(|(&p, &q)| (f64::from(p) - sums[0], f64::from(q) - sums[1]));
        let kl = logs.map(|(p, q)| p.exp() * (p - q)).sum();
        let top = argmax(want);
        let second = (0..want.len()).filter(|&id| id != top).map(|id| want[id]).fold(f32::NEG_INFINITY, f32::max);
        distance.add(kl, f64::from(want[top] - second), argmax(logits) == top, t);
        if let Some(&next) = tokens.get(i + 1) {
            for (nll, (logits, sum)) in nll.iter_mut().zip([(&want[..], sums[0]), (logits, sums[1])]) {
                *nll -= (f64::from(logits[next as usize]) - sum) / (t - 1) as f64;
            }
        }
    };
    Session::new(quantized).unwrap().prefill_each(tokens, &pool(), each).unwrap();
    distance.perplexities = nll.map(f64::exp);
    distance
}

#[test]
fn tiny_models_of_every_architecture_match_the_reference() {
    for name in ["tiny_llama", "tiny_qwen2", "tiny_qwen3", "tiny_gemma3"] {
        let fixture = Fixture::read(name);
        for storage in [Storage::Native, Storage::Packed] {
            let options = LoadOptions::default().f32_activations(true).storage(storage).batch(37);
            assert_exact(name, &against_reference(&tiny(name, options), &fixture));
        }
    }
}

fn real_model_matches_the_reference(name: &str) {
    let fixture = Fixture::read(name);
    assert!(fixture.tokens.len() >= 256);
    let model = real(name, LoadOptions::default().f32_activations(true));
    assert_exact(name, &against_reference(&model, &fixture));
}

fn int8_activations_stay_near_f32(name: &str) {
    let tokens = Fixture::read(name).tokens;
    let exact = real(name, LoadOptions::default().f32_activations(true));
    for kind in [CacheType::I16, CacheType::F16] {
        let distance = between(&exact, &real(name, LoadOptions::default().cache_type(kind)), &tokens);
        assert_near(&format!("{name}, int8 activations and {} cache against f32", kind.name()), &distance);
    }
}

/// llama.cpp rounds activations to int8 and its KV cache to f16, so it is a neighbour, not the truth.
fn int8_activations_stay_near_llama_cpp(name: &str) {
    let [fixture, ours] = [format!("{name}.llamacpp"), name.to_string()].map(|name| Fixture::read(&name));
    assert_eq!(fixture.tokens, ours.tokens);
    let exact = real(name, LoadOptions::default().f32_activations(true));
    println!("{name}, f32 activations against llama.cpp: {:?}", against_reference(&exact, &fixture));
    for kind in [CacheType::I16, CacheType::F16] {
        let model = real(name, LoadOptions::default().cache_type(kind));
        let what = format!("{name}, int8 activations and {} cache against llama.cpp", kind.name());
        assert_near(&what, &against_reference(&model, &fixture));
    }
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn smollm2_matches_the_reference() {
    real_model_matches_the_reference("smollm2");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn gemma3_matches_the_reference() {
    real_model_matches_the_reference("gemma3-270m");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn smollm2_with_int8_activations_stays_near_f32() {
    int8_activations_stay_near_f32("smollm2");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn gemma3_with_int8_activations_stays_near_f32() {
    int8_activations_stay_near_f32("gemma3-270m");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn smollm2_with_int8_activations_stays_near_llama_cpp() {
    int8_activations_stay_near_llama_cpp("smollm2");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn gemma3_with_int8_activations_stays_near_llama_cpp() {
    int8_activations_stay_near_llama_cpp("gemma3-270m");
}
