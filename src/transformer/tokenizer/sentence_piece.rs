//! `llama` vocabularies (SentencePiece BPE): spaces are written `▁`, and of all neighbours whose joined text is a token the one with
//! the best score merges first; a character without a token becomes its bytes.

use std::collections::HashMap;
use std::format;
use std::string::ToString;
use std::vec::Vec;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::vocabulary::{TokenType, Vocabulary, malformed};
use crate::{Error, Result};

/// What SentencePiece writes for a space.
pub(super) const SPACE: char = '▁';

/// Merges text of a `llama` vocabulary.
#[derive(Debug)]
pub(super) struct SentencePiece {
    bpe: BPE,
    pub(super) space_prefix: bool,
}

impl SentencePiece {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        if vocabulary.scores.len() != vocabulary.tokens.len() {
            return Err(Error::Missing { name: "tokenizer.ggml.scores".to_string() });
        }
        let ids: HashMap<&str, u32> = vocabulary.tokens.iter().copied().zip(0..).collect();
        let unknown = vocabulary.unknown.or_else(|| {
            (0u32..)
                .zip(&vocabulary.token_types)
                .find(|(_, token_type)| **token_type == TokenType::Unknown)
                .map(|(id, _)| id)
        });
        let unknown = unknown.and_then(|id| vocabulary.tokens.get(id as usize));
        if let Some(byte) = (0..=255u8).find(|byte| !ids.contains_key(format!("<{byte:#04X}>").as_str()))
            && unknown.is_none()
        {
            return Err(malformed(
                "tokens",
                format!("neither <{byte:#04X}> nor an unknown token, so not every text has tokens"),
            ));
        }

        let mut merges = Vec::new();
        for (&text, &id) in &ids {
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                    merges.push((vocabulary.scores[id as usize], id, left_id, right_id, left, right));
                }
            }
        }
        merges.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        let merges = merges.into_iter().map(|(.., left, right)| (left.to_string(), right.to_string())).collect();
        let tokens: Vocab = ids.into_iter().map(|(token, id)| (token.to_string(), id)).collect();
        // The cache is per thread and outlives the tokenizer, so it stays off.
        let mut builder = BPE::builder().vocab_and_merges(tokens, merges).cache_capacity(0).byte_fallback(true);
        if let Some(unknown) = unknown {
            builder = builder.unk_token(unknown.to_string());
        }
        let bpe = builder.build().map_err(|error| malformed("tokens", error.to_string()))?;
        Ok(SentencePiece { bpe, space_prefix: vocabulary.add_space_prefix.unwrap_or(true) })
    }

    /// `first`: the text begins, or follows a special token, so it gets the space prefix if the vocabulary has one.
    pub(super) fn encode(&self, text: &str, first: bool, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        let prefix = (first && self.space_prefix).then_some(SPACE);
        let text: std::string::String =
            prefix.into_iter().chain(text.chars().map(|c| if c == ' ' { SPACE } else { c })).collect();
        ids.extend(self.bpe.tokenize(&text)?.iter().map(|token| token.id));
        Ok(())
    }
}

/// Appends the bytes that a token's text stands for.
pub(super) fn decode(token: &str, token_type: TokenType, bytes: &mut Vec<u8>) {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    if let (TokenType::Byte, Some(Ok(byte))) = (token_type, hex.map(|hex| u8::from_str_radix(hex, 16))) {
        return bytes.push(byte);
    }
    for c in token.chars() {
        bytes.extend_from_slice(if c == SPACE { ' ' } else { c }.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
