//! `gpt2` vocabularies: text is split by a regular expression, its bytes are written as printable characters, and pairs merge by rank.

use std::collections::HashMap;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior,
};

use super::vocabulary::{Vocabulary, malformed};
use crate::{Error, Result};

/// How a family of vocabularies splits text, by `tokenizer.ggml.pre`.
struct Rule {
    /// The names that files give it.
    names: &'static [&'static str],
    split: Splitting,
    /// A piece that is a token as a whole is not taken apart, whatever the merges say.
    whole_words: bool,
    /// What `tokenizer.ggml.add_bos_token` is where the file does not say.
    add_bos: bool,
}

enum Splitting {
    /// The regular expression of GPT-2.
    Gpt2,
    /// Each digit alone, then the regular expression of GPT-2.
    DigitsThenGpt2,
    /// This regular expression.
    Regex(&'static str),
}

/// The expressions are those of the models' own `tokenizer.json` files.
const RULES: &[Rule] = &[
    Rule { names: &["gpt-2", "phi-2"], split: Splitting::Gpt2, whole_words: false, add_bos: false },
    Rule {
        names: &["smollm", "starcoder", "command-r", "refact"],
        split: Splitting::DigitsThenGpt2,
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["qwen2", "deepseek-r1-qwen"],
        split: Splitting::Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3"],
        split: Splitting::Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        whole_words: true,
        add_bos: true,
    },
    Rule {
        names: &["tekken"],
        split: Splitting::Regex(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        whole_words: true,
        add_bos: true,
    },
    Rule {
        names: &["gpt-4o"],
        split: Splitting::Regex(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        whole_words: false,
        add_bos: false,
    },
];

fn rule(pre: &str) -> Result<&'static Rule> {
    RULES.iter().find(|rule| rule.names.contains(&pre)).ok_or_else(|| Error::Unsupported {
        what: format!("the text splitting `{pre}` (tokenizer.ggml.pre)"),
        instead: format!(
            "the known ones are {}",
            RULES.iter().flat_map(|rule| rule.names).copied().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// Splits and merges text of a `gpt2` vocabulary.
#[derive(Debug)]
pub(super) struct ByteLevelBpe {
    splitter: PreTokenizerWrapper,
    bpe: BPE,
    pub(super) add_bos: bool,
}

impl ByteLevelBpe {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let pre = vocabulary.pre.ok_or_else(|| Error::Missing { name: "tokenizer.ggml.pre".to_string() })?;
        let rule = rule(pre)?;
        let outside = |error: tokenizers::Error| malformed("pre", error.to_string());
        let splitter = match rule.split {
            Splitting::Gpt2 => ByteLevel::new(false, false, true).into(),
            Splitting::DigitsThenGpt2 => {
                Sequence::new(vec![Digits::new(true).into(), ByteLevel::new(false, false, true).into()]).into()
            }
            Splitting::Regex(regex) => {
                let split = Split::new(SplitPattern::Regex(regex.to_string()), SplitDelimiterBehavior::Isolated, false)
                    .map_err(outside)?;
                Sequence::new(vec![split.into(), ByteLevel::new(false, false, false).into()]).into()
            }
        };
        let bpe = build_bpe(vocabulary)?
            .ignore_merges(rule.whole_words)
            .build()
            .map_err(|error| malformed("merges", error.to_string()))?;
        Ok(ByteLevelBpe { splitter, bpe, add_bos: rule.add_bos })
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut words = PreTokenizedString::from(text);
        self.splitter.pre_tokenize(&mut words)?;
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            ids.extend(self.bpe.tokenize(word)?.iter().map(|token| token.id));
        }
        Ok(())
    }
}

fn build_bpe(vocabulary: &Vocabulary) -> Result<tokenizers::models::bpe::BpeBuilder> {
    let ids: HashMap<&str, u32> = vocabulary.tokens.iter().copied().zip(0..).collect();
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    let mut merged = String::new();
    for (rank, pair) in vocabulary.merge_pairs().enumerate() {
        let (left, right) = pair?;
        merged.clear();
        merged.push_str(left);
        merged.push_str(right);
        // The builder needs all three in the vocabulary, and slices out of bounds where the merged one is longer than any token.
        if let Some(unknown) = [left, right, &merged].into_iter().find(|token| !ids.contains_key(token)) {
            return Err(malformed(&format!("merges[{rank}]"), format!("{unknown:?} is not in tokenizer.ggml.tokens")));
        }
        merges.push((left.to_string(), right.to_string()));
    }
    let tokens: Vocab = ids.into_iter().map(|(token, id)| (token.to_string(), id)).collect();
    // Its cache is per thread and outlives the tokenizer, so it stays off.
    Ok(BPE::builder().vocab_and_merges(tokens, merges).cache_capacity(0))
}

/// The byte that stands behind a character of a byte-level token. `!`–`~`, `¡`–`¬` and `®`–`ÿ` are themselves; the other 68 bytes
/// follow in order from U+0100 (GPT-2's `bytes_to_unicode`).
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..0x100 => u8::try_from(code).ok().filter(|&byte| printable(byte)),
        code => (0..=255u8).filter(|&byte| !printable(byte)).nth((code - 0x100) as usize),
    }
}

/// Appends the bytes that a token's text stands for.
pub(super) fn decode(token: &str, bytes: &mut Vec<u8>) {
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_has_one_character() {
        let alphabet = ByteLevel::alphabet();
        let bytes: HashSet<u8> = alphabet.iter().map(|&c| byte_of(c).unwrap()).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of(' '), None);
        assert_eq!(byte_of('\u{144}'), None);
        let mut text = Vec::new();
        decode("ĠÃ©▁", &mut text);
        assert_eq!(text, " é▁".as_bytes());
    }

    #[test]
    fn every_rule_compiles_and_names_are_unique() {
        let mut seen = HashSet::new();
        for rule in RULES {
            for name in rule.names {
                assert!(seen.insert(name), "{name}");
            }
            let vocabulary =
                Vocabulary { tokens: vec!["a"], pre: rule.names.first().copied(), ..Vocabulary::default() };
            ByteLevelBpe::new(&vocabulary).unwrap();
        }
    }

    #[test]
    fn merges_outside_the_vocabulary_are_errors() {
        for merge in ["a b", "a c", "c a"] {
            let vocabulary =
                Vocabulary { tokens: vec!["a", "b"], merges: vec![merge], pre: Some("gpt-2"), ..Vocabulary::default() };
            let error = ByteLevelBpe::new(&vocabulary).unwrap_err();
            assert!(matches!(&error, Error::Gguf { at, .. } if at == "tokenizer.ggml.merges[0]"), "{error}");
        }
    }

    #[test]
    fn an_unknown_rule_is_an_error() {
        let with =
            |pre| ByteLevelBpe::new(&Vocabulary { tokens: vec!["a"], pre, ..Vocabulary::default() }).unwrap_err();
        assert!(matches!(with(Some("klingon")), Error::Unsupported { what, .. } if what.contains("klingon")));
        assert!(matches!(with(None), Error::Missing { name } if name == "tokenizer.ggml.pre"));
    }
}
