//! The one error type of this crate.

/// Why text work failed. Messages say what was wrong, what was expected, and where it helps, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes of the file contradict themselves: counts, lengths or ids out of range.
    #[error("{0}")]
    File(String),
    /// The file is sound, but asks for something that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// An argument of a call is out of range.
    #[error("{0}")]
    Argument(String),
}
