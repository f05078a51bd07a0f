//! Compute kernels: block formats, matrix products, attention, element-wise functions, threads and file mapping.
//! The only crate of the project with `unsafe` code; it knows nothing about models or Python.

pub mod activation;
pub mod attention;
pub mod backward;
pub mod context;
pub mod conversion;
pub mod cpu;
mod error;
pub mod evaluation;
pub mod formats;
#[doc(hidden)]
pub mod internals;
pub mod low_rank;
pub mod mapping;
mod math;
pub mod matmul;
pub mod memory;
pub mod norm;
pub mod processes;
pub mod recurrent;
pub mod rope;
pub mod sampling;
mod shared;
pub mod simd;
pub mod squares;
pub mod threads;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod words;

pub use error::Error;
