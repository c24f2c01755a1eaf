//! The table on standard output and the record in a file.

use crate::{
    contest::{Outcome, median},
    matmul::Cell,
};
use std::{
    fs::{File, OpenOptions},
    io::{Result, Write},
    path::Path,
    process::Command,
};

const COLUMNS: &str = "date,commit,cpu,format,m,n,k,threads,contestant,kernel,seconds,seconds_min,seconds_max,gb_per_s,\
gmac_per_s,speed_over_candle,speed_over_f32";

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
            "m = 1 in GB/s of weights (f32: of f32 weights), larger m in GMAC/s; the ceiling is memory resp. the dot instruction.\n"
        );
        println!(
            "| format | m | threads | native | packed | candle | f32 | ceiling | native / candle | packed / candle | packed / f32 | packed / ceiling |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
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
        let rate = |outcome: &Outcome| if m == 1 { outcome.gb_per_s() } else { outcome.gmac_per_s() };
        let figure = |name| named(name).map_or("–".into(), |outcome| format!("{:.1}", rate(outcome)));
        let ratio = |a, b| match (named(a), named(b)) {
            (Some(a), Some(b)) => format!("{:.2}×", a.speed_over(b)),
            _ => "–".into(),
        };
        let ceiling = if m == 1 { "read" } else { "dot" };
        let share = match (named("packed"), named(ceiling)) {
            (Some(packed), Some(ceiling)) => {
                let work = |outcome: &Outcome| if m == 1 { outcome.bytes } else { outcome.macs } as f64;
                let share = packed.speed_over(ceiling) * work(packed) / work(ceiling);
                format!("{:.0}%", 100.0 * share)
            }
            _ => "–".into(),
        };
        println!(
            "| {format} | {m} | {threads} | {} | {} | {} | {} | {} | {} | {} | {} | {share} |",
            figure("native"),
            figure("packed"),
            figure("candle"),
            figure("f32"),
            figure(ceiling),
            ratio("native", "candle"),
            ratio("packed", "candle"),
            ratio("packed", "f32"),
        );

        let Some(csv) = &mut self.csv else { return Ok(()) };
        for outcome in outcomes {
            let seconds = || outcome.seconds.iter().copied();
            let over = |name| match (named(name), outcome.name) {
                (None, _) | (_, "read" | "dot") => String::new(),
                (Some(other), _) => format!("{:.4}", outcome.speed_over(other)),
            };
            writeln!(
                csv,
                "{},{format},{m},{n},{k},{threads},{},{},{:.9},{:.9},{:.9},{:.3},{:.3},{},{}",
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
