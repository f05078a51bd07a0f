//! Kernels of training: products with weights in both directions, and the derivatives of everything between them.
//!
//! All arithmetic is in f32. Weights of any format are dequantized a panel at a time, straight from the blocks of the
//! file. As elsewhere in this crate the order of every sum is part of the definition: the terms of a product are added by
//! fma in the order of the inner dimension, 256 at a time, and the sums of these 256 are added in order. So a result has the
//! same bits for any number of threads and every instruction set.

mod activation;
pub(crate) mod attention;
mod byte_operand;
mod byte_product;
mod byte_tile;
mod elements;
mod fill;
mod loss;
mod narrow;
mod norm;
mod optimizer;
mod packed;
mod pieces;
mod product;
mod right;
mod tile;
mod view;

pub use activation::{activate_backward, clamped_swiglu_backward, gated_backward, soft_cap_backward};
pub use attention::{AttentionGradients, AttentionShape, attention_backward, attention_forward};
pub use byte_operand::PackedBytes;
pub use byte_product::multiply_bytes;
pub use elements::add_bias;
pub use loss::{cross_entropy, cross_entropy_in_bytes};
pub use narrow::multiply_narrow;
pub use optimizer::{AdamW, euclidean_norm};
pub use packed::Packed;
pub use product::{Sum, multiply, multiply_turned};
pub use right::Right;
pub use view::View;
