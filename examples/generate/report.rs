//! What is printed to standard error: what was loaded, which kernels run, how long it took.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use quantblock::gguf::Gguf;
use quantblock::transformer::Model;
use quantblock::{Result, WeightFormat};

/// Times and token counts, shown as llama.cpp shows them.
#[derive(Debug, Default)]
pub struct Timings {
    pub load: Duration,
    pub prompt: Duration,
    pub prompt_tokens: usize,
    pub eval: Duration,
    pub eval_tokens: usize,
}

impl Timings {
    pub fn report(&self) {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let line = |what: &str, time: Duration, count: usize, unit: &str| {
            let (each, rate) = match count {
                0 => (0.0, 0.0),
                _ => (milliseconds(time) / count as f64, count as f64 / time.as_secs_f64()),
            };
            let time = milliseconds(time);
            eprintln!(
                "{what:>16} time = {time:>10.2} ms / {count:>5} {unit:<6} ({each:>8.2} ms per token, {rate:>9.2} tokens per second)"
            );
        };
        eprintln!("\n{:>16} time = {:>10.2} ms", "load", milliseconds(self.load));
        line("prompt eval", self.prompt, self.prompt_tokens, "tokens");
        line("eval", self.eval, self.eval_tokens, "runs");
        let total = self.load + self.prompt + self.eval;
        eprintln!(
            "{:>16} time = {:>10.2} ms / {:>5} tokens",
            "total",
            milliseconds(total),
            self.prompt_tokens + self.eval_tokens
        );
    }
}

/// The context that the model was trained for.
pub fn trained_context(gguf: &Gguf) -> Result<usize> {
    gguf.nonzero(&format!("{}.context_length", gguf.str("general.architecture")?))
}

fn counted(names: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} × {name}")).collect();
    parts.join(", ")
}

/// The file, its formats, and the kernels that its matrices run.
pub fn model(path: &Path, gguf: &Gguf, model: &Model, threads: usize, fastest: bool) {
    let layers = model.layers().iter().flat_map(|layer| {
        let (attention, ffn) = (&layer.attention, &layer.ffn);
        [&attention.q, &attention.k, &attention.v, &attention.output, &ffn.gate, &ffn.up, &ffn.down]
    });
    let matrices = layers.chain([model.output()]);
    let name = gguf.find::<&str>("general.name").ok().flatten().unwrap_or("a model without a name");
    let level = model.level().name();
    let chosen = if fastest { "" } else { " (not the fastest here)" };
    eprintln!("model:   {name} ({}), {} MiB of weights in memory", path.display(), model.size_bytes() >> 20);
    eprintln!("formats: {}", counted(gguf.tensors().iter().map(|tensor| tensor.type_name().to_string())));
    eprintln!("kernels: {}", counted(matrices.map(WeightFormat::kernel_name)));
    eprintln!("level:   {level}{chosen}, {threads} threads, context {}\n", model.context());
}
