//! Cuts text into words before byte pairs are merged, by the named rules of `tokenizer.ggml.pre`.
//!
//! The expressions are those that the models were trained with. They rely on look-ahead, which a linear-time engine
//! does not support: white space that leaves its last character to the word after it, `\s+(?!\S)`, and digits counted
//! from the end of a number. Look-ahead is therefore implemented by hand, so that no text can make the splitting slow.

use regex::bytes::Regex;

use crate::Error;
use crate::error::{needs, shown};

mod expressions;
mod rules;

use expressions::{CUTS_BEFORE_THREES, POWERS_OF_TWO, THREES_OF_NUMBERS, THREES_OF_WORDS};
pub(crate) use rules::Symbols;
use rules::{RULES, Rule};

/// Called with every word; the first error stops the splitting.
type Words<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// Maximum memory in bytes for compiling an expression of the rules, including Unicode's letter tables.
const EXPRESSION_BYTES: usize = 16 << 20;

/// Cuts text into words.
pub(crate) struct PreTokenizer {
    stages: Vec<Stage>,
    whole_words: bool,
    adds_bos: bool,
    symbols: Symbols,
}

/// One expression.
struct Stage {
    expression: Regex,
    ahead: Ahead,
}

/// The effect of look-ahead on a match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// None.
    AsMatched,
    /// White space before a word leaves its last character to the word.
    LeavesLast,
    /// The same, but a run up to a line end is matched by another alternative and kept whole.
    LeavesLastUnlessLineEnd,
    /// The same, and the rest is cut into powers of two.
    PowersOfTwo,
    /// Numbers are cut into groups of three from their end.
    Threes,
    /// The same, but the digits before the first cut stay with what precedes them.
    CutsBeforeThrees,
}

fn rule(name: &str) -> Result<&'static Rule, Error> {
    RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
        let mut names: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        let name = shown(name.as_bytes());
        Error::Unsupported(format!("unknown pre-tokenizer {name}; known are: {}", names.join(", ")))
    })
}

/// The symbols that merging starts from under the rule called `name`.
pub(crate) fn symbols_of(name: &str) -> Result<Symbols, Error> {
    Ok(rule(name)?.symbols)
}

impl PreTokenizer {
    /// The rule called `name`; an empty name selects the default rule.
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        let rule = rule(name)?;
        let stages = rule.expressions.iter().map(|expression| Stage::new(expression)).collect::<Result<_, _>>()?;
        Ok(Self { stages, whole_words: rule.whole_words, adds_bos: rule.adds_bos, symbols: rule.symbols })
    }

    /// Whether words that are tokens are left unmerged.
    pub(crate) fn keeps_whole_words(&self) -> bool {
        self.whole_words
    }

    /// Whether texts begin with BOS if the file does not say.
    pub(crate) fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The symbols that merging starts from.
    pub(crate) fn symbols(&self) -> Symbols {
        self.symbols
    }

    /// Calls `word` with every word of `text` in order; concatenated, they are the text.
    pub(crate) fn split(&self, text: &[u8], word: Words) -> Result<(), Error> {
        split_by(&self.stages, text, word)
    }
}

fn split_by(stages: &[Stage], text: &[u8], word: Words) -> Result<(), Error> {
    match stages {
        [] => word(text),
        [stage, rest @ ..] => stage.split(text, &mut |piece| split_by(rest, piece, word)),
    }
}

impl Stage {
    fn new(published: &str) -> Result<Self, Error> {
        const LEAVES_LAST: &str = r"|\s+(?!\S)";
        let (expression, ahead) = match published {
            THREES_OF_WORDS => (r"\d+\b".to_owned(), Ahead::Threes),
            THREES_OF_NUMBERS => (r"\p{N}+".to_owned(), Ahead::Threes),
            CUTS_BEFORE_THREES => (r"\d+".to_owned(), Ahead::CutsBeforeThrees),
            _ if published.ends_with(POWERS_OF_TWO) => (published.replace(POWERS_OF_TWO, r"|\s+"), Ahead::PowersOfTwo),
            _ => {
                let ahead = match (published.contains(LEAVES_LAST), published.contains(r"|\s*[\r\n]")) {
                    (false, _) => Ahead::AsMatched,
                    (true, false) => Ahead::LeavesLast,
                    (true, true) => Ahead::LeavesLastUnlessLineEnd,
                };
                (published.replace(LEAVES_LAST, ""), ahead)
            }
        };
        needs(EXPRESSION_BYTES)?;
        let expression = Regex::new(&expression)
            .map_err(|error| Error::Unsupported(format!("a pre-tokenizer expression is not valid: {error}")))?;
        Ok(Self { expression, ahead })
    }

    fn split(&self, text: &[u8], piece: Words) -> Result<(), Error> {
        let (mut at, mut from) = (0, 0);
        while let Some(found) = self.expression.find_at(text, from) {
            let (start, mut end) = (found.start(), found.end());
            if end < text.len() && !matches!(self.ahead, Ahead::AsMatched | Ahead::Threes | Ahead::CutsBeforeThrees) {
                end -= self.left_to_the_next(&text[start..end]);
            }
            if start > at && self.ahead != Ahead::CutsBeforeThrees {
                piece(&text[at..start])?;
                at = start;
            }
            match self.ahead {
                Ahead::Threes | Ahead::CutsBeforeThrees => at = cut_threes(text, at, (start, end), piece)?,
                Ahead::PowersOfTwo => at = cut_powers_of_two(text, (start, end), piece)?,
                _ => {}
            }
            if at < end && self.ahead != Ahead::CutsBeforeThrees {
                piece(&text[at..end])?;
                at = end;
            }
            from = end;
        }
        if at < text.len() {
            piece(&text[at..])?;
        }
        Ok(())
    }

    /// Number of bytes at the end of a match that the look-ahead alternative would leave: no other alternative ends in
    /// white space, except at a line end.
    fn left_to_the_next(&self, found: &[u8]) -> usize {
        let begins = found.iter().rposition(|byte| !(0x80..0xC0).contains(byte)).unwrap_or(0);
        let last = std::str::from_utf8(&found[begins..]).ok().and_then(|text| text.chars().next());
        match last {
            Some('\r' | '\n') if self.ahead != Ahead::LeavesLast => 0,
            Some(last) if begins > 0 && last.is_whitespace() => found.len() - begins,
            _ => 0,
        }
    }
}

/// Cuts before every third character counted from the end of the number at `found`; the first piece begins at `at`.
/// Returns the start of the last piece, which is left to the caller.
fn cut_threes(text: &[u8], mut at: usize, found: (usize, usize), piece: Words) -> Result<usize, Error> {
    let is_start = |&place: &usize| !(0x80..0xC0).contains(&text[place]);
    let mut left = (found.0..found.1).filter(is_start).count();
    for place in (found.0..found.1).filter(is_start) {
        if left % 3 == 0 && place > at {
            piece(&text[at..place])?;
            at = place;
        }
        left -= 1;
    }
    Ok(at)
}

/// Cuts white space into the largest possible powers of two, at most 512. Returns where the rest begins.
fn cut_powers_of_two(text: &[u8], found: (usize, usize), piece: Words) -> Result<usize, Error> {
    let Ok(run) = std::str::from_utf8(&text[found.0..found.1]) else { return Ok(found.0) };
    if !run.chars().all(char::is_whitespace) || run.ends_with(['\r', '\n']) {
        return Ok(found.0);
    }
    let (mut at, mut left) = (0, run.chars().count());
    while left > 0 {
        let taken = 1 << left.ilog2().min(9);
        let length = run[at..].chars().take(taken).map(char::len_utf8).sum::<usize>();
        piece(&text[found.0 + at..found.0 + at + length])?;
        at += length;
        left -= taken;
    }
    Ok(found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        PreTokenizer::named(name)
            .unwrap()
            .split(text.as_bytes(), &mut |word| {
                words.push(String::from_utf8_lossy(word).into_owned());
                Ok(())
            })
            .unwrap();
        words
    }

    #[test]
    fn every_rule_compiles_and_keeps_all_of_the_text() {
        let text =
            "  Hello,\tWORLD's don't 12345 \n\n  x\u{a0}\u{3000}y 日本語かな 한국어 naïve e\u{301} …!! ~`$ \r\n end  ";
        for name in RULES.iter().flat_map(|rule| rule.names) {
            assert_eq!(words(name, text).concat(), text, "{name}");
            assert!(words(name, "").is_empty() || words(name, "") == [""], "{name}");
            assert!(words(name, text).iter().all(|word| !word.is_empty()), "{name}");
        }
    }

    #[test]
    fn no_name_is_in_two_rules() {
        let mut names: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn known_words() {
        assert_eq!(words("llama-bpe", "I'Ve  1234\n \n  a"), ["I", "'Ve", " ", " ", "123", "4", "\n \n", " ", " a"]);
        assert_eq!(words("gpt-2", "I'Ve  1234\n \n  a"), ["I", "'", "Ve", " ", " 1234", "\n \n ", " a"]);
        assert_eq!(words("qwen2", "12 a"), ["1", "2", " a"]);
        assert_eq!(words("gpt-4o", "HelloWorld's HTTPServer"), ["Hello", "World's", " HTTPServer"]);
        assert_eq!(words("tekken", "HelloWorld's 12"), ["Hello", "World", "'s", " ", "1", "2"]);
        assert_eq!(words("smollm", "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(words("default", "a!! 1234"), ["a", "!!", " ", "123", "4"]);
        assert_eq!(words("deepseek-v3", "1234 $abc"), ["123", "4", " $", "abc"]);
        assert_eq!(words("minicpm5", "I'Ve 1234 ab"), ["I", "'Ve", " ", "123", "4", " ab"]);
        assert_eq!(words("qwen35", "e\u{301}te 12"), ["e\u{301}te", " ", "1", "2"]);
        assert_eq!(words("youtu", "AbC 한국어日本、x"), ["Ab", "C", " ", "한국어", "日本", "、", "x"]);
        assert_eq!(words("laguna", "a\n\n b"), ["a", "\n\n", " b"]);
        assert_eq!(words("bailingmoe", "a \n\n12"), ["a", " \n\n", "1", "2"]);
    }

    #[test]
    fn white_space_leaves_its_last_character() {
        assert_eq!(words("llama-bpe", "a   b"), ["a", "  ", " b"]);
        assert_eq!(words("llama-bpe", "a \u{3000}b"), ["a", " ", "\u{3000}b"]);
        assert_eq!(words("llama-bpe", "a\u{3000}1"), ["a", "\u{3000}", "1"]);
        assert_eq!(words("llama-bpe", "a   "), ["a", "   "]);
        assert_eq!(words("llama-bpe", "a \n  b"), ["a", " \n", " ", " b"]);
        assert_eq!(words("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known() {
        let error = PreTokenizer::named("nobody").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("nobody") && error.contains("llama-bpe"), "{error}");
    }
}
