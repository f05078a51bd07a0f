//! The errors of this crate; every message says what was wrong, what was expected and what to do.

/// Error of a kernel call, such as bad shapes, bytes that do not match the format, or a file that cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sizes do not match.
    #[error("{0}")]
    Shape(String),
    /// A block format or instruction set is unknown or unavailable.
    #[error("{0}")]
    Unsupported(String),
    /// The file cannot be opened, mapped or read.
    #[error("{0}")]
    File(String),
    /// The file has changed since it was opened.
    #[error("{0}")]
    Changed(String),
    /// The operating system refused an allocation.
    #[error("no memory for {bytes} bytes of {purpose}; close other models or sessions, or use a smaller context")]
    Memory {
        /// Size of the failed allocation in bytes.
        bytes: usize,
        /// Purpose of the allocation.
        purpose: &'static str,
    },
    /// The caller asked to stop; results of the interrupted call are undefined.
    #[error("cancelled")]
    Cancelled,
}
