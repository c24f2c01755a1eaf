//! Text to token ids and back, built from a GGUF file's own metadata.
//!
//! Two kinds of vocabulary: `gpt2` (byte-level BPE, with the splitting rule that `tokenizer.ggml.pre` names) and `llama` (SentencePiece
//! BPE). Ids are those that llama.cpp gives for the same file and text; `tests/tokenizer.rs` compares them.

mod byte_level;
mod sentence_piece;
mod special;
mod stream;
mod vocabulary;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

pub use stream::TextStream;
pub use vocabulary::{TokenType, Vocabulary};

use crate::gguf::Gguf;
use crate::{Error, Result};
use byte_level::ByteLevelBpe;
use sentence_piece::SentencePiece;
use special::{Part, SpecialTokens};
use vocabulary::malformed;

/// A vocabulary that encodes and decodes.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    special: SpecialTokens,
    pieces: Pieces,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    ends: Vec<u32>,
}

// There is one for each model: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Encoder {
    ByteLevel(ByteLevelBpe),
    SentencePiece(SentencePiece),
}

/// The bytes of every token, one after the other.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    control: Vec<bool>,
}

impl Pieces {
    fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = id.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..end)
    }
}

impl Tokenizer {
    /// Builds the tokenizer of a file.
    ///
    /// # Errors
    /// A key is missing or of the wrong type; and as [`new`](Self::new).
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        Tokenizer::new(&Vocabulary::from_gguf(gguf)?)
    }

    /// Builds the tokenizer.
    ///
    /// # Errors
    /// The metadata contradicts itself (the error names the key), or the kind of vocabulary or its splitting rule is not known.
    pub fn new(vocabulary: &Vocabulary) -> Result<Tokenizer> {
        vocabulary.check()?;
        let (encoder, add_bos) = match vocabulary.model {
            "gpt2" => {
                let bpe = ByteLevelBpe::new(vocabulary)?;
                let add_bos = bpe.add_bos;
                (Encoder::ByteLevel(bpe), add_bos)
            }
            "llama" => (Encoder::SentencePiece(SentencePiece::new(vocabulary)?), true),
            other => {
                return Err(Error::Unsupported {
                    what: format!("the vocabulary `{other}` (tokenizer.ggml.model)"),
                    instead: "use a model with a `gpt2` or `llama` vocabulary".to_string(),
                });
            }
        };
        let add_bos = vocabulary.add_bos.unwrap_or(add_bos && vocabulary.bos.is_some());
        let add_eos = vocabulary.add_eos.unwrap_or(false);
        for (add, key, id) in [(add_bos, "bos_token_id", vocabulary.bos), (add_eos, "eos_token_id", vocabulary.eos)] {
            if add && id.is_none() {
                return Err(malformed(key, "missing, though the file says that every text gets this token"));
            }
        }

        let mut pieces = Pieces::default();
        let mut ends: Vec<u32> = [vocabulary.eos, vocabulary.eot, vocabulary.eom].into_iter().flatten().collect();
        for (id, &token) in (0u32..).zip(&vocabulary.tokens) {
            let token_type = vocabulary.token_type(id as usize);
            let control = matches!(token_type, TokenType::Control | TokenType::Unknown);
            match encoder {
                _ if control => pieces.bytes.extend_from_slice(token.as_bytes()),
                Encoder::ByteLevel(_) if token_type == TokenType::UserDefined => {
                    pieces.bytes.extend_from_slice(token.as_bytes())
                }
                Encoder::ByteLevel(_) => byte_level::decode(token, &mut pieces.bytes),
                Encoder::SentencePiece(_) => sentence_piece::decode(token, token_type, &mut pieces.bytes),
            }
            pieces.ends.push(pieces.bytes.len());
            pieces.control.push(control);
            if vocabulary::END_TOKENS.contains(&token) {
                ends.push(id);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        let special = SpecialTokens::new(vocabulary);
        Ok(Tokenizer { encoder, special, pieces, bos: vocabulary.bos, eos: vocabulary.eos, add_bos, add_eos, ends })
    }

    /// The ids of `text`, nothing added. With `parse_special`, control tokens written out in it (`<|im_start|>`) become those tokens:
    /// for text that a chat template made. Without, they are text like any other: for text from outside.
    ///
    /// # Errors
    /// The text defeats the splitting expression (its engine gives up).
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut first = true;
        for part in self.special.split(text, parse_special) {
            let text = match part {
                Part::Token(id) => {
                    ids.push(id);
                    first = true;
                    continue;
                }
                Part::Text(text) => text,
            };
            match &self.encoder {
                Encoder::ByteLevel(bpe) => bpe.encode(text, &mut ids).map_err(|error| Error::Unsupported {
                    what: format!("tokenizing this text ({error})"),
                    instead: "split it into shorter texts".to_string(),
                })?,
                Encoder::SentencePiece(spm) => spm.encode(text, first, &mut ids),
            }
            first = false;
        }
        Ok(ids)
    }

    /// As [`encode`](Self::encode), with the beginning and end tokens that the file wants around every text.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_whole(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, parse_special)?;
        if let Some(bos) = self.bos.filter(|_| self.add_bos) {
            ids.insert(0, bos);
        }
        ids.extend(self.eos.filter(|_| self.add_eos));
        Ok(ids)
    }

    /// As [`encode`](Self::encode) for what a chat template wrote: control tokens are parsed, and the beginning token is added if the
    /// file wants one and the template wrote none.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, true)?;
        if let Some(bos) = self.bos.filter(|&bos| self.add_bos && ids.first() != Some(&bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The bytes of a token: a piece of UTF-8 text that may begin or end inside a character. Control tokens give their names.
    /// `None` if there is no such token.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id)
    }

    /// Whether the token is a control (or unknown) token, whose text is a name and no part of an answer. False if there is no such token.
    pub fn is_control(&self, id: u32) -> bool {
        self.pieces.control.get(id as usize).copied().unwrap_or(false)
    }

    /// The text of `ids`, control tokens left out unless `with_control`. Bytes that are no UTF-8 become U+FFFD. For text that
    /// arrives token by token, give [`piece`](Self::piece) to a [`TextStream`].
    ///
    /// # Errors
    /// An id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], with_control: bool) -> Result<String> {
        let (mut stream, mut text) = (TextStream::new(), String::new());
        for &id in ids {
            let piece = self.piece(id).ok_or_else(|| Error::Missing {
                name: format!("token {id} in a vocabulary of {} tokens", self.len()),
            })?;
            if with_control || !self.is_control(id) {
                stream.push(piece, &mut text);
            }
        }
        stream.finish(&mut text);
        Ok(text)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.pieces.ends.len()
    }

    /// Never true: a vocabulary without tokens is an error.
    pub fn is_empty(&self) -> bool {
        self.pieces.ends.is_empty()
    }

    /// Whether this token ends an answer: the end of the text, of the turn or of the message.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The tokens that end an answer, in increasing order.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }
}
