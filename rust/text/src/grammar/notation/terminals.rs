//! Terminals for characters and tokens: strings, sets in brackets, references to tokens.

use super::Parser;
use crate::Error;
use crate::grammar::characters::{Characters, LAST, SURROGATES};
use crate::grammar::rules::{Symbol, TokenReference};

impl Parser<'_> {
    pub(super) fn string(&mut self, sequence: &mut Vec<Symbol>) -> Result<(), Error> {
        self.at += 1;
        while !self.take("\"") {
            let place = self.at;
            let character = self.character()?;
            if character > LAST || (SURROGATES.0..=SURROGATES.1).contains(&character) {
                self.at = place;
                return Err(self.wrong(&format!(
                    "U+{character:04X} is no character; expected U+0000 to U+D7FF or U+E000 to U+10FFFF, the latter as \
                     \\U0001F600, not as two halves"
                )));
            }
            self.builder.count(1)?;
            sequence.push(self.builder.characters(Characters::of(vec![(character, character)])));
        }
        Ok(())
    }

    /// A set in brackets. An empty set stands for the empty text, as in llama.cpp.
    pub(super) fn set(&mut self) -> Result<Option<Symbol>, Error> {
        self.at += 1;
        let inverted = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            let first = self.character()?;
            let range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let last = if range {
                self.at += 1;
                self.character()?
            } else {
                first
            };
            ranges.push((first, last));
        }
        if ranges.is_empty() {
            return Ok(None);
        }
        let set = Characters::of(ranges);
        Ok(Some(self.builder.characters(if inverted { set.inverted() } else { set })))
    }

    /// One character of a string or a set, possibly written as an escape.
    fn character(&mut self) -> Result<u32, Error> {
        let Some(next) = self.next() else {
            return Err(self.wrong("a string or a set of characters is not closed"));
        };
        if next != '\\' {
            self.at += next.len_utf8();
            return Ok(u32::from(next));
        }
        let mut ahead = self.rest()[1..].chars();
        let Some(kind) = ahead.next() else {
            return Err(self.wrong("a string or a set of characters is not closed"));
        };
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let Some(value) = self.rest().get(2..2 + digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
            else {
                return Err(self.wrong(&format!("expected {digits} hexadecimal digits behind \\{kind}")));
            };
            let value = u32::from_str_radix(value, 16).unwrap_or(u32::MAX);
            self.at += 2 + digits;
            return Ok(value);
        }
        let value = match kind {
            't' => '\t',
            'r' => '\r',
            'n' => '\n',
            '\\' | '"' | '[' | ']' | '-' => kind,
            _ => {
                let known = r#"\n, \r, \t, \\, \", \[, \], \-, \xHH, \uHHHH or \UHHHHHHHH"#;
                return Err(self.wrong(&format!("'\\{kind}' stands for no character; expected {known}")));
            }
        };
        self.at += 2;
        Ok(u32::from(value))
    }

    /// A reference to a token, after the `!` if there was one: `<[10]>` or `<think>`.
    pub(super) fn token(&mut self) -> Result<u32, Error> {
        let Some(length) = self.rest().find('>').filter(|_| self.rest().starts_with('<')) else {
            return Err(self.wrong("expected a token, as <think> or <[10]>"));
        };
        let text = self.rest()[..=length].to_owned();
        let reference = match text.strip_prefix("<[") {
            None => TokenReference::Text(text),
            Some(id) => {
                let digits = id.strip_suffix("]>").filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
                match digits.and_then(|digits| digits.parse().ok()) {
                    Some(id) => TokenReference::Id(id),
                    None => return Err(self.wrong("expected the id of a token, as <[10]>")),
                }
            }
        };
        self.at += length + 1;
        Ok(self.builder.reference(reference))
    }
}
