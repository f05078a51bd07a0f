//! The table of rules: the names of `tokenizer.ggml.pre`, and the expressions that belong to them.

use super::expressions::{
    AFMOE_SCRIPTS, CJK, CUTS_BEFORE_THREES, DEEPSEEK_LETTERS, DEEPSEEK_V3, EXAONE_MOE, GPT2, JAIS_2, KIMI_K2, LINES,
    QWEN_35, SEED_CODER, SPARK_2_5, THREES_OF_NUMBERS, THREES_OF_WORDS, UFAKZEKA, WORDS_OF_BLOOM, contraction,
    contractions, gpt4o, llama3,
};

/// The units in which the tokens of a vocabulary are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbols {
    /// A letter for each byte.
    Bytes,
    /// Characters as they are; bytes without a character have separate tokens.
    Characters,
    /// The same, with U+2581 for a space.
    CharactersAndMarkedSpaces,
}

/// A family of models that share expressions and conventions.
pub(super) struct Rule {
    pub(super) names: &'static [&'static str],
    /// Applied in order, each to the pieces that the previous one produced.
    pub(super) expressions: &'static [&'static str],
    /// Whether a word that is a token is left unmerged (`ignore_merges`).
    pub(super) whole_words: bool,
    /// Whether texts begin with BOS if the file does not say.
    pub(super) adds_bos: bool,
    /// The symbols that merging starts from.
    pub(super) symbols: Symbols,
}

/// All rules.
pub(super) const RULES: &[Rule] = &[
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
        symbols: Symbols::Bytes,
    },
    Rule::plain(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[llama3!("{1,3}")]),
    Rule {
        names: &["minicpm5"],
        expressions: &[r"\p{N}{1,3}", llama3!("+")],
        whole_words: true,
        adds_bos: false,
        symbols: Symbols::Bytes,
    },
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
    Rule::plain(&["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"], &[gpt4o!(contraction!(), "{1,3}")]),
    Rule {
        names: &["tekken"],
        expressions: &[gpt4o!("", "")],
        whole_words: true,
        adds_bos: true,
        symbols: Symbols::Bytes,
    },
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
    Rule::plain(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[r"\p{N}{1,3}", CJK, DEEPSEEK_V3]),
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
            gpt4o!(contraction!(), ""),
        ],
        whole_words: true,
        adds_bos: false,
        symbols: Symbols::Bytes,
    },
    Rule::plain(&["jais-2"], &[JAIS_2]),
    Rule::plain(&["superbpe"], &[r"\p{N}+", CUTS_BEFORE_THREES]),
    Rule::plain(&["tiny_aya", "cohere2moe"], &[THREES_OF_WORDS, gpt4o!(contraction!(), "{1,3}")]),
    Rule::plain(&["kimi-k2"], &[KIMI_K2]),
    Rule {
        names: &["chameleon"],
        expressions: &[
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
        whole_words: false,
        adds_bos: true,
        symbols: Symbols::Bytes,
    },
    Rule::plain(&["afmoe"], &[THREES_OF_NUMBERS, AFMOE_SCRIPTS, DEEPSEEK_V3]),
    Rule::plain(&["exaone-moe"], &[EXAONE_MOE]),
    Rule::plain(&["spark2_5"], &[r"\p{N}{1,3}", CJK, SPARK_2_5, r"\p{N}"]),
    Rule::plain(&["ufakzeka"], &[UFAKZEKA]),
    Rule {
        names: &["granite-embed-multi-97m"],
        expressions: &[gpt4o!(contraction!(), "{1,3}")],
        whole_words: true,
        adds_bos: false,
        symbols: Symbols::Bytes,
    },
    Rule {
        names: &["gemma4", "granite-embed-multi-311m"],
        expressions: &[LINES],
        whole_words: false,
        adds_bos: true,
        symbols: Symbols::CharactersAndMarkedSpaces,
    },
    Rule {
        names: &["sarvam-moe"],
        expressions: &[LINES],
        whole_words: false,
        adds_bos: false,
        symbols: Symbols::CharactersAndMarkedSpaces,
    },
    Rule {
        names: &["whitespace"],
        expressions: &[r"\S+"],
        whole_words: false,
        adds_bos: false,
        symbols: Symbols::Characters,
    },
    Rule::plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    Rule::plain(&["default", ""], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    Rule::plain(&["poro-chat", "bloom", "gpt3-finnish"], &[WORDS_OF_BLOOM]),
    Rule::plain(&["viking"], &[WORDS_OF_BLOOM, r"\p{N}"]),
];

impl Rule {
    const fn plain(names: &'static [&'static str], expressions: &'static [&'static str]) -> Self {
        Self { names, expressions, whole_words: false, adds_bos: false, symbols: Symbols::Bytes }
    }
}
