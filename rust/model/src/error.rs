//! Errors of loading and running a model; every message says what was wrong, what was expected and what to do.

use llamacpu_kernels::Error as KernelError;

/// An error in loading or running a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration or the tensors do not describe a model that can run.
    #[error("{0}")]
    Model(String),
    /// An argument of a call is out of its range.
    #[error("{0}")]
    Argument(String),
    /// The tokens do not fit into the session's context.
    #[error(
        "the context is full: {position} tokens are there and {added} more do not fit into {context}; \
         shorten the prompt, truncate the session or open one with a larger context"
    )]
    ContextOverflow {
        /// Tokens in the session before the call.
        position: usize,
        /// Tokens that the call would add.
        added: usize,
        /// The maximum number of tokens that the session may hold.
        context: usize,
    },
    /// A text that must go through the model as a whole is longer than the session or the model allows.
    #[error(
        "the text has {tokens} tokens and at most {most} have a place here; shorten it, or cut it into several texts"
    )]
    TextTooLong {
        /// Number of tokens in the text.
        tokens: usize,
        /// The maximum number that fits.
        most: usize,
    },
    /// The session is in the middle of another call.
    #[error("{0}")]
    Busy(String),
    /// The operating system could not provide the memory.
    #[error("no memory for {bytes} bytes of {purpose}; close other models or sessions, or use a smaller context")]
    Memory {
        /// Size in bytes of the allocation that failed.
        bytes: usize,
        /// What it was for.
        purpose: &'static str,
    },
    /// An error from the kernels or from mapping a file.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Error {
    /// Whether the caller's `interrupted` stopped the work.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Kernel(KernelError::Cancelled))
    }
}

/// Grows `buffer` to at least `len` elements and returns the first `len`, which hold leftovers of earlier use.
pub(crate) fn sized<'a>(
    buffer: &'a mut Vec<f32>,
    len: Option<usize>,
    purpose: &'static str,
) -> Result<&'a mut [f32], Error> {
    let len = len.ok_or(Error::Memory { bytes: usize::MAX, purpose })?;
    if buffer.len() < len {
        // The old contents are not needed, so nothing has to be copied.
        buffer.clear();
        let memory = |_| Error::Memory { bytes: len.saturating_mul(size_of::<f32>()), purpose };
        buffer.try_reserve_exact(len).map_err(memory)?;
        buffer.resize(len, 0.0);
    }
    Ok(&mut buffer[..len])
}

/// `len` zeros.
pub(crate) fn zeroed(len: Option<usize>, purpose: &'static str) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    sized(&mut values, len, purpose)?;
    Ok(values)
}
