//! The tokens of a file: their bytes in a single block of memory, and a table from bytes to ids.

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::{Error, Index, byte_level};

/// Far more than any vocabulary has; ids, including those that merging adds, stay within 32 bits.
const MOST_TOKENS: usize = 1 << 28;

/// The purpose of a token: `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text made by merging. Undefined and unknown type numbers count as normal.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// Part of the structure of a conversation rather than text.
    Control,
    /// Added by hand: matched in any text before everything else.
    UserDefined,
    /// Never used.
    Unused,
    /// One byte of a character that has no token.
    Byte,
}

impl Kind {
    /// The kind for a type number in the file.
    pub fn of(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// Whether the text of the token is meant literally rather than written in the vocabulary's alphabet.
    fn is_literal(self) -> bool {
        matches!(self, Self::Unknown | Self::Control | Self::UserDefined)
    }
}

/// The tokens. Ids below [`Vocabulary::len`] are tokens; higher ones are texts that merging passes through.
pub(crate) struct Vocabulary {
    /// The bytes of all tokens, stored consecutively: what they stand for in a byte-level vocabulary, otherwise their text.
    arena: Vec<u8>,
    /// The start of each token's bytes, and the end of the last one's.
    offsets: Vec<u32>,
    kinds: Vec<Kind>,
    /// Whether the bytes of a token are its text as stored in the file.
    literal: Vec<bool>,
    by_bytes: HashTable<u32>,
    hasher: DefaultHashBuilder,
    byte_level: bool,
    longest: usize,
}

impl Vocabulary {
    /// Copies the strings that `index` found in `data`. `kinds` has one type number per token, or is absent.
    pub(crate) fn new(data: &[u8], index: &Index, kinds: Option<&[i32]>, byte_level: bool) -> Result<Self, Error> {
        let count = index.offsets.len().saturating_sub(1);
        if count == 0 {
            return Err(Error::File("the vocabulary has no tokens".to_owned()));
        }
        if count > MOST_TOKENS {
            return Err(Error::Unsupported(format!(
                "{count} tokens are too many: at most {MOST_TOKENS} are supported"
            )));
        }
        if let Some(kinds) = kinds
            && kinds.len() != count
        {
            return Err(Error::File(format!(
                "{count} tokens, but {} token types; one for each is needed",
                kinds.len()
            )));
        }
        let mut vocabulary = Self {
            arena: Vec::new(),
            offsets: Vec::new(),
            kinds: Vec::new(),
            literal: Vec::new(),
            by_bytes: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            byte_level,
            longest: 0,
        };
        vocabulary.offsets.try_reserve_exact(count + 1)?;
        vocabulary.kinds.try_reserve_exact(count)?;
        vocabulary.literal.try_reserve_exact(count)?;
        // The table is still empty, so nothing is rehashed.
        vocabulary.by_bytes.try_reserve(count, |_| 0).map_err(|_| Error::Memory)?;
        vocabulary.offsets.push(0);
        for (id, text) in index.strings(data).enumerate() {
            let kind = kinds.map_or(Kind::Normal, |kinds| Kind::of(kinds[id]));
            vocabulary.push(text?, kind)?;
        }
        vocabulary.fill_table();
        Ok(vocabulary)
    }

    fn push(&mut self, text: &[u8], kind: Kind) -> Result<(), Error> {
        self.arena.try_reserve(text.len())?;
        let literal = !self.byte_level || kind.is_literal() || !byte_level::decode_into(text, &mut self.arena);
        if literal {
            self.arena.extend_from_slice(text);
        }
        let end = u32::try_from(self.arena.len())
            .map_err(|_| Error::Unsupported("a vocabulary of 4 GiB of text or more is not supported".to_owned()))?;
        self.offsets.push(end);
        self.kinds.push(kind);
        self.literal.push(literal);
        Ok(())
    }

    /// Among tokens with the same bytes, the last one counts, except that text written in the alphabet takes precedence
    /// over literal text.
    fn fill_table(&mut self) {
        let Self { arena, offsets, literal, by_bytes, hasher, longest, .. } = self;
        let bytes = |id: u32| &arena[offsets[id as usize] as usize..offsets[id as usize + 1] as usize];
        for id in 0..literal.len() as u32 {
            let text = bytes(id);
            if text.is_empty() {
                continue;
            }
            *longest = text.len().max(*longest);
            match by_bytes.entry(hasher.hash_one(text), |&other| bytes(other) == text, |&id| hasher.hash_one(bytes(id)))
            {
                Entry::Occupied(mut entry) => {
                    if literal[*entry.get() as usize] || !literal[id as usize] {
                        *entry.get_mut() = id;
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(id);
                }
            }
        }
    }

    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether `id` is a token of the file.
    pub(crate) fn is_token(&self, id: u32) -> bool {
        (id as usize) < self.kinds.len()
    }

    /// Checks that there is one score per token and that none is NaN.
    pub(crate) fn checked_scores<'a>(&self, scores: Option<&'a [f32]>) -> Result<Option<&'a [f32]>, Error> {
        let Some(found) = scores else { return Ok(None) };
        if found.len() != self.len() {
            return Err(Error::File(format!(
                "{} tokens, but {} scores; one for each is needed",
                self.len(),
                found.len()
            )));
        }
        match found.iter().position(|score| score.is_nan()) {
            Some(id) => Err(Error::File(format!("the score of token {id} is not a number"))),
            None => Ok(scores),
        }
    }

    /// The bytes of a token, or an empty slice for an id that does not exist.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        match self.offsets.get(id as usize..) {
            Some([start, end, ..]) => &self.arena[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// The kind of a token.
    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Changes the kind of a token.
    pub(crate) fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(old) = self.kinds.get_mut(id as usize) {
            *old = kind;
        }
    }

    /// The text of a token as stored in the file; invalid UTF-8 is shown as U+FFFD.
    pub(crate) fn piece(&self, id: u32) -> String {
        if self.literal.get(id as usize) == Some(&false) {
            byte_level::encode(self.bytes(id))
        } else {
            String::from_utf8_lossy(self.bytes(id)).into_owned()
        }
    }

    /// The id of the token with this text in the file.
    pub(crate) fn token(&self, text: &str) -> Option<u32> {
        let mut raw = Vec::new();
        let raw = if self.byte_level && byte_level::decode_into(text.as_bytes(), &mut raw) { &raw[..] } else { &[] };
        let ids = [self.find(raw), self.find(text.as_bytes())];
        ids.into_iter().flatten().find(|&id| self.is_token(id) && self.piece(id) == text)
    }

    /// The id with exactly these bytes.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.is_empty() || bytes.len() > self.longest {
            return None;
        }
        self.by_bytes.find(self.hasher.hash_one(bytes), |&id| self.bytes(id) == bytes).copied()
    }

    /// The id with these bytes; if there is none, a new one beyond the tokens.
    pub(crate) fn intern(&mut self, bytes: &[u8]) -> Result<u32, Error> {
        if let Some(id) = self.find(bytes) {
            return Ok(id);
        }
        let id = u32::try_from(self.offsets.len() - 1)
            .map_err(|_| Error::Unsupported("a vocabulary with that many merges is not supported".to_owned()))?;
        self.arena.try_reserve(bytes.len())?;
        self.arena.extend_from_slice(bytes);
        let end = u32::try_from(self.arena.len())
            .map_err(|_| Error::Unsupported("a vocabulary of 4 GiB of text or more is not supported".to_owned()))?;
        self.offsets.try_reserve(1)?;
        self.offsets.push(end);
        self.longest = self.longest.max(bytes.len());
        let Self { arena, offsets, by_bytes, hasher, .. } = self;
        let hash =
            |&id: &u32| hasher.hash_one(&arena[offsets[id as usize] as usize..offsets[id as usize + 1] as usize]);
        by_bytes.try_reserve(1, hash).map_err(|_| Error::Memory)?;
        by_bytes.insert_unique(hasher.hash_one(bytes), id, hash);
        Ok(id)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::index_strings;

    /// A string array as a file has it, and its index.
    pub(crate) fn array<T: AsRef<[u8]>>(strings: &[T]) -> (Vec<u8>, Index) {
        let mut data = Vec::new();
        for text in strings {
            data.extend((text.as_ref().len() as u64).to_le_bytes());
            data.extend(text.as_ref());
        }
        let index = index_strings(&data, 0, strings.len() as u64).unwrap();
        (data, index)
    }

    fn vocabulary<T: AsRef<[u8]>>(tokens: &[T], kinds: Option<&[i32]>, byte_level: bool) -> Vocabulary {
        let (data, index) = array(tokens);
        Vocabulary::new(&data, &index, kinds, byte_level).unwrap()
    }

    #[test]
    fn tokens_are_found_by_bytes_and_by_text() {
        let found = vocabulary(&["\u{120}a", "<|x|>", "\u{2581}b", ""], Some(&[1, 3, 1, 1]), true);
        assert_eq!(found.find(b" a"), Some(0));
        assert_eq!(found.token("\u{120}a"), Some(0));
        assert_eq!(found.token(" a"), None);
        assert_eq!(found.token("<|x|>"), Some(1));
        assert_eq!(found.token("\u{2581}b"), Some(2));
        assert_eq!(found.token(""), None);
        assert_eq!(found.piece(0), "\u{120}a");
        assert_eq!(found.kind(1), Kind::Control);
        assert_eq!(found.bytes(99), b"");
    }

    #[test]
    fn the_last_of_equal_tokens_counts() {
        assert_eq!(vocabulary(&["a", "b", "a"], None, false).find(b"a"), Some(2));
        assert_eq!(vocabulary(&["\u{120}", " "], None, true).find(b" "), Some(0));
        assert_eq!(vocabulary(&[" ", "\u{120}"], None, true).find(b" "), Some(1));
    }

    #[test]
    fn broken_text_is_kept() {
        let found = vocabulary(&[&b"\xff\xfe"[..], b"ok"], None, false);
        assert_eq!(found.bytes(0), b"\xff\xfe");
        assert_eq!(found.piece(0), "\u{fffd}\u{fffd}");
        assert_eq!(found.find(b"\xff\xfe"), Some(0));
    }

    #[test]
    fn new_texts_get_ids_beyond_the_tokens() {
        let mut found = vocabulary(&["a"], None, false);
        assert_eq!(found.intern(b"a").unwrap(), 0);
        let id = found.intern(b"abc").unwrap();
        assert!(!found.is_token(id));
        assert_eq!((found.find(b"abc"), found.bytes(id), found.len()), (Some(id), &b"abc"[..], 1));
    }

    #[test]
    fn counts_must_agree() {
        let (data, index) = array(&["a", "b"]);
        assert!(Vocabulary::new(&data, &index, Some(&[1]), false).is_err());
        let (data, index) = array::<&str>(&[]);
        assert!(Vocabulary::new(&data, &index, None, false).is_err());
    }
}
