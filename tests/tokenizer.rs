//! Tokenizers: small vocabularies made here, and real ones against the ids that llama.cpp gives (`tests/data/tokenizer`).
#![cfg(feature = "model")]

use std::path::PathBuf;

use quantblock::Error;
use quantblock::gguf::{Gguf, Mmap};
use quantblock::transformer::tokenizer::{TextStream, TokenType, Tokenizer, Vocabulary};
use serde_json::Value;

/// The characters that byte-level vocabularies write for the bytes 0 to 255.
fn alphabet() -> Vec<String> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap().to_string()
            }
        })
        .collect()
}

/// 256 bytes, then words; the last two tokens are control tokens.
struct ByteLevel {
    tokens: Vec<String>,
    merges: Vec<&'static str>,
}

impl ByteLevel {
    fn new() -> Self {
        let words = ["he", "ll", "hell", "hello", "Ġhello", "Ġh", "<|start|>", "<|im_end|>"];
        ByteLevel {
            tokens: alphabet().into_iter().chain(words.map(String::from)).collect(),
            merges: vec!["h e", "l l", "he ll", "hell o", "Ġ hello"],
        }
    }

    fn vocabulary(&self) -> Vocabulary<'_> {
        let mut token_types = vec![TokenType::Normal; self.tokens.len()];
        token_types[262..].fill(TokenType::Control);
        Vocabulary {
            model: "gpt2",
            pre: Some("gpt-2"),
            tokens: self.tokens.iter().map(String::as_str).collect(),
            token_types,
            merges: self.merges.clone(),
            ..Vocabulary::default()
        }
    }
}

/// Bytes at 3 to 258, then pieces.
struct SentencePiece {
    tokens: Vec<String>,
    scores: Vec<f32>,
}

impl SentencePiece {
    fn new() -> Self {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
        tokens.extend((0..=255u8).map(|byte| format!("<{byte:#04X}>")));
        let mut scores = vec![0.0; tokens.len()];
        for (piece, score) in [
            ("▁", -10.0),
            ("a", -10.0),
            ("b", -10.0),
            ("ab", -2.0),
            ("ba", -1.0),
            ("▁a", -3.0),
            ("\n\n", 0.0),
            ("▁ab", -4.0),
        ] {
            tokens.push(piece.to_string());
            scores.push(score);
        }
        SentencePiece { tokens, scores }
    }

    fn vocabulary(&self) -> Vocabulary<'_> {
        let mut token_types = vec![TokenType::Normal; self.tokens.len()];
        token_types[0] = TokenType::Unknown;
        token_types[1..3].fill(TokenType::Control);
        token_types[3..259].fill(TokenType::Byte);
        token_types[265] = TokenType::UserDefined;
        Vocabulary {
            model: "llama",
            tokens: self.tokens.iter().map(String::as_str).collect(),
            scores: self.scores.clone(),
            token_types,
            bos: Some(1),
            eos: Some(2),
            ..Vocabulary::default()
        }
    }
}

#[test]
fn byte_level_merges_by_rank() {
    let made = ByteLevel::new();
    let tokenizer = Tokenizer::new(&made.vocabulary()).unwrap();
    let ids = |text| tokenizer.encode(text, false).unwrap();
    assert_eq!(ids("hello hello"), [259, 260]);
    assert_eq!(ids("hellhe"), [258, 256]);
    assert_eq!(ids(""), [0u32; 0]);
    assert_eq!(ids("é\0"), [0xC3, 0xA9, 0]);
    assert_eq!(ids("<|im_end|>").len(), 10);
    assert_eq!(tokenizer.encode("hello<|im_end|>", true).unwrap(), [259, 263]);
    assert_eq!(tokenizer.encode_whole("he", true).unwrap(), [256]);
    assert_eq!(tokenizer.ends(), [263]);
    assert!(tokenizer.is_end(263) && !tokenizer.is_end(262) && !tokenizer.is_end(9999));
    assert_eq!(tokenizer.decode(&[260, 263, 259], false).unwrap(), " hellohello");
    assert_eq!(tokenizer.decode(&[260, 263], true).unwrap(), " hello<|im_end|>");
    assert!(matches!(tokenizer.decode(&[264], true), Err(Error::Missing { name }) if name.contains("264")));
    assert_eq!(tokenizer.piece(264), None);
    assert_eq!(tokenizer.len(), 264);
}

#[test]
fn a_rule_may_keep_whole_words() {
    // "Ġh" is a token that no merge makes.
    let made = ByteLevel::new();
    let ids =
        |pre| Tokenizer::new(&Vocabulary { pre: Some(pre), ..made.vocabulary() }).unwrap().encode(" h", false).unwrap();
    assert_eq!(ids("gpt-2"), [u32::from(b' '), u32::from(b'h')]);
    assert_eq!(ids("llama-bpe"), [261]);
}

#[test]
fn sentence_piece_merges_by_score() {
    let made = SentencePiece::new();
    let with =
        |space_prefix| Tokenizer::new(&Vocabulary { add_space_prefix: space_prefix, ..made.vocabulary() }).unwrap();
    let tokenizer = with(Some(false));
    let ids = |text: &str| tokenizer.encode(text, false).unwrap();
    assert_eq!(ids("aba"), [260, 263]); // "ba" is better than "ab"
    assert_eq!(ids("ab"), [262]);
    assert_eq!(ids(" ab"), [266]);
    assert_eq!(ids("a\n\nc"), [260, 265, 3 + u32::from(b'c')]);
    assert_eq!(ids("é"), [3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.encode("<s>a", true).unwrap(), [1, 260]);
    assert_eq!(tokenizer.encode_whole("a", true).unwrap(), [1, 260]);
    assert_eq!(tokenizer.encode_chat("<s>a").unwrap(), [1, 260]);
    assert_eq!(tokenizer.encode_chat("a").unwrap(), [1, 260]);
    assert_eq!(tokenizer.decode(&ids(" ab é\n\n"), false).unwrap(), " ab é\n\n");
    // The prefix comes at the beginning and after special tokens; it is the rule where the file does not say.
    for tokenizer in [with(Some(true)), with(None)] {
        assert_eq!(tokenizer.encode("ab\n\nab", false).unwrap(), [266, 265, 266]);
        assert_eq!(tokenizer.encode_whole("", true).unwrap(), [1]);
    }
}

#[test]
fn long_texts_take_no_long_time() {
    let made = SentencePiece::new();
    let tokenizer = Tokenizer::new(&made.vocabulary()).unwrap();
    assert!(tokenizer.encode(&"ab ".repeat(50_000), false).unwrap().len() >= 50_000);
    let made = ByteLevel::new();
    for pre in ["gpt-2", "smollm", "qwen2", "llama-bpe", "tekken", "gpt-4o"] {
        let tokenizer = Tokenizer::new(&Vocabulary { pre: Some(pre), ..made.vocabulary() }).unwrap();
        for text in
            [" ".repeat(20_000), "\n".repeat(20_000), "a".repeat(20_000), "1".repeat(20_000), "<".repeat(20_000)]
        {
            assert_eq!(tokenizer.encode(&text, true).unwrap().len(), text.len(), "{pre}");
        }
    }
}

#[test]
fn what_contradicts_itself_is_an_error_that_names_the_key() {
    let (bytes, pieces) = (ByteLevel::new(), SentencePiece::new());
    let (gpt2, llama) = (|| bytes.vocabulary(), || pieces.vocabulary());
    let cases: Vec<(&str, Vocabulary)> = vec![
        ("tokenizer.ggml.model", Vocabulary { model: "t5", ..gpt2() }),
        ("tokenizer.ggml.pre", Vocabulary { pre: Some("nonesuch"), ..gpt2() }),
        ("tokenizer.ggml.pre", Vocabulary { pre: None, ..gpt2() }),
        ("tokenizer.ggml.tokens", Vocabulary { tokens: vec![], ..gpt2() }),
        ("tokenizer.ggml.merges[1]", Vocabulary { merges: vec!["h e", "he"], ..gpt2() }),
        ("tokenizer.ggml.merges[0]", Vocabulary { merges: vec!["h x!"], ..gpt2() }),
        ("tokenizer.ggml.token_type", Vocabulary { token_types: vec![TokenType::Normal], ..gpt2() }),
        ("tokenizer.ggml.eos_token_id", Vocabulary { eos: Some(264), ..gpt2() }),
        ("tokenizer.ggml.bos_token_id", Vocabulary { add_bos: Some(true), ..gpt2() }),
        ("tokenizer.ggml.eos_token_id", Vocabulary { add_eos: Some(true), eos: None, ..llama() }),
        ("tokenizer.ggml.unknown_token_id", Vocabulary { unknown: Some(u32::MAX), ..llama() }),
        ("tokenizer.ggml.scores", Vocabulary { scores: vec![], ..llama() }),
        ("tokenizer.ggml.scores", Vocabulary { scores: vec![0.0; 5], ..llama() }),
        (
            "tokenizer.ggml.tokens",
            Vocabulary { model: "llama", tokens: vec!["a"], scores: vec![0.0], ..Vocabulary::default() },
        ),
    ];
    for (key, vocabulary) in cases {
        let message = Tokenizer::new(&vocabulary).unwrap_err().to_string();
        assert!(message.contains(key), "{key}: {message}");
    }
}

struct Fixture(Value);

impl Fixture {
    fn load(name: &str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer").join(name).with_extension("json");
        Fixture(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    fn texts(&self) -> Vec<&str> {
        self.0["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    }

    fn model(&self) -> Mmap {
        let folder = std::env::var_os("QUANTBLOCK_MODELS").expect("QUANTBLOCK_MODELS names the folder of the models");
        Mmap::open(PathBuf::from(folder).join(self.0["model"].as_str().unwrap())).unwrap()
    }

    /// Compares the ids of every text with the oracle's and returns how many texts there were.
    fn compare(&self, ids: &Value, what: &str, encode: impl Fn(&str) -> Vec<u32>) -> usize {
        let lists = ids.as_array().unwrap();
        let texts = self.texts();
        assert_eq!(lists.len(), texts.len());
        let mut wrong = Vec::new();
        for (text, list) in texts.iter().zip(lists) {
            let expected: Vec<u32> = list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let found = encode(text);
            if found != expected {
                wrong.push(format!("{text:?}\n  expected {expected:?}\n  found    {found:?}"));
            }
        }
        assert!(wrong.is_empty(), "{what}: {} of {} texts differ\n{}", wrong.len(), texts.len(), wrong.join("\n"));
        texts.len()
    }
}

fn agrees_with_llama_cpp(name: &str) {
    let fixture = Fixture::load(name);
    let file = fixture.model();
    let gguf = Gguf::parse(file.as_ref()).unwrap();
    let start = std::time::Instant::now();
    let vocabulary = Vocabulary::from_gguf(&gguf).unwrap();
    let tokenizer = Tokenizer::new(&vocabulary).unwrap();
    println!("{name}: {} tokens, built in {:?}", tokenizer.len(), start.elapsed());
    let plain = |text: &str| tokenizer.encode(text, false).unwrap();
    let mut count = fixture.compare(&fixture.0["plain"], "plain", plain);
    count += fixture.compare(&fixture.0["special"], "special", |text| tokenizer.encode_whole(text, true).unwrap());
    for pair in fixture.0["pieces"].as_array().unwrap() {
        let id = pair[0].as_u64().unwrap() as u32;
        let hex: String = tokenizer.piece(id).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, pair[1].as_str().unwrap(), "the bytes of token {id}");
    }
    for (variant, ids) in fixture.0["variants"].as_object().unwrap() {
        let changed = match variant.split_once('=').unwrap() {
            ("pre", pre) => Vocabulary { pre: Some(pre), ..vocabulary.clone() },
            ("add_space_prefix", value) => Vocabulary { add_space_prefix: Some(value == "true"), ..vocabulary.clone() },
            _ => panic!("{variant}"),
        };
        let tokenizer = Tokenizer::new(&changed).unwrap();
        count += fixture.compare(ids, variant, |text| tokenizer.encode(text, false).unwrap());
    }
    println!("{name}: {count} texts agree with {}", fixture.0["oracle"].as_str().unwrap());

    for text in fixture.texts() {
        let ids = plain(text);
        assert_eq!(
            tokenizer.decode(&ids, true).unwrap(),
            if vocabulary.model == "llama" { text.replace('▁', " ") } else { text.into() }
        );
        let (mut stream, mut streamed) = (TextStream::new(), String::new());
        for id in ids {
            stream.push(tokenizer.piece(id).unwrap(), &mut streamed);
            assert!(
                !streamed.contains('\u{fffd}') || text.contains('\u{fffd}'),
                "{text:?}: half a character in {streamed:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn smollm2_agrees_with_llama_cpp() {
    agrees_with_llama_cpp("smollm2");
}

#[test]
#[ignore = "needs QUANTBLOCK_MODELS"]
fn gemma3_agrees_with_llama_cpp() {
    agrees_with_llama_cpp("gemma3-270m");
}
