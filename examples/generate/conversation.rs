//! Generating text: one answer, one completion, or turn after turn with the KV cache kept.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use quantblock::executor::ThreadPool;
use quantblock::transformer::chat::{ChatTemplate, Message};
use quantblock::transformer::tokenizer::TextStream;
use quantblock::transformer::{Sampler, Session, Tokenizer};

use crate::report::Timings;

/// A model that talks.
pub struct Conversation<'m> {
    pub session: Session<'m>,
    pub sampler: Sampler,
    pub tokenizer: &'m Tokenizer,
    pub pool: &'m ThreadPool,
    /// The tokens in the KV cache.
    pub tokens: Vec<u32>,
    /// Tokens of an answer at most.
    pub limit: usize,
    pub show_prompt: bool,
    pub timings: Timings,
}

impl Conversation<'_> {
    /// Answers one question.
    pub fn answer(
        &mut self,
        template: &ChatTemplate,
        system: Option<&str>,
        question: &str,
    ) -> Result<(), Box<dyn Error>> {
        let mut messages: Vec<Message> = system.map(|text| Message::new("system", text)).into_iter().collect();
        messages.push(Message::new("user", question));
        let prompt = self.tokenizer.encode_chat(&template.render(&messages, true)?)?;
        self.generate(prompt)?;
        Ok(())
    }

    /// Continues a text.
    pub fn complete(&mut self, text: &str) -> Result<(), Box<dyn Error>> {
        let prompt = self.tokenizer.encode_whole(text, true)?;
        write!(std::io::stdout(), "{text}")?;
        self.generate(prompt)?;
        Ok(())
    }

    /// Talks until standard input ends.
    pub fn chat(
        &mut self,
        template: &ChatTemplate,
        system: Option<&str>,
        first: Option<String>,
    ) -> Result<(), Box<dyn Error>> {
        let mut messages: Vec<Message> = system.map(|text| Message::new("system", text)).into_iter().collect();
        let mut turn = first;
        loop {
            let said = match turn.take() {
                Some(said) => said,
                None => match read_turn()? {
                    Some(said) => said,
                    None => return Ok(()),
                },
            };
            if said.trim().is_empty() {
                continue;
            }
            messages.push(Message::new("user", said));
            let prompt = self.tokenizer.encode_chat(&template.render(&messages, true)?)?;
            let answer = self.generate(prompt)?;
            messages.push(Message::new("assistant", answer));
        }
    }

    /// Puts `prompt` into the KV cache, as far as it is not there already, and streams what the model says to it.
    fn generate(&mut self, prompt: Vec<u32>) -> Result<String, Box<dyn Error>> {
        if self.show_prompt {
            for &token in &prompt {
                let piece = String::from_utf8_lossy(self.tokenizer.piece(token).unwrap_or_default());
                eprintln!("{token:>8} {piece:?}");
            }
        }
        if prompt.is_empty() {
            return Err("the prompt is empty, and this model needs at least one token".into());
        }
        // The logits come with the last token, so that one is always computed.
        let cached = self.tokens.iter().zip(&prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        self.session.truncate(cached);
        self.tokens = prompt;
        let start = Instant::now();
        let logits = self.session.prefill(&self.tokens[cached..], self.pool)?;
        let mut next = self.sampler.sample(logits, &self.tokens);
        self.timings.prompt += start.elapsed();
        self.timings.prompt_tokens += self.tokens.len() - cached;

        let mut out = std::io::stdout().lock();
        let (mut stream, mut text) = (TextStream::new(), String::new());
        let (start, mut written, mut count) = (Instant::now(), 0, 0);
        while let Some(token) = next.filter(|&token| count < self.limit && !self.tokenizer.is_end(token)) {
            count += 1;
            if !self.tokenizer.is_control(token) {
                stream.push(self.tokenizer.piece(token).unwrap_or_default(), &mut text);
                out.write_all(&text.as_bytes()[written..])?;
                out.flush()?;
                written = text.len();
            }
            if self.session.position() == self.session.capacity() {
                eprintln!("\n[the context of {} positions is full]", self.session.capacity());
                break;
            }
            let logits = self.session.decode(token, self.pool)?;
            self.tokens.push(token);
            next = self.sampler.sample(logits, &self.tokens);
            self.timings.eval_tokens += 1;
        }
        self.timings.eval += start.elapsed();
        stream.finish(&mut text);
        out.write_all(&text.as_bytes()[written..])?;
        writeln!(out)?;
        Ok(text)
    }
}

/// A line of standard input, or `None` at its end.
fn read_turn() -> std::io::Result<Option<String>> {
    eprint!("\n> ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_string()))
}
