//! The tokenizer's part of a GGUF file's metadata, checked before anything is built from it.

use std::format;
use std::string::String;
use std::vec::Vec;

use crate::gguf::Gguf;
use crate::{Error, Result};

/// What a token stands for, as `tokenizer.ggml.token_type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// Ordinary text (type 1; also 0, which old files write for it).
    Normal,
    /// The token for text that nothing else covers (type 2).
    Unknown,
    /// Control: begins or ends a text or a turn, never made from plain text (type 3).
    Control,
    /// Added by hand; found in any text before it is split (type 4).
    UserDefined,
    /// A place that is kept free (type 5).
    Unused,
    /// One byte, written `<0x0A>` (type 6).
    Byte,
}

impl TokenType {
    /// The type of that number, 0 to 6.
    pub fn from_id(id: i64) -> Option<TokenType> {
        Some(match id {
            0 | 1 => TokenType::Normal,
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => return None,
        })
    }
}

/// Tokens that end an answer, whatever the file's keys and types say.
pub(super) const END_TOKENS: [&str; 11] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<eos>",
    "</s>",
];

/// The keys `tokenizer.ggml.*` of a GGUF file, borrowed from it. Nothing in it is trusted:
/// [`Tokenizer::new`](super::Tokenizer::new) checks every length and id.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary<'a> {
    /// `tokenizer.ggml.model`: `gpt2` or `llama`.
    pub model: &'a str,
    /// `tokenizer.ggml.pre`: how `gpt2` vocabularies split text before merging.
    pub pre: Option<&'a str>,
    /// `tokenizer.ggml.tokens`: the text of each token, by id.
    pub tokens: Vec<&'a str>,
    /// `tokenizer.ggml.scores`: empty, or one a token.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: empty (all normal), or one a token.
    pub token_types: Vec<TokenType>,
    /// `tokenizer.ggml.merges`: `left right`, the first one merges first.
    pub merges: Vec<&'a str>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: the end of a turn.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.eom_token_id`: the end of a message.
    pub eom: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

/// An error about the metadata key `tokenizer.ggml.{key}`.
pub(super) fn malformed(key: &str, why: impl Into<String>) -> Error {
    Error::Gguf { at: format!("tokenizer.ggml.{key}"), why: why.into() }
}

impl<'a> Vocabulary<'a> {
    /// Reads the keys.
    ///
    /// # Errors
    /// A key that every tokenizer needs is missing, or one is of the wrong type; the error names it.
    pub fn from_gguf(gguf: &Gguf<'a>) -> Result<Vocabulary<'a>> {
        let types = gguf.find_array::<i64>("tokenizer.ggml.token_type")?;
        let token_types = types.into_iter().flatten().enumerate().map(|(id, number)| {
            TokenType::from_id(number)
                .ok_or_else(|| malformed(&format!("token_type[{id}]"), format!("{number} is no token type")))
        });
        let id = |key: &str| gguf.find::<u32>(key);
        Ok(Vocabulary {
            model: gguf.str("tokenizer.ggml.model")?,
            pre: gguf.find("tokenizer.ggml.pre")?,
            tokens: gguf.array("tokenizer.ggml.tokens")?.collect(),
            scores: gguf.find_array("tokenizer.ggml.scores")?.into_iter().flatten().collect(),
            token_types: token_types.collect::<Result<_>>()?,
            merges: gguf.find_array("tokenizer.ggml.merges")?.into_iter().flatten().collect(),
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unknown: id("tokenizer.ggml.unknown_token_id")?,
            add_bos: gguf.find("tokenizer.ggml.add_bos_token")?,
            add_eos: gguf.find("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: gguf.find("tokenizer.ggml.add_space_prefix")?,
        })
    }

    /// Checks lengths and ids against the number of tokens; the error names the key.
    pub(super) fn check(&self) -> Result<()> {
        let count = self.tokens.len();
        if count == 0 {
            return Err(malformed("tokens", "no tokens"));
        }
        if u32::try_from(count).is_err() {
            return Err(malformed("tokens", format!("{count} tokens, but ids are 32 bits wide")));
        }
        for (key, len) in [("scores", self.scores.len()), ("token_type", self.token_types.len())] {
            if len != 0 && len != count {
                return Err(malformed(key, format!("{len} entries for {count} tokens")));
            }
        }
        if let Some(at) = self.scores.iter().position(|score| score.is_nan()) {
            return Err(malformed(&format!("scores[{at}]"), "not a number"));
        }
        let ids = [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("eot_token_id", self.eot),
            ("eom_token_id", self.eom),
            ("unknown_token_id", self.unknown),
        ];
        for (key, id) in ids {
            if let Some(id) = id.filter(|&id| id as usize >= count) {
                return Err(malformed(key, format!("id {id}, but there are {count} tokens")));
            }
        }
        Ok(())
    }

    /// The type of a token: control for those that end an answer, whatever the file says (many say otherwise), and normal where it
    /// says nothing.
    pub(super) fn token_type(&self, id: usize) -> TokenType {
        if self.tokens.get(id).is_some_and(|token| END_TOKENS.contains(token)) {
            return TokenType::Control;
        }
        self.token_types.get(id).copied().unwrap_or(TokenType::Normal)
    }

    /// The merges as pairs.
    pub(super) fn merge_pairs(&self) -> impl Iterator<Item = Result<(&'a str, &'a str)>> + '_ {
        self.merges.iter().enumerate().map(|(rank, merge)| {
            // A left part is at least one byte long, so a space in the first place belongs to it.
            let space = merge.bytes().skip(1).position(|byte| byte == b' ').map(|at| at + 1);
            match space.and_then(|at| Some((merge.get(..at)?, merge.get(at + 1..)?))) {
                Some((left, right)) if !right.is_empty() => Ok((left, right)),
                _ => Err(malformed(
                    &format!("merges[{rank}]"),
                    format!("{merge:?} is not two tokens with a space between"),
                )),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn words() -> Vocabulary<'static> {
        Vocabulary { model: "gpt2", tokens: vec!["a", "b", "ab"], ..Vocabulary::default() }
    }

    #[test]
    fn an_error_names_the_key() {
        let broken: [(&str, Vocabulary); 6] = [
            ("tokens", Vocabulary { tokens: vec![], ..words() }),
            ("scores", Vocabulary { scores: vec![0.0; 2], ..words() }),
            ("scores[1]", Vocabulary { scores: vec![0.0, f32::NAN, 0.0], ..words() }),
            ("token_type", Vocabulary { token_types: vec![TokenType::Normal; 4], ..words() }),
            ("bos_token_id", Vocabulary { bos: Some(3), ..words() }),
            ("eot_token_id", Vocabulary { eot: Some(u32::MAX), ..words() }),
        ];
        for (key, vocabulary) in broken {
            let error = vocabulary.check().unwrap_err();
            assert!(
                matches!(&error, Error::Gguf { at, .. } if *at == format!("tokenizer.ggml.{key}")),
                "{key}: {error}"
            );
        }
        words().check().unwrap();
    }

    #[test]
    fn merges_are_two_tokens() {
        let vocabulary = Vocabulary { merges: vec!["a b", "  b", "é ü"], ..words() };
        let pairs: Result<Vec<_>> = vocabulary.merge_pairs().collect();
        assert_eq!(pairs.unwrap(), [("a", "b"), (" ", "b"), ("é", "ü")]);
        for merge in ["", " ", "ab", "a ", " b", "é"] {
            let vocabulary = Vocabulary { merges: vec![merge], ..words() };
            let error = vocabulary.merge_pairs().next().unwrap().unwrap_err();
            assert!(matches!(&error, Error::Gguf { at, .. } if at == "tokenizer.ggml.merges[0]"), "{merge:?}: {error}");
        }
    }

    #[test]
    fn types_of_the_wrong_number_are_none() {
        assert_eq!(TokenType::from_id(3), Some(TokenType::Control));
        assert_eq!(TokenType::from_id(7), None);
        assert_eq!(TokenType::from_id(-1), None);
    }
}
