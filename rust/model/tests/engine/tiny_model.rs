//! A tiny model of pseudo-random weights, written to a temporary file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::{Load, SourceFile};
use llamacpu_model::{Config, Error, Model, RopeConfig, TensorInfo};

/// A model file and its table; the file is removed with this value.
pub(crate) struct TinyModel {
    pub(crate) config: Config,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) path: PathBuf,
}

impl TinyModel {
    /// A model with the sizes of `config`; `experts` decides between dense and routed layers.
    pub(crate) fn new(config: Config) -> Self {
        Self::in_formats(config, |_| Format::F32)
    }

    /// The same with weights in the formats that `format` says for the names of the matrices, without their layers.
    pub(crate) fn in_formats(config: Config, format: fn(&str) -> Format) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("llamacpu-test-{}-{}.bin", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let (tensors, bytes) = write_tensors(&config, format);
        std::fs::write(&path, bytes).expect("the temporary folder is writable");
        Self { config, tensors, path }
    }

    pub(crate) fn open(&self, threads: usize) -> Result<Model, Error> {
        self.open_by(Load::Map, threads)
    }

    /// Mapped or copied.
    pub(crate) fn open_by(&self, load: Load, threads: usize) -> Result<Model, Error> {
        Model::open(&[self.file()], self.config.clone(), &self.tensors, (Some(threads), load), None)
    }

    /// The same file under a changed table.
    pub(crate) fn open_with(&self, change: impl FnOnce(&mut Config, &mut Vec<TensorInfo>)) -> Result<Model, Error> {
        let (mut config, mut tensors) = (self.config.clone(), self.tensors.clone());
        change(&mut config, &mut tensors);
        Model::open(&[self.file()], config, &tensors, (Some(1), Load::Map), None)
    }

    fn file(&self) -> Arc<SourceFile> {
        SourceFile::open(&self.path).expect("the file that was just written")
    }
}

impl Drop for TinyModel {
    fn drop(&mut self) {
        // Nothing depends on it: a file that stays is left to the system.
        drop(std::fs::remove_file(Path::new(&self.path)));
    }
}

/// Two layers, grouped heads.
pub(crate) fn dense() -> Config {
    Config {
        architecture: "llama".to_owned(),
        vocab_size: 40,
        context_length: 256,
        embedding_length: 32,
        layers: 2,
        feed_forward: vec![48, 64],
        heads: vec![4, 4],
        kv_heads: vec![2, 2],
        key_size: 8,
        value_size: 8,
        norm_epsilon: 1e-5,
        rope: RopeConfig { size: 8, ..RopeConfig::default() },
        ..Config::default()
    }
}

/// The same with four experts, of which a token uses two.
pub(crate) fn routed() -> Config {
    Config { experts: 4, experts_used: 2, ..dense() }
}

fn write_tensors(config: &Config, format: fn(&str) -> Format) -> (Vec<TensorInfo>, Vec<u8>) {
    let mut writer = Writer { format, tensors: Vec::new(), bytes: Vec::new(), state: 1 };
    let width = config.embedding_length;
    writer.add("token_embd.weight", &[width, config.vocab_size]);
    writer.add("output_norm.weight", &[width]);
    for layer in 0..config.layers {
        let (query, shared) = (config.heads[layer] * config.key_size, config.kv_heads[layer] * config.key_size);
        let inner = config.feed_forward[layer];
        let mut add = |name: &str, shape: &[usize]| writer.add(&format!("blk.{layer}.{name}.weight"), shape);
        add("attn_norm", &[width]);
        add("attn_q", &[width, query]);
        add("attn_k", &[width, shared]);
        add("attn_v", &[width, shared]);
        add("attn_output", &[query, width]);
        add("ffn_norm", &[width]);
        if config.experts > 0 {
            add("ffn_gate_inp", &[width, config.experts]);
            add("ffn_gate_exps", &[width, inner, config.experts]);
            add("ffn_up_exps", &[width, inner, config.experts]);
            add("ffn_down_exps", &[inner, width, config.experts]);
        } else {
            add("ffn_gate", &[width, inner]);
            add("ffn_up", &[width, inner]);
            add("ffn_down", &[inner, width]);
        }
    }
    (writer.tensors, writer.bytes)
}

struct Writer {
    format: fn(&str) -> Format,
    tensors: Vec<TensorInfo>,
    bytes: Vec<u8>,
    state: u64,
}

impl Writer {
    fn add(&mut self, name: &str, shape: &[usize]) {
        let offset = self.bytes.len();
        let elements: usize = shape.iter().product();
        let mut values = Vec::with_capacity(elements);
        for _ in 0..elements {
            // A linear congruential generator (Knuth's constants): any numbers around zero will do.
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            values.push((self.state >> 40) as f32 / (1u32 << 24) as f32 - 0.5);
        }
        let plain = name.split('.').nth_back(1).expect("names have two parts");
        let format = if shape.len() == 1 { Format::F32 } else { (self.format)(plain) };
        let nbytes = format.row_bytes(elements).expect("whole blocks");
        self.bytes.resize(offset + nbytes, 0);
        format.quantize(&values, &mut self.bytes[offset..]).expect("a format that can be written");
        let shape = shape.iter().map(|&size| size as u64).collect();
        let (ggml_type, name) = (format.info().ggml_id, name.to_owned());
        self.tensors.push(TensorInfo { name, ggml_type, shape, file: 0, offset: offset as u64, nbytes: nbytes as u64 });
    }
}
