//! The threads of the kernels by themselves. With `--cfg loom` their models are run, without it their tests.

#[path = "../../rust/kernels/src/error.rs"]
mod error;
// In a module with a folder, so that its own module is found beside it.
#[path = "../../rust/kernels/src"]
mod kernels {
    pub mod memory;
}
#[path = "../../rust/kernels/src/threads"]
mod threads {
    pub(crate) mod crew;
    pub(crate) mod placement;
    pub(crate) mod share;
    pub(crate) mod sync;
    pub(crate) mod turn;
    pub(crate) mod wait;

    #[cfg(all(test, loom))]
    #[path = "../../../../loom/src/models.rs"]
    mod models;
    #[cfg(all(test, not(loom)))]
    #[path = "../../../../loom/src/races.rs"]
    mod races;
}

pub use error::Error;
pub use kernels::memory;
