//! Finds the tokens that a text begins with: a trie over the bytes of a vocabulary, in four flat arrays.

use crate::Error;
use crate::error::shown;
use crate::vocabulary::Vocabulary;

/// Maximum length of a token, in bytes. Looking one up takes a step per byte, at every position of a text, so longer
/// tokens in a hostile file could make any text slow. Tokens of real vocabularies stay below a hundred.
pub(crate) const LONGEST: usize = 512;

/// Marks nodes where no token ends.
const NONE: u32 = u32::MAX;

/// A trie of tokens that share prefixes.
pub(crate) struct Prefixes {
    /// The first child of each node; the next node's first child ends the range.
    children: Vec<u32>,
    /// The last byte of each node; the children of a node are in ascending order.
    bytes: Vec<u8>,
    /// The token that ends at each node.
    tokens: Vec<u32>,
    /// The children of the root, indexed by byte.
    roots: [u32; 256],
}

impl Prefixes {
    /// Builds the trie of the tokens for which `is_wanted` is true. Among tokens with the same text, the last one counts.
    pub(crate) fn new(vocabulary: &Vocabulary, is_wanted: impl Fn(u32) -> bool) -> Result<Self, Error> {
        let mut sorted: Vec<u32> = Vec::new();
        for id in (0..vocabulary.len() as u32).filter(|&id| is_wanted(id)) {
            let text = vocabulary.bytes(id);
            if text.len() > LONGEST {
                return Err(Error::Unsupported(format!(
                    "token {id}, {}, has {} bytes; at most {LONGEST} are supported in such a vocabulary",
                    shown(text),
                    text.len()
                )));
            }
            if !text.is_empty() {
                sorted.try_reserve(1)?;
                sorted.push(id);
            }
        }
        sorted
            .sort_unstable_by(|&one, &other| vocabulary.bytes(one).cmp(vocabulary.bytes(other)).then(one.cmp(&other)));
        let mut trie = Self { children: Vec::new(), bytes: Vec::new(), tokens: Vec::new(), roots: [NONE; 256] };
        // In breadth-first order: for each node, the range of sorted tokens that go through it, and its depth.
        let mut waiting: Vec<(u32, u32, u32)> = Vec::new();
        trie.add_children(vocabulary, &sorted, (0, sorted.len() as u32, 0), &mut waiting)?;
        for (node, &byte) in trie.bytes.iter().enumerate() {
            trie.roots[usize::from(byte)] = node as u32;
        }
        let mut next = 0;
        while next < waiting.len() {
            trie.children.try_reserve(1)?;
            trie.children.push(trie.bytes.len() as u32);
            trie.add_children(vocabulary, &sorted, waiting[next], &mut waiting)?;
            next += 1;
        }
        trie.children.try_reserve(1)?;
        trie.children.push(trie.bytes.len() as u32);
        Ok(trie)
    }

    /// Appends the children of a node.
    fn add_children(
        &mut self,
        vocabulary: &Vocabulary,
        sorted: &[u32],
        (mut first, last, depth): (u32, u32, u32),
        waiting: &mut Vec<(u32, u32, u32)>,
    ) -> Result<(), Error> {
        let byte_of = |at: u32| vocabulary.bytes(sorted[at as usize]).get(depth as usize).copied();
        // Tokens that end here come before those that continue.
        while first < last && byte_of(first).is_none() {
            first += 1;
        }
        while first < last {
            let byte = byte_of(first);
            let rest = &sorted[first as usize..last as usize];
            let count = rest.partition_point(|&id| vocabulary.bytes(id).get(depth as usize).copied() <= byte) as u32;
            let ends = rest[..count as usize].iter().take_while(|&&id| vocabulary.bytes(id).len() as u32 == depth + 1);
            let token = ends.last().copied().unwrap_or(NONE);
            self.bytes.try_reserve(1)?;
            self.tokens.try_reserve(1)?;
            waiting.try_reserve(1)?;
            self.bytes.extend(byte);
            self.tokens.push(token);
            waiting.push((first, first + count, depth + 1));
            first += count;
        }
        Ok(())
    }

    /// The tokens that `text` begins with, shortest first, as pairs of length and id.
    #[inline]
    pub(crate) fn of<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = text.first().map_or(NONE, |&byte| self.roots[usize::from(byte)]);
        let mut length = 1;
        std::iter::from_fn(move || {
            while node != NONE {
                let found = (length, self.tokens[node as usize]);
                node = text.get(length).map_or(NONE, |&byte| self.child(node, byte));
                length += 1;
                if found.1 != NONE {
                    return Some(found);
                }
            }
            None
        })
    }

    #[inline]
    fn child(&self, node: u32, byte: u8) -> u32 {
        let (first, last) = (self.children[node as usize], self.children[node as usize + 1]);
        match self.bytes[first as usize..last as usize].binary_search(&byte) {
            Ok(at) => first + at as u32,
            Err(_) => NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::tests::array;

    #[test]
    fn prefixes_are_those_of_a_search_through_all_tokens() {
        let mut state = 5_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let mut word =
                |longest: u64| -> String { (0..random(longest)).map(|_| char::from(b'a' + random(3) as u8)).collect() };
            let texts: Vec<String> = (0..20).map(|_| word(6)).collect();
            let text = word(12);
            let (data, index) = array(&texts);
            let vocabulary = Vocabulary::new(&data, &index, None, false).unwrap();
            let trie = Prefixes::new(&vocabulary, |id| id % 7 != 3).unwrap();
            let mut expected: Vec<(usize, u32)> = Vec::new();
            for length in 1..=text.len() {
                let mut same = (0..20).filter(|&id| id % 7 != 3 && texts[id as usize] == text[..length]);
                expected.extend(same.next_back().map(|id| (length, id)));
            }
            assert_eq!(trie.of(text.as_bytes()).collect::<Vec<_>>(), expected, "{texts:?} in {text:?}");
        }
    }

    #[test]
    fn too_long_tokens_are_refused() {
        let (data, index) = array(&["a".repeat(LONGEST), "b".repeat(LONGEST + 1)]);
        let vocabulary = Vocabulary::new(&data, &index, None, false).unwrap();
        assert!(Prefixes::new(&vocabulary, |id| id == 0).is_ok());
        let error = Prefixes::new(&vocabulary, |_| true).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("token 1") && error.contains("513 bytes"), "{error}");
    }
}
