//! quantblock's matmuls against candle's, ggml's, against f32 and against what the machine can do, in one process.
//!
//! See `benches/README.md` for what is measured and how.

mod contest;
mod float;
#[cfg(feature = "ggml")]
mod ggml;
mod matmul;
mod plots;
mod probe;
mod record;
mod svg;

use clap::Parser;
use quantblock::Level;
use std::{path::PathBuf, process::Command, time::Duration};

/// Compare quantblock's matmuls with candle's, ggml's and with f32.
#[derive(Parser)]
struct Args {
    /// Formats to measure, as GGUF spells them; all, if not given.
    #[arg(long, value_delimiter = ',')]
    formats: Vec<String>,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Rows of activations.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 512])]
    m: Vec<usize>,
    /// Input features.
    #[arg(long, default_value_t = 4096)]
    k: usize,
    /// MiB of weights for m up to 16; 256 or twice the last-level cache, if not given.
    #[arg(long)]
    weights_mib: Option<usize>,
    /// Output features for larger m.
    #[arg(long, default_value_t = 4096)]
    n: usize,
    /// The weights of m = 1 for every m: time over m.
    #[arg(long)]
    same_n: bool,
    /// Rounds; in each, every contestant has one slice.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of a slice; a slice has at least one call.
    #[arg(long, default_value_t = 250)]
    slice_ms: u64,
    /// Peers to leave out: candle, ggml, ggml-repack. candle and ggml each choose the shapes of a thread's AMX tiles once, and
    /// cannot both run in one process that uses them.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Instruction set level of quantblock, as `scalar` or `avx2`, and of the dots beside it; the best of this CPU, if not given.
    #[arg(long)]
    isa: Option<Level>,
    /// Small and short, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Where the record goes.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// A folder for plots of the record that --csv names, made if it is not there.
    #[arg(long, requires = "csv")]
    plots: Option<PathBuf>,
    /// Draws the plots of a record that is there, and measures nothing.
    #[arg(long, requires = "plots")]
    plot_only: bool,
}

/// Tells a process which number of threads it is to measure.
const CHILD: &str = "QUANTBLOCK_PEERS_THREADS";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = Args::parse();
    if args.quick {
        (args.weights_mib, args.n, args.rounds, args.slice_ms) = (Some(48), 512, 3, 50);
    }
    match std::env::var(CHILD) {
        Ok(threads) => measure(&args, threads.parse()?),
        Err(_) => supervise(&args),
    }
}

/// Measures each number of threads in a process of its own: candle's pool has the size it gets from the environment.
fn supervise(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if !args.plot_only {
        record::Record::create(args.csv.as_deref())?;
    }
    let threads = if args.plot_only { &[] } else { &args.threads[..] };
    for threads in threads {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(std::env::args_os().skip(1));
        for variable in [CHILD, "CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
            child.env(variable, threads.to_string());
        }
        let status = child.status()?;
        if !status.success() {
            return Err(format!("measuring {threads} threads failed: {status}").into());
        }
    }
    match (&args.csv, &args.plots) {
        (Some(csv), Some(folder)) => {
            std::fs::create_dir_all(folder)?;
            plots::draw(csv, folder)
        }
        _ => Ok(()),
    }
}

fn measure(args: &Args, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut record = record::Record::append(args.csv.as_deref())?;
    let level = args.isa.map_or(Ok(Level::best()), Level::checked)?;
    let machine = probe::Machine::new(threads, level);
    let weight_bytes = args.weights_mib.map_or_else(probe::bytes_beyond_caches, |mib| mib << 20);
    for &(type_id, format) in quantblock::weight::FORMATS {
        if !args.formats.is_empty() && !args.formats.iter().any(|name| name == format) {
            continue;
        }
        for &m in &args.m {
            let n = if m <= matmul::SMALL_BATCH || args.same_n {
                matmul::rows_of(type_id, args.k, weight_bytes)?
            } else {
                args.n
            };
            let slice = Duration::from_millis(args.slice_ms);
            let cell = matmul::Cell { type_id, format, m, n, k: args.k, threads };
            record.write(cell, &matmul::measure(cell, &machine, args.rounds, slice, &args.without)?)?;
        }
    }
    Ok(())
}
