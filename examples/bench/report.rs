//! The results as a Markdown table, comma-separated values or JSON; the fields of the latter two are llama-bench's.

use std::collections::BTreeMap;
use std::io::{self, Stdout, Write};
use std::path::Path;
use std::time::Duration;

use quantblock::Result;
use quantblock::gguf::Gguf;
use serde::Serialize;

use crate::measure::Test;
use crate::options::Format;

/// What a file holds.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    pub file: String,
    /// Architecture, size class and the format that most of its layers' bytes have.
    pub kind: String,
    pub bytes: usize,
    pub parameters: usize,
}

impl ModelInfo {
    pub fn new(path: &Path, gguf: &Gguf) -> Result<Self> {
        let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut bytes, mut parameters) = (0, 0);
        for tensor in gguf.tensors() {
            if tensor.name.starts_with("blk.") {
                *formats.entry(tensor.type_name()).or_default() += tensor.range.len();
            }
            bytes += tensor.range.len();
            parameters += tensor.dims.iter().product::<usize>();
        }
        let format = formats.into_iter().max_by_key(|&(_, bytes)| bytes).map_or("", |(name, _)| name);
        let kind = format!("{} {} {format}", gguf.str("general.architecture")?, short(parameters));
        Ok(ModelInfo { file: path.display().to_string(), kind, bytes, parameters })
    }
}

/// A count with its thousands as letters: `135M`, `1.5B`.
fn short(count: usize) -> String {
    let count = count as f64;
    if count < 1e9 { format!("{:.0}M", count / 1e6) } else { format!("{:.1}B", count / 1e9) }
}

/// Mean and sample standard deviation.
fn statistics(samples: &[f64]) -> (f64, f64) {
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    let square: f64 = samples.iter().map(|sample| (sample - mean) * (sample - mean)).sum();
    (mean, if samples.len() > 1 { (square / (samples.len() - 1) as f64).sqrt() } else { 0.0 })
}

/// A test's result.
#[derive(Debug, Serialize)]
pub struct Row {
    model_filename: String,
    model_type: String,
    model_size: usize,
    model_n_params: usize,
    backends: String,
    n_threads: usize,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    avg_ns: f64,
    stddev_ns: f64,
    /// Tokens a second.
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<f64>,
    samples_ts: Vec<f64>,
    #[serde(skip)]
    test: String,
}

impl Row {
    pub fn new(model: &ModelInfo, backend: &str, threads: usize, test: Test, times: &[Duration]) -> Self {
        let samples_ns: Vec<f64> = times.iter().map(|time| time.as_nanos() as f64).collect();
        let tokens = test.timed_tokens() as f64;
        let samples_ts: Vec<f64> = times.iter().map(|time| tokens / time.as_secs_f64()).collect();
        let ((avg_ns, stddev_ns), (avg_ts, stddev_ts)) = (statistics(&samples_ns), statistics(&samples_ts));
        Row {
            model_filename: model.file.clone(),
            model_type: model.kind.clone(),
            model_size: model.bytes,
            model_n_params: model.parameters,
            backends: backend.to_string(),
            n_threads: threads,
            n_prompt: test.prompt,
            n_gen: test.generated,
            n_depth: test.depth,
            avg_ns,
            stddev_ns,
            avg_ts,
            stddev_ts,
            samples_ns,
            samples_ts,
            test: test.name(),
        }
    }

    fn markdown(&self) -> String {
        let (size, parameters) = (self.model_size as f64 / (1 << 20) as f64, self.model_n_params as f64 / 1e6);
        format!(
            "| {:<24} | {size:>7.2} MiB | {parameters:>8.2} M | {:<17} | {:>7} | {:>14} | {:>17} |",
            self.model_type,
            self.backends,
            self.n_threads,
            self.test,
            format!("{:.2} ± {:.2}", self.avg_ts, self.stddev_ts),
        )
    }

    fn csv(&self) -> String {
        let fields = [
            self.model_filename.replace('"', "\"\""),
            self.model_type.clone(),
            self.model_size.to_string(),
            self.model_n_params.to_string(),
            self.backends.clone(),
            self.n_threads.to_string(),
            self.n_prompt.to_string(),
            self.n_gen.to_string(),
            self.n_depth.to_string(),
            format!("{:.0}", self.avg_ns),
            format!("{:.0}", self.stddev_ns),
            format!("{:.6}", self.avg_ts),
            format!("{:.6}", self.stddev_ts),
        ];
        fields.map(|field| format!("\"{field}\"")).join(",")
    }
}

const MARKDOWN_HEAD: &str = "\
| model                    |        size |     params | backend           | threads |           test |               t/s |
| ------------------------ | ----------: | ---------: | ----------------- | ------: | -------------: | ----------------: |";
const CSV_HEAD: &str = "model_filename,model_type,model_size,model_n_params,backends,n_threads,n_prompt,n_gen,n_depth,\
                        avg_ns,stddev_ns,avg_ts,stddev_ts";

/// Prints rows as they come.
pub struct Printer {
    format: Format,
    rows: usize,
    out: Stdout,
}

impl Printer {
    /// Prints what stands above all rows.
    pub fn new(format: Format) -> io::Result<Self> {
        let mut out = io::stdout();
        let head = match format {
            Format::Md => MARKDOWN_HEAD,
            Format::Csv => CSV_HEAD,
            Format::Json => "[",
        };
        writeln!(out, "{head}")?;
        Ok(Printer { format, rows: 0, out })
    }

    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        match self.format {
            Format::Md => writeln!(self.out, "{}", row.markdown())?,
            Format::Csv => writeln!(self.out, "{}", row.csv())?,
            Format::Json => {
                let comma = if self.rows > 0 { ",\n" } else { "" };
                write!(self.out, "{comma}{}", serde_json::to_string_pretty(row)?)?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        if self.format == Format::Json {
            writeln!(self.out, "\n]")?;
        }
        Ok(())
    }
}
