//! What can go wrong in this crate; every message says what was wrong, what was expected and what to do.

/// Error of a kernel call: bad shapes, bytes that do not fit the format, or a file that cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sizes that do not fit together.
    #[error("{0}")]
    Shape(String),
    /// A block format or instruction set that is unknown or unavailable.
    #[error("{0}")]
    Unsupported(String),
    /// The file cannot be opened, mapped or read.
    #[error("{0}")]
    File(String),
    /// The file was sound when it was opened, and is another one now.
    #[error("{0}")]
    Changed(String),
    /// The operating system gave no memory.
    #[error("no memory for {bytes} bytes of {purpose}; close other models or sessions, or use a smaller context")]
    Memory {
        /// Size of the allocation that failed.
        bytes: usize,
        /// What it was for.
        purpose: &'static str,
    },
    /// The caller asked to stop; results of the interrupted call are undefined.
    #[error("cancelled")]
    Cancelled,
}
