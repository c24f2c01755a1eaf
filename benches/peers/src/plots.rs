//! Which plots a record gets.

use crate::{
    matmul::SMALL_BATCH,
    record::{self, Row},
    svg,
};
use std::{collections::BTreeSet, path::Path};

/// Draws what a record has: bars for each m and number of threads, and a format's time over m where there are many m.
pub fn draw(csv: &Path, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let rows = record::read(csv)?;
    let name = csv.file_stem().unwrap_or_default().to_string_lossy();
    let write = |what: String, svg: String| std::fs::write(folder.join(format!("{name}-{what}.svg")), svg);
    let ms: BTreeSet<usize> = rows.iter().map(|row| row.m).collect();
    let all_threads: BTreeSet<usize> = rows.iter().map(|row| row.threads).collect();
    for &threads in &all_threads {
        let of_threads: Vec<&Row> = rows.iter().filter(|row| row.threads == threads).collect();
        let plural = if threads == 1 { "" } else { "s" };
        let cpu = &rows[0].cpu;
        if ms.len() > 4 {
            let formats: BTreeSet<&str> = of_threads.iter().map(|row| &row.format[..]).collect();
            for format in formats {
                let rows: Vec<&Row> = of_threads.iter().copied().filter(|row| row.format == format).collect();
                let title =
                    format!("{format}: time over m, relative to packed at m = 1; {threads} thread{plural}, {cpu}");
                if let Some(svg) = svg::over_m(&title, &rows) {
                    write(format!("{format}-{threads}"), svg)?;
                }
            }
            continue;
        }
        for &m in &ms {
            let rows: Vec<&Row> = of_threads.iter().copied().filter(|row| row.m == m).collect();
            let small = m <= SMALL_BATCH;
            let unit = if small { "GB/s of weights" } else { "GMAC/s" };
            let title = format!("m = {m}: {unit}; {threads} thread{plural}, {cpu}");
            let svg = if small {
                // f32 reads several times as many bytes for the same work: it is shown by its speed.
                svg::bars(&title, &rows, |row| row.weight_gb_per_s(), "read")
            } else {
                svg::bars(&title, &rows, |row| row.gmac_per_s, "dot")
            };
            write(format!("m{m}-{threads}"), svg)?;
        }
    }
    Ok(())
}
