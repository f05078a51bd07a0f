#![no_main]
//! Vocabularies of any strings, scores, merges and types, and any text: an error or ids that the vocabulary has.
//!
//!     RUSTC_BOOTSTRAP=1 cargo fuzz run tokenizer -- -max_total_time=60 -rss_limit_mb=1024

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use llamacpu_text::{Family, Tokenizer, Tokens, WhiteSpace, index_strings};

const RULES: [&str; 12] = [
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "gpt-4o",
    "tekken",
    "deepseek-llm",
    "deepseek-v3",
    "bloom",
    "jais-2",
    "superbpe",
    "tiny_aya",
    "kimi-k2",
];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    tokens: Vec<&'a [u8]>,
    kinds: Option<Vec<i32>>,
    scores: Option<Vec<f32>>,
    merges: Vec<(u8, u8)>,
    rule: u8,
    unknown: Option<u8>,
    space_prefix: bool,
    all_bytes: bool,
    text: &'a [u8],
    ids: Vec<i64>,
}

/// The strings as a file holds them.
fn array<'a>(strings: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    strings.flat_map(|text| [&(text.len() as u64).to_le_bytes()[..], text].concat()).collect()
}

fn check(tokenizer: &Tokenizer, input: &Input, lossless: bool) {
    for parse_special in [false, true] {
        let Ok(ids) = tokenizer.encode(input.text, parse_special, input.space_prefix) else { continue };
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        assert!(ids.iter().all(|id| (0..tokenizer.vocabulary_size() as i64).contains(id)));
        let text = tokenizer.decode(&ids, true, true).expect("ids of its own");
        if lossless && !parse_special {
            assert_eq!(text, input.text);
        }
    }
    let valid = input.ids.iter().all(|id| (0..tokenizer.vocabulary_size() as i64).contains(id));
    assert_eq!(tokenizer.decode(&input.ids, false, false).is_ok(), valid);
}

fuzz_target!(|input: Input| {
    // The letters that stand for the bytes in a byte-level vocabulary, so that any text has tokens.
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut other = 0x100..;
    let letters: Vec<String> = (0..256_u32)
        .filter_map(|byte| if printable(byte) { char::from_u32(byte) } else { char::from_u32(other.next()?) })
        .map(String::from)
        .collect();
    let mut tokens: Vec<&[u8]> = Vec::new();
    if input.all_bytes {
        tokens.extend(letters.iter().map(|letter| letter.as_bytes()));
    }
    tokens.extend(&input.tokens);
    let count = tokens.len() as u64;
    let data = array(tokens.iter().copied());
    let texts = index_strings(&data, 0, count).expect("well formed");
    let of = |data, texts| Tokens { data, texts, kinds: input.kinds.as_deref(), strips_right_except: None };
    let scores = input.scores.as_deref();
    let family = Family::SentencePiece {
        scores,
        unknown: input.unknown.map(u32::from),
        space_prefix: input.space_prefix,
    };
    if let Ok(tokenizer) = Tokenizer::new(of(&data, &texts), family) {
        check(&tokenizer, &input, false);
    }
    let unknown = input.unknown.map(u32::from);
    let (lowercase, strip_accents) = (input.all_bytes, input.space_prefix);
    if let Ok(tokenizer) = Tokenizer::new(of(&data, &texts), Family::WordPiece { unknown, lowercase, strip_accents }) {
        check(&tokenizer, &input, false);
    }
    for charsmap in [None, Some(input.text)] {
        let (space_prefix, merges_spaces) = (input.space_prefix, input.all_bytes);
        let family = Family::Unigram { scores, unknown, charsmap, space_prefix, merges_spaces };
        if let Ok(tokenizer) = Tokenizer::new(of(&data, &texts), family) {
            check(&tokenizer, &input, false);
        }
    }
    if tokens.is_empty() {
        return;
    }
    // Merges of tokens that there are; now and then of the whole input as it is.
    let at = |place: u8| tokens[usize::from(place) % tokens.len()];
    let merges: Vec<Vec<u8>> = input.merges.iter().map(|&(left, right)| [at(left), b" ", at(right)].concat()).collect();
    let both = [data.clone(), array(merges.iter().map(Vec::as_slice))].concat();
    let merges = index_strings(&both, data.len() as u64, merges.len() as u64).expect("well formed");
    let texts = index_strings(&both, 0, count).expect("well formed");
    let pre = RULES[usize::from(input.rule) % RULES.len()];
    let family = |pre, white_space| Family::BytePair { data: &both, merges: &merges, pre, white_space };
    if let Ok(tokenizer) = Tokenizer::new(of(&both, &texts), family(pre, WhiteSpace::Kept)) {
        check(&tokenizer, &input, input.all_bytes && input.tokens.is_empty());
    }
    for (pre, white_space) in [("gemma4", WhiteSpace::Kept), ("whitespace", WhiteSpace::DroppedAndLowercase)] {
        if let Ok(tokenizer) = Tokenizer::new(of(&both, &texts), family(pre, white_space)) {
            check(&tokenizer, &input, false);
        }
    }
});
