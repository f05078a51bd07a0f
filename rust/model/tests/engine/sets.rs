//! Whole models on every instruction set of the processor.

use crate::tiny_model::{TinyModel, dense, routed};
use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_model::{Config, RopeConfig, StepItem, Wanted};

/// Formats with and without minimums, with one and two scales for 32 columns, with tables and as plain numbers.
fn mixed(name: &str) -> Format {
    match name {
        "token_embd" => Format::Q6_K,
        "attn_q" => Format::Q4_K,
        "attn_k" => Format::Q8_0,
        "attn_v" => Format::Q5_1,
        "attn_output" => Format::F16,
        "ffn_gate_inp" => Format::F32,
        "ffn_gate" | "ffn_gate_exps" => Format::IQ4_NL,
        "ffn_up" | "ffn_up_exps" => Format::Q2_K,
        _ => Format::Q3_K,
    }
}

/// Sizes that every format can take.
fn wide(config: Config) -> Config {
    let rope = RopeConfig { size: 64, ..config.rope };
    Config { embedding_length: 256, feed_forward: vec![256, 512], key_size: 64, value_size: 64, rope, ..config }
}

#[test]
fn every_instruction_set_computes_the_same_logits() {
    for config in [wide(dense()), wide(routed())] {
        let tiny = TinyModel::in_formats(config, mixed);
        let mut model = tiny.open(2).unwrap();
        let tokens: Vec<u32> = (0..83).map(|index| index * index % 37).collect();
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let mut expected: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                model.use_isa(*isa);
                let session = model.session(None, kv_type).unwrap();
                let mut bits = Vec::new();
                // A prompt, a few tokens at a time, then one by one.
                for piece in [&tokens[..70], &tokens[70..73], &tokens[73..80], &tokens[80..82], &tokens[82..]] {
                    let item = StepItem { session: &session, tokens: piece, pictures: &[], wanted: Wanted::All };
                    bits.extend(model.step(&[item], None).unwrap().iter().map(|logit| logit.to_bits()));
                }
                let finite = bits.iter().all(|bits| f32::from_bits(*bits).is_finite());
                assert!(finite && bits.len() == tokens.len() * model.config().vocab_size);
                if let Some(expected) = &expected {
                    assert!(bits == *expected, "{} {kv_type:?}", isa.name());
                }
                expected = Some(bits);
            }
        }
    }
}
