//! Training of LoRA adapters (E. Hu et al., arXiv:2106.09685) on a model whose own weights stay as they are, in any format
//! (QLoRA; T. Dettmers et al., arXiv:2305.14314). Arithmetic is in f32, except products with quantized weights, which are computed
//! in 8 bits unless the shape asks for exact ones.
//!
//! The stream at the input of every layer is kept; a layer computes the rest again before its backward pass, except
//! in the layers that keep it. Either way the bits are the same.

mod activation;
mod adapters;
mod attention;
mod buffers;
mod check;
mod feed_forward;
mod floats;
mod layer;
mod linear;
mod loss;
mod optimizer;
mod run;
mod shape;
mod step;
mod trainer;

pub use adapters::Trainable;
pub use buffers::training_weights_nbytes;
pub use optimizer::OptimizerStep;
pub use shape::TrainerShape;
pub use step::Batch;
pub use trainer::{Trainer, trainable, training_nbytes};
