//! From the tokens and pages of a saved session back to the session.

use std::sync::Arc;

use llamacpu_kernels::attention::PAGE_TOKENS;

use crate::kv::Pages;
use crate::{Error, Session};

/// A session whose pages come one by one; made by [`crate::Model::restore`].
#[derive(Debug)]
pub struct Restoration {
    pub(crate) model: Arc<()>,
    pub(crate) context: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) pages: Pages,
}

impl Restoration {
    /// Number of pages that are still to come.
    pub fn missing(&self) -> usize {
        self.tokens.len().div_ceil(PAGE_TOKENS) - self.pages.len()
    }

    /// Adds the next page, as [`Session::page`] gave it. Any bytes of the right number are taken: whether they are the
    /// right ones is for the caller to know.
    pub fn push(&mut self, page: &[u8]) -> Result<(), Error> {
        if self.missing() == 0 {
            return Err(Error::Argument("more pages of keys and values than the tokens fill".to_owned()));
        }
        self.pages.push_page(page, self.tokens.len())
    }

    /// The session.
    pub fn finish(self) -> Result<Session, Error> {
        if self.missing() > 0 {
            return Err(Error::Argument(format!("{} pages of keys and values are missing", self.missing())));
        }
        Ok(Session::new(self.model, self.context, self.tokens, self.pages))
    }
}
