//! The error type of this crate.

use std::collections::TryReserveError;

/// The beginning of a text from a file, for use in a message.
pub(crate) fn shown(text: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * LONGEST)]).into_owned();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Errors of this crate. Messages say what was wrong, what was expected and, where it helps, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data in the file is inconsistent: counts, lengths or ids are out of range.
    #[error("{0}")]
    File(String),
    /// The file is valid, but requires something that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// An argument of a call is out of range.
    #[error("{0}")]
    Argument(String),
    /// The grammar cannot be used, or a text is not allowed by it.
    #[error("{0}")]
    Grammar(String),
    /// The work was cancelled from outside.
    #[error("stopped before it was done")]
    Cancelled,
    /// The operating system could not provide the memory.
    #[error("no memory for a text or a vocabulary of this size; use a shorter text, or close other models or sessions")]
    Memory,
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Self {
        Self::Memory
    }
}

/// Checks that `bytes` bytes can be allocated, before a library allocates them piece by piece with no way to fail.
pub(crate) fn needs(bytes: usize) -> Result<(), Error> {
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(bytes)?;
    // Otherwise the compiler removes the unused allocation and assumes that it succeeded.
    std::hint::black_box(&room);
    Ok(())
}

/// Checks from time to time that there is memory for data that is built piece by piece with no way to fail. The reserve
/// of the process does not satisfy the check, since it is smaller than the minimum checked here.
pub(crate) struct Headroom {
    /// Bytes that may be used before the next check.
    left: usize,
}

impl Headroom {
    /// Minimum number of bytes checked at a time.
    const STEP: usize = 4 << 20;

    /// Allows `left` bytes to be used without a check.
    pub(crate) fn new(left: usize) -> Self {
        Self { left }
    }

    /// Accounts for `bytes` that are about to be used.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > self.left {
            self.left = bytes.max(Self::STEP);
            // Twice, because a growing buffer exists twice while it is moved.
            needs(self.left.saturating_mul(2))?;
        }
        self.left -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert!(matches!(needs(1 << 46), Err(Error::Memory)));
        assert!(needs(1 << 20).is_ok());
        let mut headroom = Headroom::new(10);
        assert!(headroom.take(10).is_ok());
        assert!(matches!(headroom.take(1 << 45), Err(Error::Memory)));
    }

    #[test]
    fn long_texts_are_cut_in_messages() {
        assert_eq!(shown(b"a\xff\n"), "\"a\u{fffd}\\n\"");
        assert_eq!(shown("é".repeat(60).as_bytes()), format!("\"{}\"", "é".repeat(60)));
        assert_eq!(shown("é".repeat(1000).as_bytes()), format!("\"{}\"...", "é".repeat(60)));
    }
}
