//! Contestants that take turns in short slices.

use std::time::{Duration, Instant};

/// One thing to be measured.
pub struct Contestant<'a> {
    pub name: &'static str,
    /// What runs, where the contestant tells.
    pub kernel: String,
    /// Bytes that one call reads.
    pub bytes: usize,
    /// Multiply-adds of one call.
    pub macs: usize,
    pub call: Box<dyn FnMut() + 'a>,
    /// Called behind each slice, so that no thread of this contestant waits in a loop while others run.
    pub rest: Option<Box<dyn Fn() + 'a>>,
}

/// A contestant's figures.
pub struct Outcome {
    pub name: &'static str,
    pub kernel: String,
    pub bytes: usize,
    pub macs: usize,
    /// Seconds per call, one figure for each round.
    pub seconds: Vec<f64>,
}

impl Outcome {
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / median(self.seconds.iter().copied()) / 1e9
    }

    pub fn gmac_per_s(&self) -> f64 {
        self.macs as f64 / median(self.seconds.iter().copied()) / 1e9
    }

    /// How many times as fast as `other` this is: the median of the rounds' ratios.
    pub fn speed_over(&self, other: &Outcome) -> f64 {
        median(self.seconds.iter().zip(&other.seconds).map(|(own, other)| other / own))
    }
}

/// Lets every contestant run for `slice` in each of `rounds`; each round starts with another one.
pub fn hold(mut contestants: Vec<Contestant<'_>>, rounds: usize, slice: Duration) -> Vec<Outcome> {
    let count = contestants.len();
    let mut seconds = vec![Vec::with_capacity(rounds); count];
    for contestant in &mut contestants {
        (contestant.call)();
        if let Some(rest) = &contestant.rest {
            rest();
        }
    }
    for round in 0..rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            let (mut calls, start) = (0u32, Instant::now());
            let elapsed = loop {
                (contestants[index].call)();
                calls += 1;
                let elapsed = start.elapsed();
                if elapsed >= slice {
                    break elapsed;
                }
            };
            if let Some(rest) = &contestants[index].rest {
                rest();
            }
            seconds[index].push(elapsed.as_secs_f64() / f64::from(calls));
        }
    }
    let outcome = |(contestant, seconds): (Contestant<'_>, _)| {
        let Contestant { name, kernel, bytes, macs, .. } = contestant;
        Outcome { name, kernel, bytes, macs, seconds }
    };
    contestants.into_iter().zip(seconds).map(outcome).collect()
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}
