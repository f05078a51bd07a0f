//! From bytes to classes of characters: an automaton that has read the beginning of a character and knows what may follow.

use hashbrown::HashMap;

use super::characters::{Classes, LAST, NO_CLASS};

/// A transition of the automaton.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Next {
    /// No character of any set begins this way.
    None,
    /// A character of this class is complete.
    Class(u32),
    /// The beginning of a character has been read.
    Node(u32),
}

/// The automaton of a grammar. Beginnings with identical continuations share one node.
pub(crate) struct Utf8 {
    pub(crate) classes: Classes,
    /// The transition for each possible first byte.
    first: [Next; 256],
    /// For each node, the transition for each continuation byte.
    nodes: Vec<[Next; 64]>,
    numbers: HashMap<[Next; 64], u32>,
    /// The classes that can follow each node.
    reachable: Vec<Vec<u32>>,
    /// Bytes that no node distinguishes share a column; column 0 leads nowhere.
    columns: [u8; 256],
    /// An example byte for each column.
    bytes: Vec<u8>,
}

impl Utf8 {
    pub(crate) fn of(classes: Classes) -> Self {
        let mut automaton = Self {
            classes,
            first: [Next::None; 256],
            nodes: Vec::new(),
            numbers: HashMap::new(),
            reachable: Vec::new(),
            columns: [0; 256],
            bytes: Vec::new(),
        };
        for byte in 0..=0x7F_u8 {
            automaton.first[byte as usize] = automaton.leaf(u32::from(byte));
        }
        // Lead bytes: their payload bits, how many bytes follow, and the first code point that has no shorter encoding.
        for (leads, mask, more, shortest) in
            [(0xC2..=0xDF, 0x1F, 1, 0x80), (0xE0..=0xEF, 0x0F, 2, 0x800), (0xF0..=0xF4, 0x07, 3, 0x1_0000)]
        {
            for lead in leads {
                let lead: u8 = lead;
                automaton.first[lead as usize] = automaton.after(u32::from(lead & mask), more, shortest);
            }
        }
        automaton.numbers = HashMap::new();
        automaton.find_columns();
        automaton
    }

    fn leaf(&self, character: u32) -> Next {
        match self.classes.single(character, character) {
            None | Some(NO_CLASS) => Next::None,
            Some(class) => Next::Class(class),
        }
    }

    /// The transition for the bits `value` of a character with `more` bytes to come. Recurses at most four levels deep.
    fn after(&mut self, value: u32, more: u32, shortest: u32) -> Next {
        if more == 0 {
            return if value < shortest || value > LAST { Next::None } else { self.leaf(value) };
        }
        let (low, high) = (value << (6 * more), ((value + 1) << (6 * more)) - 1);
        if low > LAST || high < shortest || self.classes.single(low, high) == Some(NO_CLASS) {
            return Next::None;
        }
        let mut node = [Next::None; 64];
        if low >= shortest && high <= LAST && self.classes.single(low, high).is_some() {
            // All children are identical.
            node = [self.after(value << 6, more - 1, shortest); 64];
        } else {
            for (bits, next) in node.iter_mut().enumerate() {
                *next = self.after(value << 6 | bits as u32, more - 1, shortest);
            }
        }
        if node.iter().all(|next| *next == Next::None) {
            return Next::None;
        }
        if let Some(number) = self.numbers.get(&node) {
            return Next::Node(*number);
        }
        let number = self.nodes.len() as u32;
        let mut classes = Vec::new();
        for next in &node {
            match next {
                Next::None => {}
                Next::Class(class) => classes.push(*class),
                Next::Node(node) => classes.extend_from_slice(&self.reachable[*node as usize]),
            }
        }
        classes.sort_unstable();
        classes.dedup();
        self.reachable.push(classes);
        self.nodes.push(node);
        self.numbers.insert(node, number);
        Next::Node(number)
    }

    fn find_columns(&mut self) {
        self.bytes = vec![0xFF];
        let mut first: HashMap<Next, u8> = HashMap::new();
        let mut later: HashMap<Vec<Next>, u8> = HashMap::new();
        for byte in 0..=0xFF_u8 {
            let bytes = &mut self.bytes;
            // There are fewer columns than bytes, since 0xFF is in column 0.
            let mut column = || {
                bytes.push(byte);
                bytes.len() as u8 - 1
            };
            self.columns[byte as usize] = if byte & 0xC0 == 0x80 {
                let follows: Vec<Next> = self.nodes.iter().map(|node| node[(byte & 0x3F) as usize]).collect();
                if follows.iter().all(|next| *next == Next::None) {
                    0
                } else {
                    *later.entry(follows).or_insert_with(&mut column)
                }
            } else {
                match self.first[byte as usize] {
                    Next::None => 0,
                    next => *first.entry(next).or_insert_with(&mut column),
                }
            };
        }
    }

    /// The transition for `byte` after the beginning `node` of a character, or at the start of a character if `node` is
    /// `None`.
    pub(crate) fn next(&self, node: Option<u32>, byte: u8) -> Next {
        match node {
            None => self.first[byte as usize],
            Some(node) if byte & 0xC0 == 0x80 => self.nodes[node as usize][(byte & 0x3F) as usize],
            Some(_) => Next::None,
        }
    }

    /// The classes of the characters that begin with the bytes leading to the node.
    pub(crate) fn reachable(&self, node: u32) -> &[u32] {
        &self.reachable[node as usize]
    }

    pub(crate) fn column(&self, byte: u8) -> usize {
        self.columns[byte as usize] as usize
    }

    /// An example byte of the column.
    pub(crate) fn byte(&self, column: usize) -> u8 {
        self.bytes[column]
    }

    /// Number of columns.
    pub(crate) fn width(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::characters::Characters;
    use super::*;

    #[test]
    fn every_character_is_of_its_class() {
        let sets = vec![
            Characters::of(vec![(0x61, 0x7A), (0xE9, 0x1_F600)]),
            Characters::of(vec![(0x3041, 0x309F), (0x10_FFFF, 0x10_FFFF)]),
            Characters::of(vec![(0x7F, 0x7F)]).inverted(),
        ];
        let automaton = Utf8::of(Classes::of(&sets));
        for character in (0..=LAST).filter_map(char::from_u32) {
            let mut bytes = [0; 4];
            let mut node = None;
            let mut found = Next::None;
            for byte in character.encode_utf8(&mut bytes).bytes() {
                found = automaton.next(node, automaton.byte(automaton.column(byte)));
                node = if let Next::Node(node) = found { Some(node) } else { None };
            }
            let class = automaton.classes.single(u32::from(character), u32::from(character)).unwrap();
            assert_eq!(found, if class == NO_CLASS { Next::None } else { Next::Class(class) }, "{character:?}");
        }
    }

    #[test]
    fn broken_bytes_lead_nowhere() {
        let automaton = Utf8::of(Classes::of(&[Characters::any()]));
        for text in [
            &b"\x80"[..],
            b"\xc0",
            b"\xc1",
            b"\xe0\x80",
            b"\xe0\x9f",
            b"\xed\xa0",
            b"\xf0\x8f",
            b"\xf4\x90",
            b"\xf5",
            b"\xc3a",
            b"\xff",
        ] {
            let (last, before) = text.split_last().unwrap();
            let mut node = None;
            for byte in before {
                let Next::Node(next) = automaton.next(node, *byte) else { panic!("{text:?}") };
                node = Some(next);
            }
            assert_eq!(automaton.next(node, *last), Next::None, "{text:?}");
        }
        assert!(automaton.width() < 16);
    }
}
