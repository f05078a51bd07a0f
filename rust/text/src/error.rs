//! The one error type of this crate.

use std::collections::TryReserveError;

/// The beginning of a text from a file, for a message.
pub(crate) fn shown(text: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * LONGEST)]).into_owned();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

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
    /// A grammar that cannot be used, or a text that it does not allow.
    #[error("{0}")]
    Grammar(String),
    /// The work was stopped from outside.
    #[error("stopped before it was done")]
    Cancelled,
    /// The operating system gave no memory.
    #[error("no memory for a text or a vocabulary of this size; use a shorter text, or close other models or sessions")]
    Memory,
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Self {
        Self::Memory
    }
}

/// Proves that so many bytes can be had, before a library takes them piece by piece and has no way to fail.
pub(crate) fn needs(bytes: usize) -> Result<(), Error> {
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(bytes)?;
    // The compiler leaves out an allocation that it sees nobody use, and takes it for one that came.
    std::hint::black_box(&room);
    Ok(())
}

/// Proves now and then that there is memory for what is about to be made piece by piece and has no way to fail. What the
/// process keeps in reserve is no such memory, since it is less than the least that is proved here.
pub(crate) struct Headroom {
    /// Bytes that may be used without another proof.
    left: usize,
}

impl Headroom {
    /// Bytes that are proved at a time, at least.
    const STEP: usize = 4 << 20;

    /// `left` bytes may be used unproved.
    pub(crate) fn new(left: usize) -> Self {
        Self { left }
    }

    /// `bytes` are about to be used.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > self.left {
            self.left = bytes.max(Self::STEP);
            // Twice: what grows is there twice while it moves.
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
