//! One conversation: its tokens and their keys and values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::mapping::AlignedBytes;

use crate::Error;
use crate::kv::Pages;

/// A conversation with one model. Several threads may hold it, but only one step at a time may run on it.
#[derive(Debug)]
pub struct Session {
    /// Tells sessions of different models apart.
    pub(crate) model: Arc<()>,
    context: usize,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Every token whose keys and values are in the pages.
    pub(crate) tokens: Vec<u32>,
    pub(crate) pages: Pages,
}

impl Session {
    pub(crate) fn new(model: Arc<()>, context: usize, tokens: Vec<u32>, pages: Pages) -> Self {
        Self { model, context, state: Mutex::new(State { tokens, pages }) }
    }

    /// The most tokens that the session may hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The state, unless a step is running.
    pub(crate) fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            // A panic in a kernel left the position where it was; the step that follows drops the unfinished pages.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(
                "the session is in the middle of another step; wait for it, or fork the session before it starts"
                    .to_owned(),
            )),
        }
    }

    /// Number of tokens that have been processed. Waits for a running step.
    pub fn position(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).tokens.len()
    }

    /// The tokens that have been processed. Waits for a running step.
    pub fn tokens(&self) -> Vec<u32> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).tokens.clone()
    }

    /// How keys and values are stored. Waits for a running step.
    pub fn kv_type(&self) -> KvType {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pages.layout().kv_type()
    }

    /// A copy of the keys and values of the tokens from `index * PAGE_TOKENS` on, as [`crate::Restoration::push`] takes
    /// it. Nothing of forgotten tokens is in it.
    pub fn page(&self, index: usize) -> Result<AlignedBytes, Error> {
        let state = self.state()?;
        state.pages.copy_page(index, state.tokens.len())
    }

    /// Bytes of keys and values, pages shared with forks included. Waits for a running step.
    pub fn nbytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pages.nbytes()
    }

    /// Forgets all but the first `tokens` tokens.
    pub fn truncate(&self, tokens: usize) -> Result<(), Error> {
        let mut state = self.state()?;
        let position = state.tokens.len();
        if tokens > position {
            return Err(Error::Argument(format!("cannot truncate the session to {tokens} tokens: it has {position}")));
        }
        state.tokens.truncate(tokens);
        state.pages.truncate(tokens);
        Ok(())
    }

    /// A second conversation with the same past. The memory of the past is shared.
    pub fn fork(&self) -> Result<Self, Error> {
        let mut state = self.state()?.clone();
        state.pages.truncate(state.tokens.len());
        Ok(Self { model: Arc::clone(&self.model), context: self.context, state: Mutex::new(state) })
    }
}
