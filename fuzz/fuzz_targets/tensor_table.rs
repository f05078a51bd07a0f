#![no_main]
//! Loading and running a model from a hostile configuration and tensor table: an error or logits, never a panic.
//!
//!     RUSTC_BOOTSTRAP=1 cargo fuzz run tensor_table -- -max_total_time=60 -rss_limit_mb=1024
//!
//! The input is a list of edits to a small sound model, so that most cases get past the first check.

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::mapping::{Load, SourceFile};
use llamacpu_kernels::rope::RopeStyle;
use llamacpu_model::{Config, ExpertGating, Model, RopeConfig, RopeScalingKind, StepItem, TensorInfo, Wanted};

const WIDTH: usize = 32;
const VOCABULARY: usize = 8;
const FILE_BYTES: usize = 1 << 16;

#[derive(Arbitrary, Debug)]
struct Input {
    experts: bool,
    tied: bool,
    config: Vec<(ConfigField, Number)>,
    tensors: Vec<(u8, TensorField, Number)>,
    tokens: [u8; 3],
    kv_type: u8,
}

/// Sizes that are off by one, small, powers of two, or anything.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Number {
    Small(u8),
    Power(u8),
    BelowPower(u8),
    Any(u64),
}

impl Number {
    fn value(self) -> u64 {
        match self {
            Self::Small(value) => u64::from(value),
            Self::Power(bit) => 1 << (bit % 64),
            Self::BelowPower(bit) => (1 << (bit % 64)) - 1,
            Self::Any(value) => value,
        }
    }

    fn float(self) -> f32 {
        match self {
            Self::Small(value) => f32::from(value) / 16.0,
            Self::Any(value) => f32::from_bits(value as u32),
            other => other.value() as f32,
        }
    }
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum ConfigField {
    VocabSize,
    ContextLength,
    EmbeddingLength,
    Layers,
    FeedForward,
    Heads,
    KvHeads,
    KeySize,
    ValueSize,
    Epsilon,
    RopeSize,
    RopeBase,
    NeoX,
    Linear,
    Yarn,
    AttentionScale,
    LogitScale,
    Experts,
    ExpertsUsed,
    Gating,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum TensorField {
    Type,
    Shape(u8),
    Dimensions,
    File,
    Offset,
    Bytes,
    Remove,
    Duplicate,
}

fn sound_config(experts: bool) -> Config {
    Config {
        architecture: "llama".to_owned(),
        vocab_size: VOCABULARY,
        context_length: 64,
        embedding_length: WIDTH,
        layers: 1,
        feed_forward: vec![WIDTH],
        heads: vec![2],
        kv_heads: vec![1],
        key_size: 16,
        value_size: 16,
        norm_epsilon: 1e-5,
        experts: if experts { 2 } else { 0 },
        experts_used: usize::from(experts),
        rope: RopeConfig { size: 16, ..RopeConfig::default() },
        ..Config::default()
    }
}

fn edit_config(config: &mut Config, field: ConfigField, number: Number) {
    let (size, float) = (number.value() as usize, number.float());
    let double = f64::from(float);
    match field {
        ConfigField::VocabSize => config.vocab_size = size,
        ConfigField::ContextLength => config.context_length = size,
        ConfigField::EmbeddingLength => config.embedding_length = size,
        ConfigField::Layers => config.layers = size,
        ConfigField::FeedForward => config.feed_forward = vec![size; size % 4],
        ConfigField::Heads => config.heads = vec![size],
        ConfigField::KvHeads => config.kv_heads = vec![size],
        ConfigField::KeySize => config.key_size = size,
        ConfigField::ValueSize => config.value_size = size,
        ConfigField::Epsilon => config.norm_epsilon = float,
        ConfigField::RopeSize => config.rope.size = size,
        ConfigField::RopeBase => config.rope.base = double,
        ConfigField::NeoX => config.rope.style = RopeStyle::NeoX,
        ConfigField::Linear => {
            config.rope.scaling = RopeScalingKind::Linear;
            config.rope.factor = double;
        }
        ConfigField::Yarn => {
            config.rope.scaling = RopeScalingKind::Yarn;
            config.rope.factor = double;
            config.rope.original_context = size as f64;
            config.rope.ext_factor = double;
            config.rope.beta_slow = double;
        }
        ConfigField::AttentionScale => config.attention_scale = float,
        ConfigField::LogitScale => config.logit_scale = float,
        ConfigField::Experts => config.experts = size,
        ConfigField::ExpertsUsed => config.experts_used = size,
        ConfigField::Gating => {
            config.expert_gating = if size % 2 == 0 { ExpertGating::Sigmoid } else { ExpertGating::SoftmaxSelected };
        }
    }
}

fn sound_tensors(experts: bool, tied: bool) -> Vec<TensorInfo> {
    let width = WIDTH as u64;
    let mut shapes = vec![
        ("token_embd.weight", vec![width, VOCABULARY as u64]),
        ("output_norm.weight", vec![width]),
        ("rope_freqs.weight", vec![8]),
        ("blk.0.attn_norm.weight", vec![width]),
        ("blk.0.attn_q.weight", vec![width, width]),
        ("blk.0.attn_q.bias", vec![width]),
        ("blk.0.attn_k.weight", vec![width, 16]),
        ("blk.0.attn_v.weight", vec![width, 16]),
        ("blk.0.attn_output.weight", vec![width, width]),
        ("blk.0.ffn_norm.weight", vec![width]),
    ];
    if !tied {
        shapes.push(("output.weight", vec![width, VOCABULARY as u64]));
    }
    if experts {
        shapes.push(("blk.0.ffn_gate_inp.weight", vec![width, 2]));
        for name in ["blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight"] {
            shapes.push((name, vec![width, width, 2]));
        }
    } else {
        for name in ["blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"] {
            shapes.push((name, vec![width, width]));
        }
    }
    let mut offset = 0;
    let mut tensors = Vec::new();
    for (name, shape) in shapes {
        let nbytes = 4 * shape.iter().product::<u64>();
        tensors.push(TensorInfo { name: name.to_owned(), ggml_type: 0, shape, file: 0, offset, nbytes });
        offset += nbytes;
    }
    tensors
}

fn elements_of(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().fold(1, |product: u64, &size| product.wrapping_mul(size))
}

fn edit_tensors(tensors: &mut Vec<TensorInfo>, which: u8, field: TensorField, number: Number) {
    if tensors.is_empty() {
        return;
    }
    let index = usize::from(which) % tensors.len();
    let value = number.value();
    let tensor = &mut tensors[index];
    match field {
        TensorField::Type => {
            tensor.ggml_type = value as u32;
            // The size that a block format of this type may have, so that the check of the size is passed now and then.
            for (id, elements, bytes) in [(1, 1, 2), (2, 32, 18), (8, 32, 34), (12, 256, 144), (14, 256, 210), (30, 1, 2)] {
                if tensor.ggml_type == id {
                    tensor.nbytes = (elements_of(tensor) / elements).wrapping_mul(bytes);
                }
            }
        }
        TensorField::Shape(dimension) => {
            let dimension = usize::from(dimension) % tensor.shape.len().max(1);
            if let Some(size) = tensor.shape.get_mut(dimension) {
                *size = value;
                tensor.nbytes = elements_of(tensor).wrapping_mul(4);
            }
        }
        TensorField::Dimensions => tensor.shape.resize((value % 6) as usize, 1),
        TensorField::File => tensor.file = value as usize,
        TensorField::Offset => tensor.offset = value,
        TensorField::Bytes => tensor.nbytes = value,
        TensorField::Remove => {
            tensors.remove(index);
        }
        TensorField::Duplicate => {
            let copy = tensors[index].clone();
            tensors.push(copy);
        }
    }
}

/// A file of pseudo-random bytes that all tensors point into; finite and not-finite numbers occur.
fn data_file() -> &'static Arc<SourceFile> {
    static FILE: OnceLock<Arc<SourceFile>> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("llamacpu-fuzz-{}", std::process::id()));
        let mut state = 1_u32;
        let bytes: Vec<u8> = (0..FILE_BYTES)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        std::fs::write(&path, bytes).expect("the folder for temporary files is writable");
        SourceFile::open(&path).expect("the file that was just written")
    })
}

fuzz_target!(|input: Input| {
    let mut config = sound_config(input.experts);
    let mut tensors = sound_tensors(input.experts, input.tied);
    for &(field, number) in input.config.iter().take(4) {
        edit_config(&mut config, field, number);
    }
    for &(which, field, number) in input.tensors.iter().take(6) {
        edit_tensors(&mut tensors, which, field, number);
    }
    let files = [Arc::clone(data_file())];
    let Ok(model) = Model::open(&files, config, &tensors, (Some(1), Load::Map), None) else { return };
    let kv_type = [KvType::F32, KvType::F16, KvType::Q8_0][usize::from(input.kv_type) % 3];
    let Ok(session) = model.session(None, kv_type) else { return };
    let tokens = input.tokens.map(u32::from);
    let item = StepItem { session: &session, tokens: &tokens, pictures: &[], wanted: Wanted::Last };
    if let Ok(logits) = model.step(&[item], None) {
        assert_eq!(logits.len(), model.config().vocab_size);
        assert_eq!(session.position().expect("nobody else uses it"), tokens.len());
    }
});
