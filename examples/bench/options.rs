//! The command line: llama-bench's flags where it has them.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use quantblock::transformer::CacheType;
use quantblock::{Level, Storage};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A Markdown table
    Md,
    /// Comma-separated values, every field in quotes
    Csv,
    /// An array of objects, one for each test
    Json,
}

/// Measures how fast models take prompts (pp) and generate tokens (tg).
#[derive(Parser, Debug)]
#[command(name = "bench", version)]
pub struct Options {
    /// The GGUF files
    #[arg(short, long, required = true, value_delimiter = ',', value_name = "FILE")]
    pub model: Vec<PathBuf>,

    /// Tokens of the prompts; 0: none
    #[arg(short = 'p', long, default_values_t = [512], value_delimiter = ',', value_name = "N")]
    pub n_prompt: Vec<usize>,

    /// Tokens to generate; 0: none
    #[arg(short, long, default_values_t = [64], value_delimiter = ',', value_name = "N")]
    pub n_gen: Vec<usize>,

    /// Tokens that are in the context before each test
    #[arg(short = 'd', long, default_values_t = [0], value_delimiter = ',', value_name = "N")]
    pub n_depth: Vec<usize>,

    /// Threads [default: one a core]
    #[arg(short, long, value_delimiter = ',', value_name = "N")]
    threads: Vec<NonZeroUsize>,

    /// How often each test is measured, after a warm-up
    #[arg(short, long, default_value = "5", value_name = "N")]
    pub repetitions: NonZeroUsize,

    /// The form of the results
    #[arg(short, long, value_enum, default_value = "md", value_name = "FORMAT")]
    pub output: Format,

    /// Instruction set level: scalar, avx2, avxvnni, avx512vnni or amx [default: the fastest that the CPU has]
    #[arg(long, value_name = "LEVEL")]
    isa: Option<String>,

    /// Uses the weights as they lie in the file
    #[arg(long, conflicts_with = "pack")]
    native: bool,

    /// Packs the weights for SIMD (the default)
    #[arg(long)]
    pack: bool,

    /// How the KV cache stores keys and values: f16, f32 or i16 (codes with a scale: faster) [default: f16]
    #[arg(long, value_name = "TYPE")]
    cache_type: Option<String>,
}

impl Options {
    /// The instruction set level that was asked for.
    pub fn level(&self) -> Result<Level, Box<dyn Error>> {
        Ok(self.isa.as_deref().map_or(Ok(Level::best()), str::parse)?.checked()?)
    }

    /// The type of the KV cache, if one was given.
    pub fn cache_type(&self) -> Result<Option<CacheType>, Box<dyn Error>> {
        Ok(self.cache_type.as_deref().map(str::parse).transpose()?)
    }

    /// The form of the weights that was asked for.
    pub fn storage(&self) -> Storage {
        if self.native { Storage::Native } else { Storage::Packed }
    }

    /// The numbers of threads to measure with.
    pub fn threads(&self) -> Vec<usize> {
        if self.threads.is_empty() {
            return vec![std::thread::available_parallelism().map_or(1, NonZeroUsize::get)];
        }
        self.threads.iter().map(|threads| threads.get()).collect()
    }
}
