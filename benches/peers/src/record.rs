//! The table on standard output and the record in a file.

use crate::{
    contest::{Outcome, median},
    matmul::{Cell, SMALL_BATCH},
};
use std::{
    fs::{File, OpenOptions},
    io::{Result, Write},
    path::Path,
    process::Command,
};

const COLUMNS: &str = "date,commit,cpu,format,m,n,k,threads,contestant,kernel,seconds,seconds_min,seconds_max,gb_per_s,\
gmac_per_s,speed_over_candle,speed_over_f32,speed_over_ggml,share_of_limit";

/// A line of a record, as far as plots need it.
pub struct Row {
    pub cpu: String,
    pub format: String,
    pub m: usize,
    pub threads: usize,
    pub contestant: String,
    pub seconds: f64,
    pub gb_per_s: f64,
    pub gmac_per_s: f64,
    /// Of the weights that packed reads.
    packed_bytes: f64,
}

impl Row {
    /// Bytes of quantized weights per second, whatever form the contestant has them in; for the read loop its own bytes.
    pub fn weight_gb_per_s(&self) -> f64 {
        if self.contestant == "f32" { self.packed_bytes / self.seconds / 1e9 } else { self.gb_per_s }
    }
}

/// The lines of a record.
pub fn read(path: &Path) -> std::result::Result<Vec<Row>, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(path)?;
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |name: &str| {
            let at = COLUMNS.split(',').position(|column| column == name);
            at.and_then(|at| fields.get(at)).copied().ok_or_else(|| format!("no {name} in `{line}`"))
        };
        rows.push(Row {
            cpu: field("cpu")?.into(),
            format: field("format")?.into(),
            m: field("m")?.parse()?,
            threads: field("threads")?.parse()?,
            contestant: field("contestant")?.into(),
            seconds: field("seconds")?.parse()?,
            gb_per_s: field("gb_per_s")?.parse()?,
            gmac_per_s: field("gmac_per_s")?.parse()?,
            packed_bytes: 0.0,
        });
    }
    let packed: Vec<_> = (rows.iter().filter(|row| row.contestant == "packed"))
        .map(|row| ((row.format.clone(), row.m, row.threads), row.gb_per_s * row.seconds * 1e9))
        .collect();
    for row in &mut rows {
        let cell = (row.format.clone(), row.m, row.threads);
        row.packed_bytes = packed.iter().find(|(of, _)| *of == cell).map_or(0.0, |(_, bytes)| *bytes);
    }
    if rows.is_empty() {
        return Err(format!("{} has no results", path.display()).into());
    }
    Ok(rows)
}

/// Where results go.
pub struct Record {
    csv: Option<File>,
    stamp: String,
}

impl Record {
    /// Starts the table and the file.
    pub fn create(path: Option<&Path>) -> Result<()> {
        if let Some(path) = path {
            writeln!(File::create(path)?, "{COLUMNS}")?;
        }
        println!("{}, {}, {}\n", cpu(), date(), commit());
        println!(
            "m up to {SMALL_BATCH} in GB/s of weights (f32: of f32 weights), larger m in GMAC/s; the limit is memory resp. the dot \
             instruction.\n"
        );
        println!(
            "| format | m | threads | native | packed | candle | ggml | ggml-repack | f32 | limit | native / limit | packed / limit | \
             native / candle | packed / candle | native / ggml | packed / ggml | packed / f32 |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        Ok(())
    }

    /// Goes on with the file.
    pub fn append(path: Option<&Path>) -> Result<Self> {
        let csv = path.map(|path| OpenOptions::new().append(true).open(path)).transpose()?;
        Ok(Record { csv, stamp: format!("{},{},{}", date(), commit(), cpu()) })
    }

    /// Writes the outcomes of a cell.
    pub fn write(&mut self, cell: Cell, outcomes: &[Outcome]) -> Result<()> {
        let Cell { format, m, n, k, threads, .. } = cell;
        let named = |name: &str| outcomes.iter().find(|outcome| outcome.name == name);
        let small = m <= SMALL_BATCH;
        let rate = |outcome: &Outcome| if small { outcome.gb_per_s() } else { outcome.gmac_per_s() };
        let figure = |name| named(name).map_or("–".into(), |outcome| format!("{:.1}", rate(outcome)));
        // ggml has two layouts for some formats: the faster one counts.
        let ggml = ["ggml", "ggml-repack"].into_iter().filter_map(named).max_by(|a, b| a.speed_over(b).total_cmp(&1.0));
        let other = |name: &str| if name == "ggml" { ggml } else { named(name) };
        let ratio = |a, b| match (named(a), other(b)) {
            (Some(a), Some(b)) => format!("{:.2}×", a.speed_over(b)),
            _ => "–".into(),
        };
        let limit = named(if small { "read" } else { "dot" });
        let share_of = |outcome: &Outcome| {
            let work = |outcome: &Outcome| if small { outcome.bytes } else { outcome.macs } as f64;
            limit.map(|limit| outcome.speed_over(limit) * work(outcome) / work(limit))
        };
        let share =
            |name| named(name).and_then(share_of).map_or("–".into(), |share| format!("{:.0}%", 100.0 * share));
        println!(
            "| {format} | {m} | {threads} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            figure("native"),
            figure("packed"),
            figure("candle"),
            figure("ggml"),
            figure("ggml-repack"),
            figure("f32"),
            limit.map_or("–".into(), |limit| format!("{:.1}", rate(limit))),
            share("native"),
            share("packed"),
            ratio("native", "candle"),
            ratio("packed", "candle"),
            ratio("native", "ggml"),
            ratio("packed", "ggml"),
            ratio("packed", "f32"),
        );

        let Some(csv) = &mut self.csv else { return Ok(()) };
        for outcome in outcomes {
            let seconds = || outcome.seconds.iter().copied();
            let over = |name| match (other(name), outcome.name) {
                (None, _) | (_, "read" | "dot") => String::new(),
                (Some(other), _) => format!("{:.4}", outcome.speed_over(other)),
            };
            writeln!(
                csv,
                "{},{format},{m},{n},{k},{threads},{},{},{:.9},{:.9},{:.9},{:.3},{:.3},{},{},{},{}",
                self.stamp,
                outcome.name,
                outcome.kernel,
                median(seconds()),
                seconds().fold(f64::INFINITY, f64::min),
                seconds().fold(0.0, f64::max),
                outcome.gb_per_s(),
                outcome.gmac_per_s(),
                over("candle"),
                over("f32"),
                over("ggml"),
                share_of(outcome)
                    .filter(|_| outcome.name != "f32")
                    .map_or(String::new(), |share| format!("{share:.4}")),
            )?;
        }
        csv.flush()
    }
}

/// The processor's name and its family, model and stepping, which tell machines of one name apart.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split(':').nth(1)).map_or("?".into(), |value| value.trim().replace(',', " "))
    };
    format!("{} ({}/{}/{})", field("model name"), field("cpu family"), field("model"), field("stepping"))
}

fn date() -> String {
    output("date", &["-u", "+%Y-%m-%d"])
}

fn commit() -> String {
    output("git", &["describe", "--always", "--dirty"])
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    output.map_or("?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
