//! The tokens of a vocabulary by their bytes, as trees.
//!
//! There is a tree of its own for the tokens that are parts of words, with capitals or without, and one for other plain
//! text: inside a name or a string of a grammar all of them go on with it, and then no tree of so many tokens has to be
//! walked. Each node says of which characters all that follows is made, so that a part of a tree need not be walked either.

use crate::Error;

/// A byte of some tokens; its descendants follow it directly.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    /// Where the next node is that is no descendant.
    pub(crate) skip: u32,
    /// The first of the tokens that begin so, in [`Part::tokens`]. The node's own come before its children's.
    pub(crate) first: u32,
    /// The number of bytes before this one.
    pub(crate) depth: u16,
    pub(crate) byte: u8,
    /// Of which characters all the texts are made that begin so, behind this byte.
    pub(crate) below: Kind,
}

/// Tokens made of some characters.
pub(crate) struct Part {
    /// Which characters.
    pub(crate) kind: Kind,
    /// Depth first, and a last one behind all of them.
    pub(crate) nodes: Vec<Node>,
    /// The ids of the tokens, in the order of their texts.
    pub(crate) tokens: Vec<u32>,
    /// The tokens, a bit for each id.
    pub(crate) bits: Vec<u64>,
}

/// Of which characters a text is made; each kind is among those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Small ASCII letters.
    Small,
    /// ASCII letters, digits and `_`.
    Word,
    /// Whole characters that strings and comments hardly ever leave out: printable ASCII without `"`, `\` and `*`, and
    /// what is from U+00A0 on, without the separators of lines and paragraphs.
    Plain,
    /// Anything.
    Any,
}

impl Kind {
    /// The ASCII characters.
    pub(crate) fn ascii(self) -> impl Iterator<Item = u8> {
        (0..0x80).filter(move |byte: &u8| match self {
            Self::Small => byte.is_ascii_lowercase(),
            Self::Word => byte.is_ascii_alphanumeric() || *byte == b'_',
            Self::Plain => (b' '..0x7F).contains(byte) && !b"\"\\*".contains(byte),
            Self::Any => true,
        })
    }

    /// The other characters of [`Kind::Plain`].
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

    /// The kinds of the ends of a text, from each byte on; of the empty end first. Between the bytes of a character there
    /// is only [`Kind::Any`].
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

/// A vocabulary as grammars see it.
pub struct Trie {
    /// Of each kind, in their order.
    pub(crate) parts: [Part; 4],
    /// Of each token.
    texts: Vec<Box<[u8]>>,
    /// Tokens that end a text, ascending.
    pub(crate) ends: Vec<u32>,
    /// Tokens that have a text or a name, and do not end a text: those that `!<...>` may stand for.
    pub(crate) others: Vec<u64>,
    /// The longest text, in bytes.
    pub(crate) longest: usize,
}

impl Trie {
    /// `texts` are the bytes of all tokens, empty for those without a text; `named` are those without a text that can
    /// be written nevertheless, such as control tokens; `ends` those that end a text.
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

    /// Number of tokens, those without a text included.
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
