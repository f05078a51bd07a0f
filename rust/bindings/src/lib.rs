#![forbid(unsafe_code)]
//! The Python interface: one file per class, no arithmetic. `errors` is the only mapping from Rust errors to Python
//! exceptions.

use pyo3::prelude::*;

mod adapters;
mod config;
mod cpu;
mod errors;
mod evaluation;
mod files;
mod gguf;
mod grammar;
mod interrupt;
mod kernels;
mod kv_type;
mod lists;
mod model;
mod opened;
mod outside;
mod pace;
mod pictures;
mod rows;
mod sampling;
mod saved_pictures;
mod session;
mod stand_in;
mod step_parts;
mod tensor_rows;
mod tokenizer;
mod trainer;

/// Keeps a reserve for code that cannot report an out-of-memory condition.
#[global_allocator]
static ALLOCATOR: llamacpu_kernels::memory::Allocator = llamacpu_kernels::memory::Allocator;

/// The private extension module `llamacpu._native`.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    adapters::register(module)?;
    cpu::register(module)?;
    evaluation::register(module)?;
    files::register(module)?;
    gguf::register(module)?;
    grammar::register(module)?;
    interrupt::register(module)?;
    kernels::register(module)?;
    model::register(module)?;
    pictures::register(module)?;
    rows::register(module)?;
    sampling::register(module)?;
    session::register(module)?;
    tokenizer::register(module)?;
    trainer::register(module)?;
    Ok(())
}
