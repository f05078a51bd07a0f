//! The tokens of a vocabulary by their bytes, as a tree.

use crate::Error;

/// A byte of some tokens; its descendants follow it directly.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    /// Where the next node is that is no descendant.
    pub(crate) skip: u32,
    /// The first of the tokens that begin so, in [`Trie::tokens`]. The node's own come before its children's.
    pub(crate) first: u32,
    /// The number of bytes before this one.
    pub(crate) depth: u16,
    pub(crate) byte: u8,
}

/// A vocabulary as grammars see it.
pub struct Trie {
    /// Depth first, and a last one behind all of them.
    pub(crate) nodes: Vec<Node>,
    /// The ids of tokens that have a text, in the order of their texts.
    pub(crate) tokens: Vec<u32>,
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
        let nodes = nodes(&texts, &tokens);
        Ok(Self { nodes, tokens, texts, ends, others, longest })
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
    let mut previous: &[u8] = &[];
    for (place, id) in tokens.iter().enumerate() {
        let text = &texts[*id as usize];
        let shared = text.iter().zip(previous).take_while(|(one, other)| one == other).count();
        for open in path.drain(shared..) {
            nodes[open].skip = nodes.len() as u32;
        }
        for depth in shared..text.len() {
            path.push(nodes.len());
            nodes.push(Node { skip: 0, first: place as u32, depth: depth as u16, byte: text[depth] });
        }
        previous = text;
    }
    for open in path {
        nodes[open].skip = nodes.len() as u32;
    }
    nodes.push(Node { skip: nodes.len() as u32 + 1, first: tokens.len() as u32, depth: 0, byte: 0 });
    nodes
}
