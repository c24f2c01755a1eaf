//! Makes a GGUF file of random weights with the shapes of a real model, pure in one format: for benchmarks of whole models
//! where downloading each of them is not wanted.
//!
//! ```sh
//! cargo run --release --example synthesize -- --shape qwen2.5-1.5b --format Q4_K -o qwen.gguf
//! cargo run --release --example bench -- -m qwen.gguf
//! ```
//!
//! All matrices, the embeddings included, have the format; norms and biases are F32. Scales are sane: every vector on the
//! way through the model keeps its size. The weights are not all different: for each row length some hundred rows are
//! drawn and really quantized, and all matrices repeat them, each from a row of its own on. So the file is made in
//! seconds, and no more than the largest matrix is in memory for each row length, already quantized. The file has no
//! tokenizer (`tokenizer.ggml.model` is `none`): `bench` and llama-bench need none, `generate` does.

mod rows;
mod shapes;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use quantblock::gguf::GgufWriter;
use quantblock::weight::FORMATS;

use rows::Random;
use shapes::Model;

/// Makes a GGUF file of random weights with the shapes of a real model.
#[derive(Parser, Debug)]
#[command(name = "synthesize", version)]
struct Options {
    /// The model whose shapes the file has
    #[arg(long, value_enum)]
    shape: Model,

    /// The format of all matrices, as GGUF spells it
    #[arg(long, value_name = "FORMAT")]
    format: String,

    /// Layers [default: as many as the model has]
    #[arg(long, value_name = "N")]
    layers: Option<usize>,

    /// Of the random weights
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// The GGUF type of that name.
fn type_id(name: &str) -> Result<u32, String> {
    let found = FORMATS.iter().find(|(_, format)| format.eq_ignore_ascii_case(name));
    found.map(|&(id, _)| id).ok_or_else(|| {
        let names: Vec<&str> = FORMATS.iter().map(|&(_, format)| format).collect();
        format!("unknown format `{name}`; there are {}", names.join(", "))
    })
}

/// The type id of F32, which norms and biases have.
const F32: u32 = 0;

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let type_id = type_id(&options.format)?;
    let mut shape = options.shape.shape();
    shape.layers = options.layers.unwrap_or(shape.layers);
    let tensors = shape.tensors();
    let mut random = Random::new(options.seed);

    // The longest matrix of each row length; the others are parts of it.
    let mut longest: BTreeMap<usize, usize> = BTreeMap::new();
    for tensor in tensors.iter().filter(|tensor| tensor.n > 1) {
        let n = longest.entry(tensor.k).or_default();
        *n = tensor.n.max(*n);
    }
    let mut matrices: BTreeMap<usize, (usize, Vec<u8>)> = BTreeMap::new();
    for (k, n) in longest {
        matrices.insert(k, (n, rows::rows(&mut random, type_id, n, k)?));
    }

    let mut writer = GgufWriter::new();
    shape.describe(&mut writer)?;
    for (index, tensor) in tensors.iter().enumerate() {
        match matrices.get(&tensor.k).filter(|_| tensor.n > 1) {
            Some((n, bytes)) => {
                let row_bytes = bytes.len() / n;
                // A prime step, so that two layers rarely share a row at the same place.
                let first = (index * 61) % (n - tensor.n + 1);
                let part = &bytes[first * row_bytes..(first + tensor.n) * row_bytes];
                writer.tensor(&tensor.name, &[tensor.k, tensor.n], type_id, part)?;
            }
            None => {
                let (mean, deviation) = if tensor.name.ends_with("norm.weight") { (1.0, 0.1) } else { (0.0, 0.1) };
                let values = random.vector(mean, deviation, tensor.k);
                writer.tensor(&tensor.name, &[tensor.k], F32, values)?;
            }
        }
    }
    let path = options.output.display();
    let file = File::create(&options.output).map_err(|error| format!("creating {path}: {error}"))?;
    writer.write_to(BufWriter::with_capacity(1 << 20, file)).map_err(|error| format!("{path}: {error}"))?;
    Ok(())
}
