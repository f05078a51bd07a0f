//! The tokens of a vocabulary as trees over their bytes.
//!
//! Tokens that are parts of words have separate trees, one without capitals and one with them, and other plain text has
//! another: inside a name or a string of a grammar, all of these tokens may come next, so the trees with the most
//! tokens need not be walked. Each node also records which kind of characters everything below it is made of, so that
//! parts of a tree need not be walked either.

use crate::Error;

/// A byte shared by some tokens; its descendants follow it directly.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    /// The index of the next node that is not a descendant.
    pub(crate) skip: u32,
    /// Index in [`Part::tokens`] of the first token with this prefix. The node's own tokens come before its children's.
    pub(crate) first: u32,
    /// The number of bytes before this one.
    pub(crate) depth: u16,
    pub(crate) byte: u8,
    /// The kind of characters that all texts with this prefix consist of after this byte.
    pub(crate) below: Kind,
}

/// Tokens that consist of one kind of characters.
pub(crate) struct Part {
    /// The kind of characters.
    pub(crate) kind: Kind,
    /// In depth-first order, followed by a sentinel.
    pub(crate) nodes: Vec<Node>,
    /// The token ids, in the order of their texts.
    pub(crate) tokens: Vec<u32>,
    /// The tokens, one bit per id.
    pub(crate) bits: Vec<u64>,
}

/// The kind of characters that a text consists of; each kind is a subset of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Lowercase ASCII letters.
    Small,
    /// ASCII letters, digits and `_`.
    Word,
    /// Whole characters that strings and comments hardly ever exclude: printable ASCII except `"`, `\` and `*`, and
    /// everything from U+00A0 on except the line and paragraph separators.
    Plain,
    /// Anything.
    Any,
}

impl Kind {
    /// The ASCII characters of this kind.
    pub(crate) fn ascii(self) -> impl Iterator<Item = u8> {
        (0..0x80).filter(move |byte: &u8| match self {
            Self::Small => byte.is_ascii_lowercase(),
            Self::Word => byte.is_ascii_alphanumeric() || *byte == b'_',
            Self::Plain => (b' '..0x7F).contains(byte) && !b"\"\\*".contains(byte),
            Self::Any => true,
        })
    }

    /// The non-ASCII characters of [`Kind::Plain`].
    pub(crate) const OTHERS: [(u32, u32); 3] = [(0xA0, 0x2027), (0x202A, 0xD7FF), (0xE000, 0x0010_FFFF)];

    fn of_character(character: char) -> Self {
        let is_plain = match u8::try_from(character) {
            Ok(b'a'..=b'z') => return Self::Small,
            Ok(b'_' | b'0'..=b'9' | b'A'..=b'Z') => return Self::Word,
            Ok(byte @ 0..0x80) => (b' '..0x7F).contains(&byte) && !b"\"\\*".contains(&byte),
            _ => Self::OTHERS.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(character))),
        };
        if is_plain { Self::Plain } else { Self::Any }
    }

    /// The kinds of all suffixes of a text, starting with the empty suffix. A suffix that starts inside a character is
    /// always [`Kind::Any`].
    fn of_ends(text: &[u8], ends: &mut Vec<Self>) {
        ends.clear();
        ends.resize(text.len() + 1, Self::Any);
        ends[0] = Self::Small;
        let mut kind = Self::Small;
        if let Ok(text) = std::str::from_utf8(text) {
            for (place, character) in text.char_indices().rev() {
                kind = kind.max(Self::of_character(character));
                ends[text.len() - place] = kind;
            }
        } else {
            for (place, byte) in text.iter().enumerate().rev() {
                kind = if byte.is_ascii() { kind.max(Self::of_character(char::from(*byte))) } else { Self::Any };
                ends[text.len() - place] = kind;
            }
        }
    }
}

/// A vocabulary in the form that grammars use.
pub struct Trie {
    /// One part per kind, in the order of the kinds.
    pub(crate) parts: [Part; 4],
    /// The text of each token.
    texts: Vec<Box<[u8]>>,
    /// Tokens that end a text, ascending.
    pub(crate) ends: Vec<u32>,
    /// Tokens that have a text or a name and do not end a text: those that `!<...>` may match.
    pub(crate) others: Vec<u64>,
    /// The longest text, in bytes.
    pub(crate) longest: usize,
}

impl Trie {
    /// Builds the trees. `texts` are the bytes of all tokens, empty for those without a text; `named` are tokens
    /// without a text that can be generated nevertheless, such as control tokens; `ends` are those that end a text.
    ///
    /// # Errors
    /// [`Error::Argument`] if an id in `named` or `ends` is not a token, or a text has more than 65535 bytes.
    pub fn new(texts: Vec<Box<[u8]>>, named: &[u32], ends: &[u32]) -> Result<Self, Error> {
        let count = texts.len();
        if let Some(id) = named.iter().chain(ends).find(|id| **id as usize >= count) {
            return Err(Error::Argument(format!("token {id}, but the vocabulary has {count} tokens")));
        }
        if let Some(id) = texts.iter().position(|text| text.len() > usize::from(u16::MAX)) {
            return Err(Error::Argument(format!(
                "token {id} has {} bytes, at most 65535 are allowed",
                texts[id].len()
            )));
        }
        let mut ends = ends.to_vec();
        ends.sort_unstable();
        ends.dedup();
        let is_end = |id: &u32| ends.binary_search(id).is_ok();
        let mut tokens: Vec<u32> =
            (0..count as u32).filter(|id| !texts[*id as usize].is_empty() && !is_end(id)).collect();
        let mut others = vec![0; count.div_ceil(64)];
        for id in tokens.iter().chain(named.iter().filter(|id| !is_end(id))) {
            others[*id as usize / 64] |= 1 << (id % 64);
        }
        tokens.sort_unstable_by(|one, other| texts[*one as usize].cmp(&texts[*other as usize]).then(one.cmp(other)));
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let mut ends_of = Vec::new();
        let mut of = |id: &u32| {
            Kind::of_ends(&texts[*id as usize], &mut ends_of);
            ends_of[texts[*id as usize].len()]
        };
        let parts = [Kind::Small, Kind::Word, Kind::Plain, Kind::Any].map(|kind| {
            let tokens: Vec<u32> = tokens.extract_if(.., |id| of(id) == kind).collect();
            let mut bits = vec![0; count.div_ceil(64)];
            for id in &tokens {
                bits[*id as usize / 64] |= 1 << (id % 64);
            }
            Part { kind, nodes: nodes(&texts, &tokens), tokens, bits }
        });
        Ok(Self { parts, texts, ends, others, longest })
    }

    /// Number of tokens, including those without a text.
    pub fn size(&self) -> usize {
        self.texts.len()
    }

    pub(crate) fn text(&self, id: u32) -> &[u8] {
        &self.texts[id as usize]
    }

    pub(crate) fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    pub(crate) fn is_other(&self, id: u32) -> bool {
        self.others[id as usize / 64] >> (id % 64) & 1 != 0
    }
}

fn nodes(texts: &[Box<[u8]>], tokens: &[u32]) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut path: Vec<usize> = Vec::new();
    let mut ends: Vec<Kind> = Vec::new();
    let mut previous: &[u8] = &[];
    for (place, id) in tokens.iter().enumerate() {
        let text = &texts[*id as usize];
        let shared = text.iter().zip(previous).take_while(|(one, other)| one == other).count();
        for open in path.drain(shared..) {
            nodes[open].skip = nodes.len() as u32;
        }
        for depth in shared..text.len() {
            path.push(nodes.len());
            nodes.push(Node {
                skip: 0,
                first: place as u32,
                depth: depth as u16,
                byte: text[depth],
                below: Kind::Small,
            });
        }
        Kind::of_ends(text, &mut ends);
        for (depth, open) in path.iter().enumerate() {
            nodes[*open].below = nodes[*open].below.max(ends[text.len() - depth - 1]);
        }
        previous = text;
    }
    for open in path {
        nodes[open].skip = nodes.len() as u32;
    }
    nodes.push(Node { skip: nodes.len() as u32 + 1, first: tokens.len() as u32, depth: 0, byte: 0, below: Kind::Any });
    nodes
}
