//! Byte-level BPE beside the `tokenizers` crate: the same vocabulary, the same text, the same ids.

use std::collections::HashSet;

use llamacpu_text::{Family, Tokenizer, Tokens, WhiteSpace, index_strings};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// The expressions as the models publish them, look-ahead and all.
const PUBLISHED: [(&str, &[&str]); 16] = [
    ("gpt-2", &[GPT2]),
    ("llama-bpe", &[LLAMA3]),
    ("qwen2", &[QWEN2]),
    ("gpt-4o", &[GPT4O]),
    ("llama4", &[GPT4O]),
    ("tekken", &[TEKKEN]),
    ("smollm", &[r"\p{N}", GPT2]),
    ("deepseek-v3", &[r"\p{N}{1,3}", CJK, DEEPSEEK_V3]),
    ("jais-2", &[JAIS_2]),
    ("superbpe", &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
    ("tiny_aya", &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    ("kimi-k2", &[KIMI_K2]),
    (
        "chameleon",
        &["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}", PUNCTUATION, GPT2],
    ),
    ("afmoe", &[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", AFMOE, DEEPSEEK_V3]),
    ("exaone-moe", &[EXAONE_MOE]),
    ("spark2_5", &[r"\p{N}{1,3}", CJK, SPARK, r"\p{N}"]),
];
const CJK: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";
const PUNCTUATION: &str = r"[\p{P}!-/:-@\[-`{-~]";
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|",
    r"\s+(?!\S)|\s+"
);
const JAIS_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|",
    r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|",
    r"\s{1,2}(?!\S)|\s{1}"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const KIMI_K2: &str = concat!(
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
const AFMOE: &str = concat!(
    "[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{F900}-\u{FAFF}\u{3040}-\u{309F}\u{30A0}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}",
    "\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}\u{1100}-\u{11FF}]+"
);
const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|",
    r"\s*[\r\n]|\s+(?!\S)|\s+"
);
const SPARK: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
    r" ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
);
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|",
    r"\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

type Oracle = tokenizers::TokenizerImpl<
    BPE,
    tokenizers::NormalizerWrapper,
    PreTokenizerWrapper,
    tokenizers::PostProcessorWrapper,
    tokenizers::DecoderWrapper,
>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    fn text(&mut self, longest: usize) -> String {
        const CHARACTERS: &[&str] = &[
            "a",
            "b",
            "c",
            "S",
            "T",
            "'",
            " ",
            " ",
            "  ",
            "\n",
            "\r",
            "\t",
            "1",
            "9",
            "!",
            ".",
            "/",
            "é",
            "e\u{301}",
            "Ж",
            "ж",
            "日",
            "か",
            "ー",
            "ǅ",
            "ʰ",
            "\u{a0}",
            "\u{2028}",
            "\u{3000}",
            "²",
            "🦙",
            "\u{1c}",
            "'s",
            "'LL",
            "12345",
            "½",
            "٣",
            "_",
            "      ",
            "<sentinel:1>",
            "IMGIMGABZ",
            "ย",
            "한",
        ];
        (0..self.below(longest)).map(|_| CHARACTERS[self.below(CHARACTERS.len())]).collect()
    }
}

fn oracle(tokens: &[String], merges: &[(String, String)], expressions: &[&str], ignore_merges: bool) -> Oracle {
    let vocabulary: Vec<(String, u32)> = tokens.iter().cloned().zip(0..).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges.to_vec())
        .ignore_merges(ignore_merges)
        .build()
        .unwrap();
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for expression in expressions {
        let pattern = SplitPattern::Regex((*expression).to_owned());
        steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap().into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    let mut oracle = Oracle::new(model);
    oracle.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(steps))));
    oracle
}

fn array<'a>(strings: impl Iterator<Item = &'a str>) -> Vec<u8> {
    strings.flat_map(|text| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()).collect()
}

#[test]
fn ids_are_those_of_the_tokenizers_crate() {
    let mut random = Random(3);
    for (name, expressions) in PUBLISHED {
        for _ in 0..4 {
            let mut tokens: Vec<String> = ByteLevel::alphabet().iter().map(char::to_string).collect();
            tokens.sort();
            let mut known: HashSet<String> = tokens.iter().cloned().collect();
            let mut merges = Vec::new();
            // The first tokens are what "a", "b", ... and the bytes of the other characters become.
            for _ in 0..200 {
                let (left, right) = (random.below(tokens.len()), random.below(tokens.len()));
                let joined = format!("{}{}", tokens[left], tokens[right]);
                if known.insert(joined.clone()) {
                    merges.push((tokens[left].clone(), tokens[right].clone()));
                    tokens.push(joined);
                }
            }
            let sample = random.text(4000);
            for (left, right) in pairs_of(&sample) {
                let joined = format!("{left}{right}");
                if known.insert(joined.clone()) {
                    merges.push((left, right));
                    tokens.push(joined);
                }
            }
            let reference = oracle(&tokens, &merges, expressions, ["llama-bpe", "tekken"].contains(&name));
            let texts = array(tokens.iter().map(String::as_str));
            let lines: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
            let data = [texts.clone(), array(lines.iter().map(String::as_str))].concat();
            let texts_index = index_strings(&data, 0, tokens.len() as u64).unwrap();
            let merges_index = index_strings(&data, texts.len() as u64, merges.len() as u64).unwrap();
            let arrays = Tokens { data: &data, texts: &texts_index, kinds: None, strips_right_except: None };
            let family =
                Family::BytePair { data: arrays.data, merges: &merges_index, pre: name, white_space: WhiteSpace::Kept };
            let ours = Tokenizer::new(arrays, family).unwrap();
            for length in [20, 60, 2000] {
                for text in [random.text(length), random.text(length).replace(char::is_whitespace, "")] {
                    let expected = reference.encode_fast(&text[..], false).unwrap();
                    assert_eq!(
                        ours.encode(text.as_bytes(), false, true).unwrap(),
                        expected.get_ids(),
                        "{name}: {text:?}"
                    );
                }
            }
        }
    }
}

/// Neighbouring bytes of a text as the alphabet writes them, so that merges occur in texts of the same characters.
fn pairs_of(text: &str) -> Vec<(String, String)> {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
    let mut whole = PreTokenizedString::from(text);
    ByteLevel::new(false, false, false).pre_tokenize(&mut whole).unwrap();
    let written: String =
        whole.get_splits(OffsetReferential::Original, OffsetType::Byte).into_iter().map(|(text, _, _)| text).collect();
    let letters: Vec<String> = written.chars().map(String::from).collect();
    letters.windows(2).step_by(3).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}
