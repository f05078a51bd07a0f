//! UTF-8 at the boundaries: invalid text on the way in, incomplete characters on the way out.

/// Length in bytes of the character at the start of `text`, which must not be empty: 1 to 4, or 1 if it is not valid UTF-8.
pub(crate) fn character_length(text: &[u8]) -> usize {
    let length = match text[0] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    match text.get(..length) {
        Some(character) if length == 1 || std::str::from_utf8(character).is_ok() => length,
        _ => 1,
    }
}

/// Turns bytes that arrive piece by piece into text, never half a character at a time.
///
/// All pieces together equal the whole decoded at once: invalid UTF-8 becomes U+FFFD, one for each maximal beginning of
/// a character (Unicode, section 3.9, "U+FFFD substitution of maximal subparts").
#[derive(Debug, Default, Clone)]
pub struct TextStream {
    /// The beginning of a character, at most 3 bytes.
    pending: Vec<u8>,
}

impl TextStream {
    /// Adds `bytes` and returns the text that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(broken) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[broken..];
                }
            }
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
        text
    }

    /// Ends the text and returns U+FFFD if half a character is left. The stream can then be used again.
    pub fn flush(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_measured_and_broken_bytes_stand_alone() {
        for text in ["a", "é", "▁", "🦙"] {
            assert_eq!(character_length(format!("{text}x").as_bytes()), text.len());
            assert_eq!(character_length(text.as_bytes()), text.len());
            for cut in 1..text.len() {
                assert_eq!(character_length(&text.as_bytes()[..cut]), 1);
            }
        }
        for broken in [&b"\xff"[..], b"\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3a"] {
            assert_eq!(character_length(broken), 1);
        }
    }

    #[test]
    fn every_cut_gives_the_text_of_the_whole() {
        let samples: [&[u8]; 6] =
            ["a🦙é▁".as_bytes(), b"\xf0\x9f\xa6", b"\xf0\x9f(\xe2\x96", b"\xed\xa0\x80x", b"\xff\xfe\x80", b""];
        for sample in samples {
            let whole = String::from_utf8_lossy(sample);
            for first in 0..=sample.len() {
                for second in first..=sample.len() {
                    let mut stream = TextStream::default();
                    let mut text = stream.push(&sample[..first]);
                    text += &stream.push(&sample[first..second]);
                    text += &stream.push(&sample[second..]);
                    text += &stream.flush();
                    assert_eq!(text, whole, "{sample:?} cut at {first} and {second}");
                }
            }
        }
    }
}
