//! Adapters: low-rank changes of the matrices of a model (E. Hu et al., "LoRA", arXiv:2106.09685), and vectors that are
//! added to the residual stream between layers (A. Zou et al., "Representation Engineering", arXiv:2310.01405).
//!
//! A model is shared and never changes; what a session goes through belongs to the session. A step may mix sessions with
//! different adapters: the products with the weights of the model are shared by all rows, and each row gets what its own adapters
//! add (`kernels/matmul/additions.rs`), in an order of sums that depends on nothing but these (`kernels/low_rank.rs`).

mod add;
mod parts;
mod rows;
mod steering;

pub(crate) use add::{changes, changes_of_rows};
pub(crate) use parts::Pair;
pub use parts::{Adapter, AdapterUse, Adapters};
pub(crate) use rows::{AdaptedRows, AdaptedText};
pub use steering::Steering;
