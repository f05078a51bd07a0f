//! Vision encoders: vision transformers (A. Dosovitskiy et al., arXiv:2010.11929) and the projectors that turn their
//! states into rows for a language model. As with the text model there is one pass, and every architecture is a
//! [`VisionConfig`] of sizes and switches.
//!
//! A picture comes as tiles of normalized pixels. Tiles are encoded separately, or, where the configuration has
//! `joint_tiles`, attend to each other.

mod attention;
mod choices;
mod config;
mod encoding;
mod layer;
mod norms;
mod pixels;
mod places;
mod positions;
mod products;
mod projection;
mod resampler;
mod validation;
mod weights;

use std::sync::Arc;

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::{Load, Mapping, SourceFile};
use llamacpu_kernels::threads::{Pool, default_threads};

pub use choices::{ClassToken, MergeOrder, PositionTable, VisionActivation, VisionRotation};
pub use config::VisionConfig;
pub use encoding::Encoding;
pub use pixels::Pixels;

use crate::tensors::{TensorInfo, Tensors};
use crate::{Error, Interrupted};
use weights::VisionWeights;

/// A vision encoder, ready to run: immutable weights and the threads that compute with them.
pub struct PictureEncoder {
    config: VisionConfig,
    weights: VisionWeights,
    files: Vec<Arc<Mapping>>,
    isa: Isa,
    pool: Pool,
}

impl PictureEncoder {
    /// Maps `files` and finds the weights for `config` in the tensor table. If `threads` is `None`, the machine's default
    /// applies.
    ///
    /// # Errors
    /// `Error::Model` for settings and tensors that do not form an encoder; `Error::Kernel` if a file cannot be mapped;
    /// `Error::Memory`.
    pub fn open(
        files: &[Arc<SourceFile>],
        config: VisionConfig,
        tensors: &[TensorInfo],
        threads: Option<usize>,
        interrupted: Option<Interrupted>,
    ) -> Result<Self, Error> {
        Self::load(files, config, tensors, threads, interrupted).map_err(|error| match error {
            // Sizes that do not fit together come from the file here.
            Error::Kernel(KernelError::Shape(message)) => Error::Model(message),
            error => error,
        })
    }

    fn load(
        files: &[Arc<SourceFile>],
        config: VisionConfig,
        tensors: &[TensorInfo],
        threads: Option<usize>,
        interrupted: Option<Interrupted>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let files = files.iter().map(|file| Mapping::of(file, Load::Map, interrupted));
        let files = files.collect::<Result<Vec<_>, KernelError>>()?;
        let mut table = Tensors::new(&files, tensors)?;
        let weights = VisionWeights::load(&config, &mut table)?;
        refuse_unread(&config, &table.unread())?;
        let pool = Pool::new(threads.unwrap_or_else(|| default_threads().count))?;
        let encoder = Self { config, weights, files, isa: Isa::chosen()?, pool };
        encoder.check_files()?;
        Ok(encoder)
    }

    /// The sizes and switches of the encoder.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Size of the matrices in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.weights.nbytes()
    }

    fn context<'a>(&'a self, interrupted: Option<Interrupted<'a>>) -> Context<'a> {
        Context { isa: self.isa, pool: &self.pool, interrupted, observer: None }
    }

    /// Checks that the files have not changed since they were opened.
    fn check_files(&self) -> Result<(), Error> {
        Ok(self.files.iter().try_for_each(|file| file.check())?)
    }

    fn watch_files(&self) {
        self.files.iter().for_each(|file| file.watch());
    }
}

/// Refuses tensors of the encoder that nothing read: the file was written for another graph.
fn refuse_unread(config: &VisionConfig, unread: &[&TensorInfo]) -> Result<(), Error> {
    let names = unread.iter().map(|tensor| tensor.name.as_str());
    let begins = |name: &str, starts: &[String]| starts.iter().any(|start| name.starts_with(start.as_str()));
    let names: Vec<_> =
        names.filter(|name| begins(name, &config.prefixes) && !begins(name, &config.ignored_tensors)).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::Model(format!(
        "the picture encoder {:?} has no use for the tensors {}: the file was written for another graph, and running it \
         without them would give wrong results",
        config.kind,
        names[..names.len().min(4)].join(", ")
    )))
}
