//! Reads GBNF, as described in llama.cpp's grammars/README.md and accepted by its parser.
//!
//! A rule is `name ::= alternatives`; it ends at the end of its line, except for line breaks inside parentheses and
//! after `::=` and `|`. Names consist of letters, digits, `-` and `_`. Two things that llama.cpp accepts but that can
//! never match there are refused: escapes in strings that are not characters (`"\uD83D"`), and `{m,n}` with n < m.

mod terminals;

use std::rc::Rc;

use super::builder::Builder;
use super::characters::Characters;
use super::rules::{Rules, Symbol};
use super::{DEEPEST, LONGEST, MOST_REPETITIONS};
use crate::Error;
use crate::error::shown;

impl Rules {
    /// Reads a GBNF grammar whose texts are those of the rule `root`.
    ///
    /// # Errors
    /// [`Error::Grammar`] if the grammar is not valid, too large or left-recursive; [`Error::Memory`].
    pub fn parse(grammar: &str, root: &str) -> Result<Self, Error> {
        parse(grammar)?.finish(root)
    }
}

/// Reads the rules from the text of a grammar.
fn parse(text: &str) -> Result<Builder, Error> {
    if text.len() > LONGEST {
        let message = format!("the grammar has {} bytes, at most {LONGEST} are allowed", text.len());
        return Err(Error::Grammar(message));
    }
    let mut parser = Parser { text, at: 0, depth: 0, builder: Builder::new(text.len())? };
    parser.space(true);
    if parser.rest().is_empty() {
        return Err(parser.wrong("the grammar is empty; expected a line `root ::= ...`"));
    }
    while !parser.rest().is_empty() {
        parser.rule()?;
    }
    Ok(parser.builder)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Number of open parentheses.
    depth: usize,
    builder: Builder,
}

/// Minimum and maximum number of repetitions.
struct Repetition {
    least: u64,
    most: Option<u64>,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Skips `expected` if it comes next.
    fn take(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// An error at this position.
    fn wrong(&self, what: &str) -> Error {
        let line = 1 + self.text[..self.at].matches('\n').count();
        let place = if self.rest().is_empty() {
            "at the end".to_owned()
        } else {
            let line_end = self.rest().find(['\n', '\r']).unwrap_or(self.rest().len());
            format!("at {}", shown(&self.rest().as_bytes()[..line_end]))
        };
        Error::Grammar(format!("the GBNF grammar cannot be read in line {line} {place}: {what}"))
    }

    /// Skips spaces and comments, and line breaks where they are allowed.
    fn space(&mut self, breaks: bool) {
        while let Some(next) = self.next() {
            match next {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if breaks => self.at += 1,
                '#' => self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len()),
                _ => break,
            }
        }
    }

    fn name(&mut self) -> Result<Rc<str>, Error> {
        let length = self.rest().bytes().take_while(|byte| is_word(*byte)).count();
        if length == 0 {
            return Err(self.wrong("expected the name of a rule, made of letters, digits, '-' and '_'"));
        }
        let name = Rc::from(&self.rest()[..length]);
        self.at += length;
        Ok(name)
    }

    fn rule(&mut self) -> Result<(), Error> {
        let name = self.name()?;
        self.space(false);
        let rule = self.builder.rule(&name);
        if !self.take("::=") {
            return Err(self.wrong(&format!("expected ::= behind the name '{name}'")));
        }
        self.space(true);
        let alternatives = self.alternatives(&name)?;
        self.builder.define(rule, alternatives);
        if !(self.take("\r\n") || self.take("\r") || self.take("\n") || self.rest().is_empty()) {
            return Err(self.wrong("expected the end of the line, '|', or a part of the rule"));
        }
        self.space(true);
        Ok(())
    }

    fn alternatives(&mut self, name: &Rc<str>) -> Result<Vec<Vec<Symbol>>, Error> {
        let mut alternatives = vec![self.sequence(name)?];
        while self.take("|") {
            self.space(true);
            self.builder.count(1)?;
            alternatives.push(self.sequence(name)?);
        }
        Ok(alternatives)
    }

    fn sequence(&mut self, name: &Rc<str>) -> Result<Vec<Symbol>, Error> {
        let mut sequence = Vec::new();
        // The start of the part that `*`, `+`, `?` and braces apply to.
        let mut part = 0;
        let nested = self.depth > 0;
        while let Some(next) = self.next() {
            match next {
                '"' => {
                    part = sequence.len();
                    self.string(&mut sequence)?;
                }
                '[' => {
                    part = sequence.len();
                    sequence.extend(self.set()?);
                }
                '.' => {
                    part = sequence.len();
                    self.at += 1;
                    sequence.push(self.builder.characters(Characters::any()));
                }
                '<' | '!' => {
                    part = sequence.len();
                    let other = self.take("!");
                    let reference = self.token()?;
                    sequence.push(if other { Symbol::OtherToken(reference) } else { Symbol::Token(reference) });
                }
                '(' => {
                    part = sequence.len();
                    sequence.push(self.group(name)?);
                }
                '*' | '+' | '?' | '{' => {
                    let place = self.at;
                    let repetition = self.repetition()?;
                    if part == sequence.len() {
                        self.at = place;
                        return Err(self.wrong("there is nothing before it that could be repeated"));
                    }
                    self.repeat(&mut sequence, part, name, &repetition)?;
                }
                _ if next.is_ascii() && is_word(next as u8) => {
                    part = sequence.len();
                    let name = self.name()?;
                    sequence.push(Symbol::Rule(self.builder.rule(&name)));
                }
                _ => break,
            }
            self.builder.count(sequence.len().saturating_sub(part))?;
            self.space(nested);
        }
        Ok(sequence)
    }

    fn group(&mut self, name: &Rc<str>) -> Result<Symbol, Error> {
        if self.depth == DEEPEST {
            return Err(self.wrong(&format!("parentheses are nested more than {DEEPEST} levels deep")));
        }
        self.at += 1;
        self.depth += 1;
        self.space(true);
        let rule = self.builder.own_rule(name);
        let alternatives = self.alternatives(name)?;
        self.builder.define(rule, alternatives);
        if !self.take(")") {
            return Err(self.wrong("expected ')'"));
        }
        self.depth -= 1;
        Ok(Symbol::Rule(rule))
    }

    fn number(&mut self) -> Result<u64, Error> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let Ok(number) = self.rest()[..digits].parse() else {
            let wanted = format!("expected a number from 0 to {MOST_REPETITIONS}, as in {{3}}, {{3,}} or {{0,3}}");
            return Err(self.wrong(&wanted));
        };
        self.at += digits;
        Ok(number)
    }

    /// `*`, `+`, `?`, `{m}`, `{m,}` or `{m,n}`.
    fn repetition(&mut self) -> Result<Repetition, Error> {
        let place = self.at;
        for (sign, least, most) in [("*", 0, None), ("+", 1, None), ("?", 0, Some(1))] {
            if self.take(sign) {
                return Ok(Repetition { least, most });
            }
        }
        let nested = self.depth > 0;
        self.at += 1;
        self.space(nested);
        let least = self.number()?;
        self.space(nested);
        let mut most = Some(least);
        if self.take(",") {
            self.space(nested);
            most = if self.next().is_some_and(|next| next.is_ascii_digit()) { Some(self.number()?) } else { None };
            self.space(nested);
        }
        if !self.take("}") {
            return Err(self.wrong("expected '}' or ',' behind a number of repetitions"));
        }
        if least > MOST_REPETITIONS {
            self.at = place;
            return Err(self.wrong(&format!("more than {MOST_REPETITIONS} repetitions")));
        }
        if most.is_some_and(|most| most < least) {
            self.at = place;
            return Err(self.wrong("the second number in braces is below the first"));
        }
        Ok(Repetition { least, most: most.filter(|most| *most <= MOST_REPETITIONS) })
    }

    /// Expands the repetition of the end of the sequence, from `part` on.
    fn repeat(
        &mut self,
        sequence: &mut Vec<Symbol>,
        part: usize,
        name: &Rc<str>,
        repetition: &Repetition,
    ) -> Result<(), Error> {
        let Repetition { least, most } = *repetition;
        let whole = sequence.split_off(part);
        let symbol = if let [symbol] = whole[..] {
            symbol
        } else {
            let rule = self.builder.own_rule(name);
            self.builder.define(rule, vec![whole]);
            Symbol::Rule(rule)
        };
        let optional = most.map_or(1, |most| most - least);
        self.builder.count(4 * optional as usize + 1)?;
        sequence.extend((0..least).map(|_| symbol));
        // x{0,2} is the rule a ::= x b | of b ::= x |, and x* is a ::= x a |.
        let mut rest = None;
        for _ in 0..optional {
            let rule = self.builder.own_rule(name);
            let mut more = vec![symbol];
            more.extend(if most.is_none() { Some(rule) } else { rest }.map(Symbol::Rule));
            self.builder.define(rule, vec![more, Vec::new()]);
            rest = Some(rule);
        }
        sequence.extend(rest.map(Symbol::Rule));
        Ok(())
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
