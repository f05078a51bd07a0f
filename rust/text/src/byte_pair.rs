//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): merges are listed in the file, the first is the most urgent.

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::error::shown;
use crate::merging::{Join, Pairs, Scratch, Symbol, merge};
use crate::pre_tokenizer::PreTokenizer;
use crate::vocabulary::Vocabulary;
use crate::{Error, Index, byte_level};

/// One line of the merge list: what stands left and right, its rank, and what they become.
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
    /// The symbol of every single byte.
    bytes: [u32; 256],
    words: PreTokenizer,
}

impl BytePairs {
    /// Reads the merge list. Symbols that are no tokens get ids of their own in `vocabulary`: merging may pass through them.
    pub(crate) fn new(
        vocabulary: &mut Vocabulary,
        data: &[u8],
        index: &Index,
        words: PreTokenizer,
    ) -> Result<Self, Error> {
        let count = index.offsets.len().saturating_sub(1);
        let mut bytes = [0; 256];
        for byte in 0..=u8::MAX {
            bytes[usize::from(byte)] = vocabulary.intern(&[byte])?;
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
            // Words are written in the alphabet of bytes, so that no other merge can ever apply.
            if !byte_level::decode_into(&text[..space], &mut pair) {
                continue;
            }
            let middle = pair.len();
            if !byte_level::decode_into(&text[space + 1..], &mut pair) {
                continue;
            }
            let left = vocabulary.intern(&pair[..middle])?;
            let right = vocabulary.intern(&pair[middle..])?;
            let merge = Merge { left, right, rank: rank as u32, joined: vocabulary.intern(&pair)? };
            // Of equal merges the first one counts.
            let found = merges.entry(
                hash(&hasher, left, right),
                |other: &Merge| (other.left, other.right) == (left, right),
                |other| hash(&hasher, other.left, other.right),
            );
            if let Entry::Vacant(entry) = found {
                entry.insert(merge);
            }
        }
        Ok(Self { merges, hasher, bytes, words })
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &[u8],
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let whole_words = self.words.keeps_whole_words();
        self.words.split(text, &mut |word| {
            if let [byte] = word {
                return self.push(vocabulary, self.bytes[usize::from(*byte)], word, ids);
            }
            if whole_words
                && let Some(id) = vocabulary.find(word)
                && vocabulary.is_token(id)
            {
                ids.try_reserve(1)?;
                ids.push(id);
                return Ok(());
            }
            work.symbols.clear();
            work.symbols.try_reserve(word.len())?;
            work.symbols.extend(word.iter().enumerate().map(|(at, &byte)| Symbol {
                start: at as u32,
                length: 1,
                id: self.bytes[usize::from(byte)],
            }));
            merge(self, word, &mut work.symbols, &mut work.scratch)?;
            for symbol in &work.symbols {
                let bytes = &word[symbol.start as usize..(symbol.start + symbol.length) as usize];
                self.push(vocabulary, symbol.id, bytes, ids)?;
            }
            Ok(())
        })
    }

    /// A symbol that is no token becomes the tokens of its bytes; a byte without a token has no place in the vocabulary.
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

/// Working memory of one call.
#[derive(Default)]
pub(crate) struct Work {
    symbols: Vec<Symbol>,
    scratch: Scratch,
}

fn hash(hasher: &DefaultHashBuilder, left: u32, right: u32) -> u64 {
    hasher.hash_one(u64::from(left) << 32 | u64::from(right))
}

/// The first space that has something before it: a token of an odd vocabulary may begin with one.
fn split(text: &[u8]) -> Option<usize> {
    let space = text.iter().skip(1).position(|&byte| byte == b' ')? + 1;
    (space + 1 < text.len()).then_some(space)
}
