//! Finds the tokens that stand in a text as they are, before anything else splits it.

use std::collections::{BTreeMap, HashMap};
use std::vec::Vec;

use super::vocabulary::{TokenType, Vocabulary};

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// Text to split and merge.
    Text(&'t str),
    /// A token that stood there.
    Token(u32),
}

/// The control, unknown and user-defined tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    by_text: HashMap<Vec<u8>, SpecialToken>,
    /// By first byte, the lengths of the texts that begin with it.
    lengths: BTreeMap<u8, Vec<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct SpecialToken {
    id: u32,
    user_defined: bool,
}

struct Found {
    start: usize,
    len: usize,
    id: u32,
}

impl SpecialTokens {
    pub(super) fn new(vocabulary: &Vocabulary) -> SpecialTokens {
        let mut special = SpecialTokens::default();
        for (id, text) in (0u32..).zip(&vocabulary.tokens) {
            let token_type = vocabulary.token_type(id as usize);
            let Some(&first) = text.as_bytes().first() else { continue };
            if !matches!(token_type, TokenType::Control | TokenType::Unknown | TokenType::UserDefined) {
                continue;
            }
            let token = SpecialToken { id, user_defined: token_type == TokenType::UserDefined };
            special.by_text.insert(text.as_bytes().to_vec(), token);
            let lengths = special.lengths.entry(first).or_default();
            if !lengths.contains(&text.len()) {
                lengths.push(text.len());
            }
        }
        special
    }

    /// Splits `text` at its special tokens: the user-defined ones always, the others only if `parse_special`. Where tokens overlap
    /// the longest takes its place first, anywhere in the text, then the leftmost (llama.cpp's order).
    pub(super) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Part<'t>> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        for (start, byte) in bytes.iter().enumerate() {
            for &len in self.lengths.get(byte).into_iter().flatten() {
                let token = start.checked_add(len).and_then(|end| self.by_text.get(bytes.get(start..end)?));
                if let Some(token) = token.filter(|token| parse_special || token.user_defined) {
                    found.push(Found { start, len, id: token.id });
                }
            }
        }
        found.sort_by_key(|f| (core::cmp::Reverse(f.len), f.id, f.start));
        let mut taken: BTreeMap<usize, Found> = BTreeMap::new();
        for f in found {
            let before = taken.range(..f.start + f.len).next_back();
            if before.is_none_or(|(_, b)| b.start + b.len <= f.start) {
                taken.insert(f.start, f);
            }
        }
        let mut parts = Vec::with_capacity(2 * taken.len() + 1);
        let mut at = 0;
        // Both ends of a match are the ends of UTF-8 text, so the gaps are text too.
        let gap = |from: usize, to: usize, parts: &mut Vec<Part<'t>>| {
            if let Some(gap) = text.get(from..to).filter(|gap| !gap.is_empty()) {
                parts.push(Part::Text(gap));
            }
        };
        for f in taken.values() {
            gap(at, f.start, &mut parts);
            parts.push(Part::Token(f.id));
            at = f.start + f.len;
        }
        gap(at, text.len(), &mut parts);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn the_longest_goes_first_and_control_tokens_only_if_asked() {
        use TokenType::{Control, Normal, UserDefined};
        let vocabulary = Vocabulary {
            tokens: vec!["<s>", "x", "\n", "\n\n", "aab", "bccc", ""],
            token_types: vec![Control, Normal, UserDefined, UserDefined, UserDefined, UserDefined, Control],
            ..Vocabulary::default()
        };
        let special = SpecialTokens::new(&vocabulary);
        use Part::{Text, Token};
        assert_eq!(special.split("é<s>x", true), [Text("é"), Token(0), Text("x")]);
        assert_eq!(special.split("é<s>x", false), [Text("é<s>x")]);
        assert_eq!(special.split("\n\n\n<s>", true), [Token(3), Token(2), Token(0)]);
        assert_eq!(special.split("aabccc", false), [Text("aa"), Token(5)]);
        assert_eq!(special.split("", true), []);
        assert_eq!(special.split("<s", true), [Text("<s")]);
    }
}
