//! BPE with a list of merges (`tokenizer.ggml.model` = `gpt2`), the most urgent first. Merging starts from the bytes of
//! a word or, for a few vocabularies, from its characters.

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::error::shown;
use crate::merging::{Join, MergeBuffers, Pairs, Symbol, merge};
use crate::pre_tokenizer::{PreTokenizer, Symbols};
use crate::sentence_piece::SPACE;
use crate::utf8::character_length;
use crate::vocabulary::Vocabulary;
use crate::{Error, Index, byte_level};

/// One line of the merge list: its left and right symbols, its rank, and the symbol that they become.
#[derive(Clone, Copy)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    joined: u32,
}

/// The merges of a vocabulary, and how text is cut into words before they apply.
pub(crate) struct BytePairs {
    merges: HashTable<Merge>,
    hasher: DefaultHashBuilder,
    /// The symbol of each single byte; in vocabularies without byte letters, the byte's token.
    bytes: [u32; 256],
    words: PreTokenizer,
    white_space: WhiteSpace,
}

/// How white space is treated before text is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteSpace {
    /// It is part of the words, as determined by their rule.
    Kept,
    /// It separates words and is dropped.
    Dropped,
    /// The same, and letters are lowercased.
    DroppedAndLowercase,
}

impl BytePairs {
    /// Reads the merge list. Symbols that are not tokens get their own ids in `vocabulary`, since merging may pass
    /// through them.
    pub(crate) fn new(
        vocabulary: &mut Vocabulary,
        data: &[u8],
        index: &Index,
        words: PreTokenizer,
        white_space: WhiteSpace,
    ) -> Result<Self, Error> {
        let count = index.offsets.len().saturating_sub(1);
        let of_bytes = words.symbols() == Symbols::Bytes;
        let mut bytes = [NO_TOKEN; 256];
        for byte in 0..=u8::MAX {
            bytes[usize::from(byte)] = if of_bytes {
                vocabulary.intern(&[byte])?
            } else {
                vocabulary.find(format!("<0x{byte:02X}>").as_bytes()).unwrap_or(NO_TOKEN)
            };
        }
        let mut merges = HashTable::new();
        let hasher = DefaultHashBuilder::default();
        merges.try_reserve(count, |merge: &Merge| hash(&hasher, merge.left, merge.right)).map_err(|_| Error::Memory)?;
        let mut pair = Vec::new();
        for (rank, text) in index.strings(data).enumerate() {
            let text = text?;
            let space = split(text).ok_or_else(|| {
                Error::File(format!(
                    "merge {rank} of the vocabulary is {}; expected two parts with a space between",
                    shown(text)
                ))
            })?;
            pair.clear();
            // Words are written in the byte-level alphabet, so a merge that is not can never apply.
            let mut write = |part: &[u8]| {
                if of_bytes {
                    return byte_level::decode_into(part, &mut pair).then_some(pair.len());
                }
                pair.extend_from_slice(part);
                Some(pair.len())
            };
            let Some(middle) = write(&text[..space]) else { continue };
            if write(&text[space + 1..]).is_none() {
                continue;
            }
            let left = vocabulary.intern(&pair[..middle])?;
            let right = vocabulary.intern(&pair[middle..])?;
            let merge = Merge { left, right, rank: rank as u32, joined: vocabulary.intern(&pair)? };
            // Among duplicate merges, the first one counts.
            let found = merges.entry(
                hash(&hasher, left, right),
                |other: &Merge| (other.left, other.right) == (left, right),
                |other| hash(&hasher, other.left, other.right),
            );
            if let Entry::Vacant(entry) = found {
                entry.insert(merge);
            }
        }
        Ok(Self { merges, hasher, bytes, words, white_space })
    }

    /// Whether U+2581 in a token stands for a space.
    pub(crate) fn marks_spaces(&self) -> bool {
        self.words.symbols() == Symbols::CharactersAndMarkedSpaces
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &[u8],
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        if self.white_space != WhiteSpace::Kept {
            let mut segment = std::mem::take(&mut work.text);
            segment.clear();
            let mut at = 0;
            while at < text.len() {
                let length = character_length(&text[at..]);
                let bytes = &text[at..at + length];
                let character = std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next());
                at += length;
                if character.is_some_and(char::is_whitespace) {
                    self.encode_part(vocabulary, &segment, work, ids)?;
                    segment.clear();
                    continue;
                }
                segment.try_reserve(4)?;
                match character {
                    Some(character) if self.white_space == WhiteSpace::DroppedAndLowercase => {
                        let small = character.to_lowercase().next().unwrap_or(character);
                        segment.extend_from_slice(small.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    _ => segment.extend_from_slice(bytes),
                }
            }
            self.encode_part(vocabulary, &segment, work, ids)?;
            work.text = segment;
            return Ok(());
        }
        if !self.marks_spaces() {
            return self.encode_part(vocabulary, text, work, ids);
        }
        let mut marked = std::mem::take(&mut work.text);
        marked.clear();
        for (number, part) in text.split(|&byte| byte == b' ').enumerate() {
            marked.try_reserve(part.len() + SPACE.len())?;
            if number > 0 {
                marked.extend_from_slice(SPACE.as_bytes());
            }
            marked.extend_from_slice(part);
        }
        self.encode_part(vocabulary, &marked, work, ids)?;
        work.text = marked;
        Ok(())
    }

    fn encode_part(
        &self,
        vocabulary: &Vocabulary,
        text: &[u8],
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let whole_words = self.words.keeps_whole_words();
        let of_bytes = self.words.symbols() == Symbols::Bytes;
        self.words.split(text, &mut |word| {
            if let ([byte], true) = (word, of_bytes) {
                return self.push(vocabulary, self.bytes[usize::from(*byte)], word, ids);
            }
            // Consecutive line ends stay together in vocabularies that mark spaces: no merge produces their tokens.
            let may_be_whole = whole_words || (self.marks_spaces() && word.iter().all(|&byte| byte == b'\n'));
            if may_be_whole
                && let Some(id) = vocabulary.find(word)
                && vocabulary.is_token(id)
            {
                ids.try_reserve(1)?;
                ids.push(id);
                return Ok(());
            }
            work.symbols.clear();
            work.symbols.try_reserve(word.len())?;
            let mut start = 0;
            while start < word.len() {
                let length = if of_bytes { 1 } else { character_length(&word[start..]) };
                let id = if of_bytes {
                    self.bytes[usize::from(word[start])]
                } else {
                    vocabulary.find(&word[start..start + length]).unwrap_or(NO_TOKEN)
                };
                work.symbols.push(Symbol { start: start as u32, length: length as u32, id });
                start += length;
            }
            merge(self, word, &mut work.symbols, &mut work.scratch)?;
            for symbol in &work.symbols {
                let bytes = &word[symbol.start as usize..(symbol.start + symbol.length) as usize];
                self.push(vocabulary, symbol.id, bytes, ids)?;
            }
            Ok(())
        })
    }

    /// A symbol that is not a token becomes the tokens of its bytes; bytes without a token are dropped.
    fn push(&self, vocabulary: &Vocabulary, id: u32, bytes: &[u8], ids: &mut Vec<u32>) -> Result<(), Error> {
        ids.try_reserve(bytes.len())?;
        if vocabulary.is_token(id) {
            ids.push(id);
        } else {
            let single = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
            ids.extend(single.filter(|&id| vocabulary.is_token(id)));
        }
        Ok(())
    }
}

impl Pairs for BytePairs {
    #[inline]
    fn join(&self, _: &[u8], left: Symbol, right: Symbol) -> Option<Join> {
        let (left, right) = (left.id, right.id);
        let found =
            self.merges.find(hash(&self.hasher, left, right), |merge| (merge.left, merge.right) == (left, right));
        found.map(|merge| Join { priority: merge.rank, id: merge.joined })
    }
}

/// The symbol of a character that is not a token.
const NO_TOKEN: u32 = u32::MAX;

/// Working memory of one call.
#[derive(Default)]
pub(crate) struct Work {
    text: Vec<u8>,
    symbols: Vec<Symbol>,
    scratch: MergeBuffers,
}

fn hash(hasher: &DefaultHashBuilder, left: u32, right: u32) -> u64 {
    hasher.hash_one(u64::from(left) << 32 | u64::from(right))
}

/// The first space with something before it: tokens of an unusual vocabulary may begin with a space.
fn split(text: &[u8]) -> Option<usize> {
    let space = text.iter().skip(1).position(|&byte| byte == b' ')? + 1;
    (space + 1 < text.len()).then_some(space)
}
