//! Restores a session from its saved tokens and pages.

use std::sync::Arc;

use llamacpu_kernels::attention::PAGE_TOKENS;

use crate::kv::Pages;
use crate::{Error, Session};

/// A session whose pages arrive one by one, created by [`crate::Model::restore`].
#[derive(Debug)]
pub struct Restoration {
    pub(crate) model: Arc<()>,
    pub(crate) context: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) pages: Pages,
}

impl Restoration {
    /// Number of pages still missing.
    pub fn missing(&self) -> usize {
        let tokens = self.tokens.len();
        tokens.div_ceil(PAGE_TOKENS) - self.pages.count(tokens) + usize::from(!self.pages.has_state(tokens))
    }

    /// Adds the next page, as returned by [`Session::page`]. Any bytes of the right length are accepted: the caller
    /// must make sure that they are the right ones.
    ///
    /// # Errors
    /// `Error::Argument` if no page is missing or the page has the wrong size; `Error::Kernel` if there is no memory
    /// for it.
    pub fn push(&mut self, page: &[u8]) -> Result<(), Error> {
        if self.missing() == 0 {
            return Err(Error::Argument("more pages of keys and values than the tokens fill".to_owned()));
        }
        let tokens = self.tokens.len();
        if self.pages.count(tokens) == tokens.div_ceil(PAGE_TOKENS) {
            return self.pages.push_state(page, tokens);
        }
        self.pages.push_page(page, tokens)
    }

    /// Returns the completed session.
    ///
    /// # Errors
    /// `Error::Argument` if pages are missing.
    pub fn finish(self) -> Result<Session, Error> {
        if self.missing() > 0 {
            return Err(Error::Argument(format!("{} pages of keys and values are missing", self.missing())));
        }
        Ok(Session::new(self.model, self.context, self.tokens, self.pages))
    }
}
