//! `llama` vocabularies (SentencePiece BPE): spaces are written `▁`, and of all neighbours whose joined text is a token the pair with
//! the best score merges first; a character without a token becomes its bytes.
//!
//! The merging is done here and not by the `tokenizers` crate, whose BPE would need every split of every token as a merge of its own:
//! half a million for Gemma's 262144 tokens, most of a second of building where one map of the tokens does. Ties, too, are then
//! SentencePiece's own: the leftmost pair.

use std::boxed::Box;
use std::collections::{BinaryHeap, HashMap};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::vocabulary::{TokenType, Vocabulary, malformed};
use crate::{Error, Result};

/// What SentencePiece writes for a space.
const SPACE: char = '▁';

/// Merges text of a `llama` vocabulary.
#[derive(Debug)]
pub(super) struct SentencePiece {
    /// By text, the id and the score.
    tokens: HashMap<Box<str>, (u32, f32)>,
    /// By byte, the tokens of a character that has none of its own; `None` if some byte has no token.
    bytes: Option<Box<[u32; 256]>>,
    unknown: Option<u32>,
    space_prefix: bool,
}

/// A piece of the text, in a list with its neighbours.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0 once the symbol on the left has taken it in.
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours whose joined text is a token.
#[derive(Debug, Clone, Copy)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Of both; another length now means that one of them has merged since.
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

impl SentencePiece {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        if vocabulary.scores.len() != vocabulary.tokens.len() {
            return Err(Error::Missing { name: "tokenizer.ggml.scores".to_string() });
        }
        let mut tokens = HashMap::with_capacity(vocabulary.tokens.len());
        for (id, (&text, &score)) in (0u32..).zip(vocabulary.tokens.iter().zip(&vocabulary.scores)) {
            // Adding 0 makes -0 equal to it.
            tokens.insert(Box::from(text), (id, score + 0.0));
        }
        let unknown = vocabulary.unknown.or_else(|| {
            let types = (0u32..).zip(&vocabulary.token_types);
            types.into_iter().find(|(_, token_type)| **token_type == TokenType::Unknown).map(|(id, _)| id)
        });
        let mut bytes = Box::new([0; 256]);
        let mut without_token = None;
        for (byte, token) in bytes.iter_mut().enumerate() {
            match tokens.get(format!("<{byte:#04X}>").as_str()) {
                Some(&(id, _)) => *token = id,
                None => without_token = Some(byte),
            }
        }
        if let (Some(byte), None) = (without_token, unknown) {
            let why = format!("neither <{byte:#04X}> nor an unknown token, so some texts have no tokens");
            return Err(malformed("tokens", why));
        }
        let bytes = without_token.is_none().then_some(bytes);
        Ok(SentencePiece { tokens, bytes, unknown, space_prefix: vocabulary.add_space_prefix.unwrap_or(true) })
    }

    /// Appends the ids of `text`. `first`: it begins, or follows a special token, so it gets the space prefix if the vocabulary has one.
    pub(super) fn encode(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        let prefix = (first && self.space_prefix).then_some(SPACE);
        let text: String = prefix.into_iter().chain(text.chars().map(|c| if c == ' ' { SPACE } else { c })).collect();
        for symbol in self.merge(&text).into_iter().filter(|symbol| symbol.len > 0) {
            let Some(piece) = text.get(symbol.start..symbol.start + symbol.len) else { continue };
            match (self.tokens.get(piece), &self.bytes) {
                (Some(&(id, _)), _) => ids.push(id),
                (None, Some(bytes)) => ids.extend(piece.bytes().filter_map(|byte| bytes.get(usize::from(byte)))),
                (None, None) => ids.extend(self.unknown),
            }
        }
    }

    /// The symbols of `text` when nothing merges any more, those that were taken in left in place with length 0.
    fn merge(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(at, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                previous: at.checked_sub(1),
                next: Some(at + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let pair = |symbols: &[Symbol], left: Option<usize>, right: Option<usize>| -> Option<Pair> {
            let (left, right) = (left?, right?);
            let (a, b) = (symbols.get(left)?, symbols.get(right)?);
            let len = a.len + b.len;
            let &(_, score) = self.tokens.get(text.get(a.start..a.start + len)?)?;
            Some(Pair { score, left, right, len })
        };
        let mut queue: BinaryHeap<Pair> =
            (1..symbols.len()).filter_map(|right| pair(&symbols, right.checked_sub(1), Some(right))).collect();
        while let Some(best) = queue.pop() {
            let (Some(&left), Some(&right)) = (symbols.get(best.left), symbols.get(best.right)) else { continue };
            if left.len == 0 || right.len == 0 || left.len + right.len != best.len {
                continue;
            }
            if let Some(symbol) = symbols.get_mut(best.left) {
                symbol.len = best.len;
                symbol.next = right.next;
            }
            if let Some(symbol) = symbols.get_mut(best.right) {
                symbol.len = 0;
            }
            if let Some(symbol) = right.next.and_then(|next| symbols.get_mut(next)) {
                symbol.previous = Some(best.left);
            }
            queue.extend(pair(&symbols, left.previous, Some(best.left)));
            queue.extend(pair(&symbols, Some(best.left), right.next));
        }
        symbols
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
