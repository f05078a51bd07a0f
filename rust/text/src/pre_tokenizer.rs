//! How text is cut into words before byte pairs are merged: the named rules of `tokenizer.ggml.pre`.
//!
//! The expressions are those that the models were trained with. They use one thing that a linear-time engine does not
//! have, the alternative `\s+(?!\S)`: white space that leaves its last character to the word after it. That is done by
//! hand, so no text can make the splitting slow.

use regex::bytes::Regex;

use crate::Error;
use crate::error::{needs, shown};

/// A family of models that share the expressions and the habits.
struct Rule {
    names: &'static [&'static str],
    /// Applied in order, each to the pieces that the one before left.
    expressions: &'static [&'static str],
    /// A word that is a token is not merged (`ignore_merges`).
    whole_words: bool,
    /// Whether texts begin with BOS if the file does not say.
    adds_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Contractions in any case, written out: Unicode case folding would let other letters in.
macro_rules! contractions {
    () => {
        r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
    };
}

/// The expression of Llama 3 and its relatives, which differ in how many digits make a word.
macro_rules! llama3 {
    ($digits:literal) => {
        concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// The expression of GPT-4o, which cuts before a capital letter.
macro_rules! gpt4o {
    ($suffix:expr, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $suffix,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $suffix,
            r"|\p{N}",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

const DEEPSEEK_V3: &str = concat!(
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Letters with case of the scripts that the DeepSeek tokenizer lists.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}",
    r"\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}",
    r"\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}",
    r"\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}",
    r"\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}",
    r"\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}",
    r"\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}",
    r"\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}",
    r"\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}",
    r"\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}",
    r"\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}",
    r"\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+",
);

const RULES: &[Rule] = &[
    Rule {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        expressions: &[llama3!("{1,3}")],
        whole_words: true,
        adds_bos: true,
    },
    Rule::plain(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[llama3!("{1,3}")]),
    Rule { names: &["minicpm5"], expressions: &[r"\p{N}{1,3}", llama3!("+")], whole_words: true, adds_bos: false },
    Rule::plain(
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "solar-open", "grok-2", "f2llmv2"],
        &[llama3!("")],
    ),
    Rule::plain(&["seed-coder"], &[SEED_CODER]),
    Rule::plain(
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "mpt",
            "olmo",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "jais",
            "trillion",
            "granite-docling",
            "modern-bert",
        ],
        &[GPT2],
    ),
    Rule::plain(
        &["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"],
        &[gpt4o!(concat!("(?:", contractions!(), ")?"), "{1,3}")],
    ),
    Rule { names: &["tekken"], expressions: &[gpt4o!("", "")], whole_words: true, adds_bos: true },
    Rule::plain(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    Rule::plain(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
            r"\s+$",
            r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\x{D7FF}]+",
            r"\p{N}+",
        ],
    ),
    Rule::plain(
        &["deepseek-coder"],
        &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\x{D7FF}]+", r"\p{N}"],
    ),
    Rule::plain(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[r"\p{N}{1,3}", r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+", DEEPSEEK_V3],
    ),
    Rule::plain(&["qwen35"], &[QWEN_35]),
    Rule::plain(&["bailingmoe", "bailingmoe2", "llada-moe"], &[llama3!("")]),
    Rule::plain(&["laguna"], &[r"[^\n]+|[\n]+", llama3!("")]),
    Rule {
        names: &["youtu"],
        expressions: &[
            concat!(
                r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+",
                r"|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+",
                r"|[\u{3105}-\u{312F}]+|[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"
            ),
            gpt4o!(concat!("(?:", contractions!(), ")?"), ""),
        ],
        whole_words: true,
        adds_bos: false,
    },
    Rule::plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    Rule::plain(&["default", ""], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    Rule::plain(&["poro-chat", "bloom", "gpt3-finnish"], &[WORDS_OF_BLOOM]),
    Rule::plain(&["viking"], &[WORDS_OF_BLOOM, r"\p{N}"]),
];

const WORDS_OF_BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+";

const QWEN_35: &str = concat!(
    contractions!(),
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const SEED_CODER: &str =
    concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+");

impl Rule {
    const fn plain(names: &'static [&'static str], expressions: &'static [&'static str]) -> Self {
        Self { names, expressions, whole_words: false, adds_bos: false }
    }
}

/// Called with every word; the first error ends the cutting.
type Words<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// Bytes that compiling an expression of the rules takes at most, with Unicode's tables of letters in it.
const EXPRESSION_BYTES: usize = 16 << 20;

/// Cuts text into words.
pub(crate) struct PreTokenizer {
    stages: Vec<Stage>,
    whole_words: bool,
    adds_bos: bool,
}

/// One expression.
struct Stage {
    expression: Regex,
    white_space: WhiteSpace,
}

/// What becomes of a match that is a run of white space before a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhiteSpace {
    /// The expression has no such alternative.
    AsMatched,
    /// It leaves its last character to the word.
    LeavesLast,
    /// The same, but a run up to a line end is another alternative, and stays.
    LeavesLastUnlessLineEnd,
}

impl PreTokenizer {
    /// The rule called `name`; an empty name is the default rule.
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        let rule = RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
            let mut names: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
            names.retain(|name| !name.is_empty());
            names.sort_unstable();
            let name = shown(name.as_bytes());
            Error::Unsupported(format!("unknown pre-tokenizer {name}; known are: {}", names.join(", ")))
        })?;
        let stages = rule.expressions.iter().map(|expression| Stage::new(expression)).collect::<Result<_, _>>()?;
        Ok(Self { stages, whole_words: rule.whole_words, adds_bos: rule.adds_bos })
    }

    /// Whether a word that is a token is not merged.
    pub(crate) fn keeps_whole_words(&self) -> bool {
        self.whole_words
    }

    /// Whether texts begin with BOS if the file does not say.
    pub(crate) fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Calls `word` with every word of `text` in order; together they are the text.
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
    fn new(expression: &str) -> Result<Self, Error> {
        const LOOK_AHEAD: &str = r"|\s+(?!\S)";
        let white_space = match (expression.contains(LOOK_AHEAD), expression.contains(r"|\s*[\r\n]+")) {
            (false, _) => WhiteSpace::AsMatched,
            (true, false) => WhiteSpace::LeavesLast,
            (true, true) => WhiteSpace::LeavesLastUnlessLineEnd,
        };
        needs(EXPRESSION_BYTES)?;
        let expression = Regex::new(&expression.replace(LOOK_AHEAD, ""))
            .map_err(|error| Error::Unsupported(format!("a pre-tokenizer expression is not valid: {error}")))?;
        Ok(Self { expression, white_space })
    }

    fn split(&self, text: &[u8], piece: Words) -> Result<(), Error> {
        let mut at = 0;
        while let Some(found) = self.expression.find_at(text, at) {
            let (start, mut end) = (found.start(), found.end());
            if end < text.len() && self.white_space != WhiteSpace::AsMatched {
                end -= self.left_to_the_next(&text[start..end]);
            }
            if start > at {
                piece(&text[at..start])?;
            }
            piece(&text[start..end])?;
            at = end;
        }
        if at < text.len() {
            piece(&text[at..])?;
        }
        Ok(())
    }

    /// The bytes at the end of a match that the look-ahead alternative would leave: no other alternative ends in white
    /// space, except at a line end.
    fn left_to_the_next(&self, found: &[u8]) -> usize {
        let begins = found.iter().rposition(|byte| !(0x80..0xC0).contains(byte)).unwrap_or(0);
        let last = std::str::from_utf8(&found[begins..]).ok().and_then(|text| text.chars().next());
        match last {
            Some('\r' | '\n') if self.white_space == WhiteSpace::LeavesLastUnlessLineEnd => 0,
            Some(last) if begins > 0 && last.is_whitespace() => found.len() - begins,
            _ => 0,
        }
    }
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
