//! The table that a SentencePiece model uses to rewrite text before cutting it (`tokenizer.ggml.precompiled_charsmap`).
//!
//! It begins with the length of a double array in bytes, as a u32; the array is followed by the replacements, each
//! terminated by a zero byte. The array is a trie of the texts to replace, in u32 units (darts-clone): bits 0 to 7 and
//! 31 are the label that a node must have, bit 8 says that an entry ends here, and bits 10 to 30 (times 256 if bit 9 is
//! set) lead from a node to its children by exclusive or.

use crate::Error;

/// Texts to replace have fewer bytes than this, and so do their replacements. NFKC needs at most 33.
const LONGEST: usize = 256;

/// A checked copy of the table.
pub(crate) struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// Parses and checks the table in these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |what: &str| Error::File(format!("tokenizer.ggml.precompiled_charsmap {what}"));
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(wrong(&format!("has {} bytes; expected at least the 4 of a length", bytes.len())));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length >= rest.len() || !length.is_multiple_of(4) {
            return Err(wrong(&format!(
                "says that its array has {length} bytes; expected a multiple of 4 below {}, the bytes that follow",
                rest.len()
            )));
        }
        let (array, replacements) = rest.split_at(length);
        if !replacements.ends_with(&[0]) {
            return Err(wrong("does not end with a zero byte, as its last replacement should"));
        }
        let mut copy = Self { units: Vec::new(), replacements: Vec::new() };
        copy.units.try_reserve_exact(length / 4)?;
        copy.units.extend(array.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])));
        copy.replacements.try_reserve_exact(replacements.len())?;
        copy.replacements.extend_from_slice(replacements);
        Ok(copy)
    }

    /// The longest prefix of `text` that is replaced: its length and its replacement.
    pub(crate) fn replacement(&self, text: &[u8]) -> Result<Option<(usize, &[u8])>, Error> {
        let mut longest = None;
        let mut at = children(self.unit(0)?);
        for (before, &byte) in text.iter().take(LONGEST).enumerate() {
            at ^= usize::from(byte);
            let unit = self.unit(at)?;
            if byte == 0 || unit & (1 << 31 | 0xFF) != u32::from(byte) {
                break;
            }
            at ^= children(unit);
            if unit & 1 << 8 != 0 {
                longest = Some((before + 1, self.unit(at)? & 0x7FFF_FFFF));
            }
        }
        let Some((length, start)) = longest else { return Ok(None) };
        let found = self.replacements.get(start as usize..).unwrap_or_default();
        match found.iter().take(LONGEST).position(|&byte| byte == 0) {
            Some(end) => Ok(Some((length, &found[..end]))),
            None => Err(outside()),
        }
    }

    fn unit(&self, at: usize) -> Result<u32, Error> {
        self.units.get(at).copied().ok_or_else(outside)
    }
}

/// The offset that leads from a node to its children.
fn children(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

fn outside() -> Error {
    Error::File("tokenizer.ggml.precompiled_charsmap points to where it has no node or no replacement".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table that replaces each first text with its second one, made by hand: every node has a block of 256 units.
    pub(crate) fn table(pairs: &[(&str, &str)]) -> Vec<u8> {
        let (mut units, mut replacements) = (vec![0_u32; 256], Vec::new());
        // The block of the children of every beginning that has any.
        let mut blocks = vec![(Vec::new(), 0_usize)];
        for (text, _) in pairs {
            for length in 1..=text.len() {
                let key = text.as_bytes()[..length].to_vec();
                if blocks.iter().all(|(other, _)| *other != key) {
                    blocks.push((key, units.len()));
                    units.resize(units.len() + 256, 0);
                }
            }
        }
        let block = |key: &[u8]| blocks.iter().find(|(other, _)| other == key).unwrap().1;
        let offset = |from: usize, to: usize| {
            let way = (from ^ to) as u32;
            if way < 1 << 21 { way << 10 } else { (way >> 8) << 10 | 1 << 9 }
        };
        for (key, start) in &blocks[1..] {
            let (last, parent) = (key[key.len() - 1], block(&key[..key.len() - 1]));
            let at = parent ^ usize::from(last);
            units[at] = offset(at, *start) | u32::from(last);
            if let Some((_, after)) = pairs.iter().find(|(text, _)| text.as_bytes() == key) {
                units[at] |= 1 << 8;
                units[*start] = replacements.len() as u32 | 1 << 31;
                replacements.extend_from_slice(after.as_bytes());
                replacements.push(0);
            }
        }
        units[0] |= offset(0, 0);
        let array: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(array.len() as u32).to_le_bytes()[..], &array, &replacements].concat()
    }

    #[test]
    fn the_longest_beginning_is_replaced() {
        let map = CharsMap::new(&table(&[("ab", "x"), ("abc", "yz"), ("é", "e"), ("\u{200b}", "")])).unwrap();
        let replaced = |text: &str| {
            map.replacement(text.as_bytes()).unwrap().map(|(n, t)| (n, String::from_utf8_lossy(t).into_owned()))
        };
        assert_eq!(replaced("abd"), Some((2, "x".to_owned())));
        assert_eq!(replaced("abcd"), Some((3, "yz".to_owned())));
        assert_eq!(replaced("éa"), Some((2, "e".to_owned())));
        assert_eq!(replaced("\u{200b}a"), Some((3, String::new())));
        assert_eq!(replaced("a"), None);
        assert_eq!(replaced(""), None);
    }

    #[test]
    fn damaged_tables_are_errors_and_never_more() {
        let whole = table(&[("ab", "x"), ("c", "y")]);
        for cut in 0..whole.len() {
            assert!(CharsMap::new(&whole[..cut]).is_err() || whole[..cut].ends_with(&[0]), "{cut}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                if let Ok(map) = CharsMap::new(&changed) {
                    for text in ["ab", "c", "abab", "\u{80}"] {
                        let _ = map.replacement(text.as_bytes());
                    }
                }
            }
        }
    }
}
