//! Measures tokens a second of whole models, as llama-bench does.
//!
//! ```sh
//! cargo run --release --example bench -- -m model.gguf                    # pp512 and tg64
//! cargo run --release --example bench -- -m model.gguf -t 1,2 -o csv      # one thread and two
//! cargo run --release --example bench -- -m model.gguf -p 0 -n 64 -d 512  # decode behind 512 tokens
//! ```
//!
//! Every test runs once to warm up and then five times (`-r`); the table gives mean and standard deviation of the
//! repetitions. Tokens are random: no tokenizer is needed, and nothing is sampled.

mod measure;
mod options;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use quantblock::bytes::SharedBytes;
use quantblock::executor::ThreadPool;
use quantblock::gguf::{Gguf, Mmap};
use quantblock::transformer::{LoadOptions, Model};
use quantblock::{Executor, Storage};

use measure::Test;
use options::Options;
use report::{ModelInfo, Printer, Row};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (level, storage, cache_type) = (options.level()?, options.storage(), options.cache_type()?);
    let backend = format!("{} {}", level.name(), if storage == Storage::Packed { "packed" } else { "native" });
    let tests = Test::all(&options.n_prompt, &options.n_gen, &options.n_depth);
    let context = tests.iter().map(Test::context).max().ok_or("nothing to measure: give -p or -n a number above 0")?;
    let pools: Vec<ThreadPool> = options.threads().into_iter().map(ThreadPool::new).collect();

    let mut printer = None;
    for path in &options.model {
        let of_file = |error: quantblock::Error| format!("{}: {error}", path.display());
        let file: SharedBytes = Arc::new(Mmap::open(path)?);
        let info = {
            let gguf = Gguf::parse((*file).as_ref()).map_err(of_file)?;
            ModelInfo::new(path, &gguf).map_err(of_file)?
        };
        let mut load = LoadOptions::default().level(level).storage(storage).context(context);
        load.cache_type = cache_type;
        let loaders = ThreadPool::default();
        let model = Model::load_from_gguf_with(file, load, &loaders).map_err(of_file)?;
        // Nothing is printed before the first model is known to load.
        let printer = match &mut printer {
            Some(printer) => printer,
            none => none.insert(Printer::new(options.output)?),
        };
        for pool in &pools {
            for test in &tests {
                let times = test.run(&model, pool, options.repetitions.get()).map_err(of_file)?;
                printer.row(&Row::new(&info, &backend, pool.threads(), *test, &times))?;
            }
        }
    }
    if let Some(printer) = printer {
        printer.finish()?;
    }
    Ok(())
}
