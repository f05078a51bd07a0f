//! The alphabet of byte-level BPE, which maps every byte to a printable character.
//!
//! GPT-2 (Radford et al. 2019, `bytes_to_unicode`) writes a byte as the character with the same code if that is
//! printable and not a space (33–126, 161–172, 174–255), and maps the other 68 bytes in order to U+0100 and up.

/// The character for each of the 256 bytes.
const CHARACTERS: [char; 256] = characters();

/// The byte for each character up to the last one of the alphabet; `NONE` for characters outside it.
const BYTES: [u16; LAST + 1] = bytes();

const LAST: usize = 0x100 + 67;
const NONE: u16 = u16::MAX;

const fn is_itself(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

const fn characters() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100_u32;
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if is_itself(byte as u8) {
            byte as u8 as char
        } else {
            next += 1;
            match char::from_u32(next - 1) {
                Some(character) => character,
                None => panic!("the alphabet lies below the surrogates"),
            }
        };
        byte += 1;
    }
    table
}

const fn bytes() -> [u16; LAST + 1] {
    let mut table = [NONE; LAST + 1];
    let mut byte = 0;
    while byte < 256 {
        table[CHARACTERS[byte] as usize] = byte as u16;
        byte += 1;
    }
    table
}

/// Writes bytes in the byte-level alphabet.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| CHARACTERS[usize::from(byte)]).collect()
}

/// Appends the bytes that `text` stands for to `out`, or returns `false` and appends nothing if it is not written in
/// the alphabet.
pub(crate) fn decode_into(text: &[u8], out: &mut Vec<u8>) -> bool {
    let before = out.len();
    let mut rest = text;
    // The alphabet only has characters that take one or two bytes in UTF-8.
    while let [first, after @ ..] = rest {
        let (code, after) = match (first, after) {
            (0..0x80, _) => (usize::from(*first), after),
            (0xC2..0xE0, [second @ 0x80..0xC0, after @ ..]) => {
                (usize::from(first & 0x1F) << 6 | usize::from(second & 0x3F), after)
            }
            _ => (usize::MAX, after),
        };
        match BYTES.get(code) {
            Some(&byte) if byte != NONE => out.push(byte as u8),
            _ => {
                out.truncate(before);
                return false;
            }
        }
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all);
        let mut characters: Vec<char> = text.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        assert_eq!(characters.len(), 256);
        assert!(text.chars().all(|character| !character.is_whitespace() && !character.is_control()));
        let mut back = vec![7];
        assert!(decode_into(text.as_bytes(), &mut back));
        assert_eq!(back[1..], all);
    }

    #[test]
    fn known_characters() {
        assert_eq!(encode(b" \n\tA~"), "\u{120}\u{10a}\u{109}A~");
        assert_eq!(encode(&[0, 127, 173, 255]), "\u{100}\u{121}\u{143}\u{ff}");
    }

    #[test]
    fn other_text_is_refused_and_leaves_no_trace() {
        for text in ["a b", "\u{144}", "abc\u{2581}", "\n", "\u{7f}", "\u{ad}"] {
            let mut out = b"kept".to_vec();
            assert!(!decode_into(text.as_bytes(), &mut out), "{text:?}");
            assert_eq!(out, b"kept");
        }
        for bytes in [&b"\xff"[..], b"a\xc3", b"\xc0\x80", b"\xc3a"] {
            assert!(!decode_into(bytes, &mut Vec::new()), "{bytes:?}");
        }
    }
}
