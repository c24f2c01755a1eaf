//! Text from bytes that arrive in pieces, never with half a character in it.

use std::string::String;
use std::vec::Vec;

/// Collects bytes and gives out the characters that are whole.
///
/// Tokens cut text at any byte, so a character may come in several pieces. What cannot become a character any more is given out as
/// U+FFFD, as [`String::from_utf8_lossy`] does; put together, the pieces are what it gives for all the bytes at once.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    /// The beginning of a character, at most 3 bytes between two calls.
    pending: Vec<u8>,
}

impl TextStream {
    /// A stream with nothing in it.
    pub fn new() -> Self {
        TextStream::default()
    }

    /// Adds bytes and appends the characters that are whole now to `text`.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        let mut whole = 0;
        for chunk in rest.utf8_chunks() {
            text.push_str(chunk.valid());
            whole += chunk.valid().len();
            rest = rest.get(chunk.valid().len()..).unwrap_or_default();
            let bad = chunk.invalid();
            let may_go_on = core::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
            if bad.is_empty() || may_go_on {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            whole += bad.len();
            rest = rest.get(bad.len()..).unwrap_or_default();
        }
        self.pending.drain(..whole);
    }

    /// Ends the text: a character that was begun and never finished becomes U+FFFD.
    pub fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_text() {
        let samples: [&[u8]; 9] = [
            b"",
            b"plain",
            "é😀 한국".as_bytes(),
            b"\xff\xfe",
            b"a\xe2\x82",
            b"\xe2\x82\x41\xe2\x82\xac",
            b"\xf0\x9f\x98",
            b"\xf0\x9f\x98\x80\x80",
            b"\xed\xa0\x80\xc0\x80\xf5",
        ];
        for bytes in samples {
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let (mut stream, mut text) = (TextStream::new(), String::new());
                    for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        stream.push(piece, &mut text);
                        assert!(stream.pending.len() <= 3);
                    }
                    stream.finish(&mut text);
                    assert_eq!(text, String::from_utf8_lossy(bytes), "{bytes:x?} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn a_whole_character_does_not_wait() {
        let (mut stream, mut text) = (TextStream::new(), String::new());
        stream.push(b"a\xc3", &mut text);
        assert_eq!(text, "a");
        stream.push(b"\xa9", &mut text);
        assert_eq!(text, "aé");
        stream.push(b"\xc3b", &mut text);
        assert_eq!(text, "aé\u{fffd}b");
    }
}
