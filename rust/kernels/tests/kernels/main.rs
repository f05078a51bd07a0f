//! Tests of the kernels, in modules named after those that they test. One crate of its own, linked with the library, so that the
//! kernels are compiled once.

mod activation;
mod attention;
mod backward;
mod conversion;
mod cpu;
mod evaluation;
mod formats;
mod low_rank;
mod mapping;
mod math;
mod matmul;
mod memory;
mod norm;
mod processes;
mod random;
mod recurrent;
mod rope;
mod sampling;
mod small_calls;
mod squares;
mod threads;
#[cfg(target_arch = "x86_64")]
mod tiles;

/// Whether the tests run under an emulator, and not thoroughly: it is about 100 times slower, so the largest tests run fewer of
/// their cases.
fn emulated() -> bool {
    let set = |name| std::env::var_os(name).is_some();
    set("LLAMACPU_EMULATED") && !set("LLAMACPU_THOROUGH")
}
