//! The tests: what is run, and how long each repetition took.

use std::time::{Duration, Instant};

use quantblock::Result;
use quantblock::executor::ThreadPool;
use quantblock::transformer::{Model, Session};

/// A test: a prompt (with `generated` 0) or decoding, behind `depth` tokens that are not timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    pub prompt: usize,
    pub generated: usize,
    pub depth: usize,
}

impl Test {
    /// All tests: at each depth the prompts, then the generations.
    pub fn all(prompts: &[usize], generations: &[usize], depths: &[usize]) -> Vec<Test> {
        let at = |depth| {
            let prompts = prompts.iter().map(move |&prompt| Test { prompt, generated: 0, depth });
            prompts.chain(generations.iter().map(move |&generated| Test { prompt: 0, generated, depth }))
        };
        depths.iter().flat_map(|&depth| at(depth)).filter(|test| test.timed_tokens() > 0).collect()
    }

    /// The name that llama-bench gives it.
    pub fn name(&self) -> String {
        let what = if self.prompt > 0 { format!("pp{}", self.prompt) } else { format!("tg{}", self.generated) };
        if self.depth > 0 { format!("{what} @ d{}", self.depth) } else { what }
    }

    /// Tokens that are timed.
    pub fn timed_tokens(&self) -> usize {
        self.prompt + self.generated
    }

    /// Positions that the test needs.
    pub fn context(&self) -> usize {
        self.depth + self.timed_tokens()
    }

    /// Runs the test once to warm up and then `repetitions` times; the times of these.
    pub fn run(&self, model: &Model, pool: &ThreadPool, repetitions: usize) -> Result<Vec<Duration>> {
        let mut session = Session::new(model)?;
        let mut tokens = Tokens { state: 1, vocab: model.config().vocab_size };
        let (depth, prompt) = (tokens.take(self.depth), tokens.take(self.prompt));
        if !depth.is_empty() {
            session.prefill(&depth, pool)?;
        }
        let mut once = |session: &mut Session<'_>, generated: usize| -> Result<Duration> {
            session.truncate(self.depth);
            let start = Instant::now();
            if !prompt.is_empty() {
                session.prefill(&prompt, pool)?;
            }
            for _ in 0..generated {
                session.decode(tokens.draw(), pool)?;
            }
            Ok(start.elapsed())
        };
        once(&mut session, self.generated.min(1))?;
        (0..repetitions).map(|_| once(&mut session, self.generated)).collect()
    }
}

/// Tokens at random, the same ones each time.
struct Tokens {
    state: u64,
    vocab: usize,
}

impl Tokens {
    fn draw(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) % self.vocab as u64) as u32
    }

    fn take(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.draw()).collect()
    }
}
