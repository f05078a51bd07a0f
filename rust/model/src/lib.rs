#![forbid(unsafe_code)]
//! Transformers: configuration, weights, KV pages, sessions and the one forward pass. Knows no Python.
//!
//! [`Model::open`] finds the weights that a [`Config`] asks for; [`Model::step`] continues any number of [`Session`]s in
//! one pass over them.

mod config;
mod error;
mod feed_forward;
mod forward;
mod hidden;
mod kv;
mod model;
mod moe;
mod page;
mod prepare;
mod restoration;
mod rows;
mod session;
mod settings;
mod tensors;
mod weights;

pub use config::{Config, EXPERTS_LIMIT, ExpertGating, LAYERS_LIMIT, RopeConfig, RopeScalingKind, SIZE_LIMIT};
pub use error::Error;
pub use kv::PAGE_LAYOUT;
pub use model::{Interrupted, Model, StepItem, StepOutput, Wanted};
pub use restoration::Restoration;
pub use session::Session;
pub use settings::{Value, Values};
pub use tensors::TensorInfo;
