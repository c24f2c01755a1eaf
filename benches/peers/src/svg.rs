//! Plots of a record, as SVG: no more than bars and lines with their axes.

use crate::record::Row;
use std::{collections::BTreeSet, fmt::Write};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
/// Around the plot: left, top, right, bottom.
const MARGIN: [f64; 4] = [52.0, 46.0, 14.0, 34.0];

/// Colours that tell apart on white and on black, and without red against green (Okabe and Ito's).
const COLOURS: [(&str, &str); 7] = [
    ("packed", "#0072b2"),
    ("native", "#56b4e9"),
    ("candle", "#d55e00"),
    ("ggml", "#e69f00"),
    ("ggml-repack", "#cc79a7"),
    ("f32", "#009e73"),
    ("limit", "#888888"),
];

fn colour(name: &str) -> &'static str {
    COLOURS.iter().find(|(of, _)| *of == name).map_or("#888888", |(_, colour)| colour)
}

struct Canvas(String);

impl Canvas {
    fn new(title: &str) -> Canvas {
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"11\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
        );
        let mut canvas = Canvas(svg);
        canvas.text(WIDTH / 2.0, 16.0, "middle", title);
        canvas
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        let _ = write!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
        );
    }

    fn line(&mut self, points: &[(f64, f64)], stroke: &str, width: f64) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            self.0,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
    }

    /// A line across the plot with its value at the left.
    fn grid(&mut self, y: f64, label: &str) {
        self.line(&[(MARGIN[0], y), (WIDTH - MARGIN[2], y)], "#ddd", 1.0);
        self.text(MARGIN[0] - 5.0, y + 4.0, "end", label);
    }

    fn legend(&mut self, names: &[&str]) {
        let mut x = MARGIN[0];
        for name in names {
            self.bar(x, 25.0, 10.0, 10.0, colour(name));
            self.text(x + 14.0, 34.0, "start", name);
            x += 30.0 + 7.0 * name.len() as f64;
        }
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// A round number of about a fifth of `top`.
fn tick(top: f64) -> f64 {
    let raw = (top / 5.0).max(1e-9);
    let unit = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * unit).find(|&step| step >= raw).unwrap_or(raw)
}

/// The contestants that the rows have, the limit aside, in the order of their colours.
fn contestants(rows: &[&Row]) -> Vec<&'static str> {
    let has = |name: &str| rows.iter().any(|row| row.contestant == name);
    COLOURS.iter().map(|(name, _)| *name).filter(|name| has(name)).collect()
}

/// Bars of `rate` for each format, one for each contestant, and the limit of each format as a line over its bars.
pub fn bars(title: &str, rows: &[&Row], rate: fn(&Row) -> f64, limit: &str) -> String {
    let mut formats: Vec<&str> = Vec::new();
    for row in rows {
        if !formats.contains(&row.format.as_str()) {
            formats.push(&row.format);
        }
    }
    let mut names = contestants(rows);
    let top = rows.iter().map(|row| rate(row)).fold(0.0, f64::max) * 1.05;
    let [left, above, right, below] = MARGIN;
    let (width, height) = (WIDTH - left - right, HEIGHT - above - below);
    let y = |value: f64| above + height * (1.0 - value / top);
    let mut canvas = Canvas::new(title);
    let step = tick(top);
    let mut value = 0.0;
    while value <= top {
        canvas.grid(y(value), &format!("{value}"));
        value += step;
    }
    let slot = width / formats.len().max(1) as f64;
    let bar = slot * 0.84 / names.len().max(1) as f64;
    for (i, format) in formats.iter().enumerate() {
        let start = left + slot * (i as f64 + 0.08);
        let find = |name: &str| rows.iter().find(|row| row.format == *format && row.contestant == name);
        for (j, name) in names.iter().enumerate() {
            if let Some(row) = find(name) {
                let value = rate(row);
                canvas.bar(start + bar * j as f64, y(value), bar * 0.92, height * value / top, colour(name));
            }
        }
        if let Some(row) = find(limit) {
            let at = y(rate(row));
            canvas.line(&[(start, at), (start + slot * 0.84, at)], colour("limit"), 1.5);
        }
        canvas.text(start + slot * 0.42, HEIGHT - 14.0, "middle", format);
    }
    names.push("limit");
    canvas.legend(&names);
    canvas.finish()
}

/// Time over m, both in powers of two, one line for each contestant; times are relative to packed at m = 1.
pub fn over_m(title: &str, rows: &[&Row]) -> Option<String> {
    let unit = rows.iter().find(|row| row.m == 1 && row.contestant == "packed")?.seconds;
    let ms: BTreeSet<usize> = rows.iter().map(|row| row.m).collect();
    let names = contestants(rows);
    let shown = || rows.iter().filter(|row| names.contains(&row.contestant.as_str()));
    let relative = |row: &Row| (row.seconds / unit).log2();
    let low = shown().map(|row| relative(row)).fold(0.0, f64::min).floor();
    let high = shown().map(|row| relative(row)).fold(1.0, f64::max).ceil();
    let [left, above, right, below] = MARGIN;
    let (width, height) = (WIDTH - left - right, HEIGHT - above - below);
    let widest = (*ms.last()? as f64).log2().max(1.0);
    let x = |m: usize| left + width * (m as f64).log2() / widest;
    let y = |value: f64| above + height * (high - value) / (high - low);
    let mut canvas = Canvas::new(title);
    let mut value = low;
    while value <= high {
        canvas.grid(y(value), &format!("{}×", value.exp2()));
        value += 1.0;
    }
    for &m in &ms {
        canvas.text(x(m), HEIGHT - 14.0, "middle", &m.to_string());
    }
    for name in &names {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for &m in &ms {
            if let Some(row) = rows.iter().find(|row| row.m == m && row.contestant == *name) {
                points.push((x(m), y(relative(row))));
            }
        }
        canvas.line(&points, colour(name), 2.0);
    }
    canvas.legend(&names);
    Some(canvas.finish())
}
