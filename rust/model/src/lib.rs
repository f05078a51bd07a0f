#![forbid(unsafe_code)]
//! Transformers: configuration, weights, KV pages, sessions and the forward pass. Independent of Python.
//!
//! [`Model::open`] loads the weights that a [`Config`] requires; [`Model::step`] continues any number of [`Session`]s
//! in one pass over them.

mod activation;
mod adapter_loading;
mod adapters;
mod attention;
mod chunks;
mod classifier;
mod compressor;
mod config;
mod cross_attention;
mod distances;
mod embedding;
mod error;
mod feed_forward;
mod forward;
mod hidden;
mod indexer;
mod input_squares;
mod joining;
mod kv;
mod latent_attention;
mod layer_input;
mod lending;
mod model;
mod moe;
mod norms;
mod page;
mod pass;
mod picture;
mod picture_inputs;
mod picture_positions;
mod prepare;
mod recurrent;
mod relative;
mod restoration;
mod rotations;
mod routing;
mod row_inputs;
mod row_step;
mod rows;
mod scratch;
mod selection;
mod session;
mod settings;
mod shared_attention;
mod step;
mod step_item;
mod streams;
mod tensors;
mod training;
mod vision;
mod weights;

pub use adapter_loading::AdapterPair;
pub use adapters::{Adapter, AdapterUse, Adapters, Steering};
pub use config::{
    Activation, AttentionGate, Config, EXPERTS_LIMIT, ExpertGating, Gate, GroupScore, HeadOrder, Input, LAYERS_LIMIT,
    NormKind, Norms, QueryKeyNorm, RopeConfig, RopeScalingKind, Rotation, SIZE_LIMIT, StatesNorm,
};
pub use error::Error;
pub use input_squares::Squares;
pub use kv::PAGE_LAYOUT;
pub use lending::LentOutput;
pub use model::{Interrupted, Model};
pub use picture::{FIRST_PICTURE_ID, Grid, Picture, PictureInput, SavedPicture};
pub use restoration::Restoration;
pub use row_step::{RowOutput, RowStep, RowUse};
pub use session::Session;
pub use settings::{Value, Values};
pub use step_item::{StepItem, StepOutput, Wanted};
pub use tensors::TensorInfo;
pub use training::{
    Batch, OptimizerStep, Trainable, Trainer, TrainerShape, trainable, training_nbytes, training_weights_nbytes,
};
pub use vision::{
    ClassToken, Encoding, MergeOrder, PictureEncoder, Pixels, PositionTable, VisionActivation, VisionConfig,
    VisionRotation,
};
