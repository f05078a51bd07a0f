//! Restores a session from its saved tokens and pages.

use std::sync::Arc;

use llamacpu_kernels::attention::PAGE_TOKENS;

use crate::kv::{Crossing, PageLayout, Pages};
use crate::picture::{Picture, PictureInput, SavedPicture};
use crate::picture_inputs::check_saved;
use crate::{Config, Error, Session};

/// A session whose pages arrive one by one, created by [`crate::Model::restore`].
#[derive(Debug)]
pub struct Restoration {
    pub(crate) model: Arc<()>,
    pub(crate) context: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) pages: Pages,
    pub(crate) pictures: Vec<Picture>,
}

impl Restoration {
    /// Says what the ids of pictures among the tokens stand for, before any page is added. Without that, the session does
    /// not know.
    ///
    /// # Errors
    /// `Error::Argument` for pictures that do not fit the model, the tokens, or each other; `Error::Memory`.
    pub(crate) fn add_pictures(&mut self, config: &Config, pictures: &[SavedPicture]) -> Result<(), Error> {
        check_saved(config, &self.tokens, pictures)?;
        if pictures.iter().any(|saved| saved.states > 0) {
            let layout =
                PageLayout::new(&config.crossed(), self.pages.layout().kv_type(), self.pages.layout().spare())?;
            let mut crossing = Crossing::new(layout);
            for saved in pictures.iter().filter(|saved| matches!(saved.picture.input, PictureInput::States { .. })) {
                crossing.pictures.record(saved.picture.start, saved.states);
            }
            self.pages.crossing = Some(Box::new(crossing));
        }
        self.pictures = pictures.iter().map(|saved| saved.picture.clone()).collect();
        Ok(())
    }

    /// Number of pages still missing.
    pub fn missing(&self) -> usize {
        let tokens = self.tokens.len();
        let own = tokens.div_ceil(PAGE_TOKENS) - self.pages.count(tokens) + usize::from(!self.pages.has_state(tokens));
        own + self.pages.crossing.as_ref().map_or(0, |crossing| {
            let states = crossing.pictures.states();
            states.div_ceil(PAGE_TOKENS) - crossing.pages.count(states)
        })
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
        if self.pages.count(tokens) < tokens.div_ceil(PAGE_TOKENS) {
            return self.pages.push_page(page, tokens);
        }
        if !self.pages.has_state(tokens) {
            return self.pages.push_state(page, tokens);
        }
        match &mut self.pages.crossing {
            Some(crossing) => crossing.pages.push_page(page, crossing.pictures.states()),
            None => Ok(()),
        }
    }

    /// Returns the completed session.
    ///
    /// # Errors
    /// `Error::Argument` if pages are missing.
    pub fn finish(self) -> Result<Session, Error> {
        if self.missing() > 0 {
            return Err(Error::Argument(format!("{} pages of keys and values are missing", self.missing())));
        }
        Session::new(self.model, self.context, self.tokens, self.pages).with_pictures(self.pictures)
    }
}
