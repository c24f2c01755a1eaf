//! Choosing the next token from logits.
//!
//! The order is llama.cpp's: repeat penalty, top-k, top-p, min-p, temperature, then a draw. Everything is plain f32
//! arithmetic and an own generator, so a seed gives the same tokens on every machine.

use super::math;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// How to choose.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SamplingOptions {
    /// What logits are divided by before the draw; 0 (or less, or NaN): always the likeliest token.
    pub temperature: f32,
    /// How many of the likeliest tokens may be drawn; 0: all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities add up to this may be drawn; 1: all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the likeliest may be drawn; 0: all.
    pub min_p: f32,
    /// What the logits of recent tokens are divided by (multiplied by, where negative); 1: nothing.
    pub repeat_penalty: f32,
    /// How many tokens count as recent.
    pub repeat_last: usize,
    /// Of the random generator.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        SamplingOptions {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last: 64,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        SamplingOptions { temperature: 0.0, ..Self::default() }
    }
}

/// Draws tokens; its buffer is kept between draws.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    random: SplitMix64,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    token: u32,
}

/// The likelier first; of equals the smaller id, so that the order is one. NaN comes last.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    let order = match (a.logit.is_nan(), b.logit.is_nan()) {
        (false, false) => b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    };
    order.then(a.token.cmp(&b.token))
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    pub fn new(options: SamplingOptions) -> Sampler {
        let random = SplitMix64(options.seed);
        Sampler { options, random, candidates: Vec::new() }
    }

    /// The options.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The next token, given the logits `[vocab]` and the tokens before it; `None` only for an empty vocabulary.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Option<u32> {
        let SamplingOptions { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last, .. } = self.options;
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().zip(0..).map(|(&logit, token)| Candidate { logit, token }));
        if repeat_penalty != 1.0 {
            let recent = &history[history.len().saturating_sub(repeat_last)..];
            for (i, &token) in recent.iter().enumerate() {
                // Once for each token, however often it occurs.
                if let Some(candidate) = candidates.get_mut(token as usize)
                    && !recent[..i].contains(&token)
                {
                    let logit = candidate.logit;
                    candidate.logit = if logit > 0.0 { logit / repeat_penalty } else { logit * repeat_penalty };
                }
            }
        }
        let likeliest = *candidates.iter().min_by(|a, b| likelier(a, b))?;
        if temperature.is_nan() || temperature <= 0.0 || !likeliest.logit.is_finite() {
            return Some(likeliest.token);
        }
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, likelier);
            candidates.truncate(top_k);
        }
        candidates.retain(|candidate| !candidate.logit.is_nan());
        candidates.sort_unstable_by(likelier);
        let peak = likeliest.logit;
        if top_p < 1.0 {
            let total: f32 = candidates.iter().map(|c| math::exp(c.logit - peak)).sum();
            let mut sum = 0.0;
            let kept = candidates.iter().position(|c| {
                sum += math::exp(c.logit - peak);
                sum >= top_p * total
            });
            candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
        }
        if min_p > 0.0 {
            let kept = candidates.iter().take_while(|c| math::exp(c.logit - peak) >= min_p).count();
            candidates.truncate(kept.max(1));
        }
        let weight = |c: &Candidate| math::exp((c.logit - peak) / temperature);
        let total: f32 = candidates.iter().map(weight).sum();
        let draw = self.random.unit() * total;
        let mut sum = 0.0;
        let drawn = candidates.iter().find(|c| {
            sum += weight(c);
            draw < sum
        });
        Some(drawn.unwrap_or(&likeliest).token)
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> SamplingOptions {
        SamplingOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplingOptions::default() }
    }

    fn seen(options: SamplingOptions, logits: &[f32], history: &[u32]) -> Vec<usize> {
        let mut sampler = Sampler::new(options);
        let mut count = vec![0; logits.len()];
        for _ in 0..4000 {
            count[sampler.sample(logits, history).unwrap() as usize] += 1;
        }
        count
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest_and_never_nan() {
        let mut sampler = Sampler::new(SamplingOptions::greedy());
        assert_eq!(sampler.sample(&[1.0, f32::NAN, 3.0, 3.0], &[]), Some(2));
        assert_eq!(sampler.sample(&[f32::NAN, f32::NAN], &[]), Some(0));
        assert_eq!(sampler.sample(&[], &[]), None);
        assert_eq!(Sampler::new(open()).sample(&[f32::NAN, f32::NAN], &[]), Some(0));
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let logits = [0.0, 2f32.ln(), f32::NAN, 5f32.ln()];
        let count = seen(open(), &logits, &[]);
        assert_eq!(count, seen(open(), &logits, &[]));
        assert_ne!(count, seen(SamplingOptions { seed: 1, ..open() }, &logits, &[]));
        for (count, share) in count.iter().zip([1.0, 2.0, 0.0, 5.0]) {
            assert!((*count as f32 / 4000.0 - share / 8.0f32).abs() < 0.03, "{count} {share}");
        }
    }

    #[test]
    fn filters_cut_where_they_say() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits = [8f32.ln(), 4f32.ln(), 2f32.ln(), 2f32.ln()];
        let drawn = |options| seen(options, &logits, &[]).iter().map(|&count| count > 0).collect::<Vec<_>>();
        assert_eq!(drawn(open()), [true; 4]);
        assert_eq!(drawn(SamplingOptions { top_k: 3, ..open() }), [true, true, true, false]);
        assert_eq!(drawn(SamplingOptions { top_p: 0.6, ..open() }), [true, true, false, false]);
        assert_eq!(drawn(SamplingOptions { top_p: 0.0, ..open() }), [true, false, false, false]);
        assert_eq!(drawn(SamplingOptions { min_p: 0.4, ..open() }), [true, true, false, false]);
        assert_eq!(drawn(SamplingOptions { min_p: 2.0, ..open() }), [true, false, false, false]);
        assert_eq!(drawn(SamplingOptions { temperature: 0.01, ..open() }), [true, false, false, false]);
    }

    #[test]
    fn repeats_are_penalized_once_and_only_recent_ones() {
        let options = SamplingOptions { repeat_penalty: 2.0, repeat_last: 2, ..SamplingOptions::greedy() };
        let mut sampler = Sampler::new(options);
        assert_eq!(sampler.sample(&[4.0, 3.0, -1.0], &[0, 0]), Some(1));
        assert_eq!(sampler.sample(&[4.0, 1.9, -1.0], &[0, 0]), Some(0));
        assert_eq!(sampler.sample(&[4.0, 3.0, -1.0], &[0, 1, 1]), Some(0));
        assert_eq!(sampler.sample(&[-1.0, -1.5], &[0, 9]), Some(1));
    }
}
