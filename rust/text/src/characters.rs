//! Sets of characters by Unicode general category, and the base letter of an accented character.

use regex_syntax::hir::{Class, HirKind};

use crate::Error;
use crate::error::needs;

/// Maximum memory in bytes that a category's tables take while they are read.
const TABLE_BYTES: usize = 1 << 20;

/// A set of characters.
pub(crate) struct CharacterSet {
    ascii: [bool; 128],
    /// Pairs of first and last characters, ascending.
    ranges: Vec<(char, char)>,
}

impl CharacterSet {
    /// The characters that a regular-expression class matches, for example `\p{M}`.
    pub(crate) fn of(class: &str) -> Result<Self, Error> {
        needs(TABLE_BYTES)?;
        let unknown = || Error::Unsupported(format!("the class of characters {class} is not known"));
        let expression = regex_syntax::parse(class).map_err(|_| unknown())?;
        let HirKind::Class(Class::Unicode(found)) = expression.kind() else { return Err(unknown()) };
        let ranges: Vec<(char, char)> = found.iter().map(|range| (range.start(), range.end())).collect();
        let mut set = Self { ascii: [false; 128], ranges };
        set.ascii = std::array::from_fn(|code| set.has_range(char::from(code as u8)));
        Ok(set)
    }

    /// Whether the set contains this character.
    #[inline]
    pub(crate) fn contains(&self, character: char) -> bool {
        match self.ascii.get(character as usize) {
            Some(&contained) => contained,
            None => self.has_range(character),
        }
    }

    fn has_range(&self, character: char) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= character);
        after > 0 && character <= self.ranges[after - 1].1
    }
}

/// The first character of the canonical decomposition: the letter without its accents.
pub(crate) fn base(character: char) -> char {
    if character.is_ascii() {
        return character;
    }
    let mut first = None;
    unicode_normalization::char::decompose_canonical(character, |part| {
        first.get_or_insert(part);
    });
    first.unwrap_or(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_those_of_unicode() {
        let marks = CharacterSet::of(r"\p{M}").unwrap();
        assert!(marks.contains('\u{301}') && marks.contains('\u{93E}') && !marks.contains('e'));
        let punctuation = CharacterSet::of(r"\p{P}").unwrap();
        assert!("!-/…«¿".chars().all(|c| punctuation.contains(c)) && !"$+a ".chars().any(|c| punctuation.contains(c)));
        assert!(CharacterSet::of("ab").is_err() && CharacterSet::of(r"\p{Nobody}").is_err());
    }

    #[test]
    fn the_base_of_a_letter_has_no_accents() {
        assert_eq!(['a', 'é', 'Å', 'ǖ', 'ß', '日', '가'].map(base), ['a', 'e', 'A', 'u', 'ß', '日', '\u{1100}']);
    }
}
