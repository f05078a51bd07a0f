//! The single entry point of the engine: a step, which continues any number of sessions in one pass over the weights.

use crate::chunks::{recompute, run};
use crate::config::Input;
use crate::hidden::Hidden;
use crate::input_squares::{InputSquares, Squares};
use crate::model::{Interrupted, Model};
use crate::picture_inputs::check_pictures;
use crate::step_item::{StepItem, StepOutput, Wanted};
use crate::{Error, Session};

impl Model {
    /// Continues the session of every item by the item's tokens, in one pass over the weights, and returns the logits
    /// of the wanted rows: rows × vocabulary, items in order. After an error, every session is in its state before the
    /// call.
    ///
    /// # Errors
    /// `Error::Argument` if an item has no tokens, a token is outside the vocabulary, a session occurs twice or belongs
    /// to another model, or a text cannot be continued; `Error::Model` if logits are wanted from a model that has none;
    /// `Error::Busy` if a session is in another step; `Error::ContextOverflow` or `Error::TextTooLong` if the tokens do
    /// not fit; `Error::Kernel` if the step was cancelled, a file has changed or memory ran out; `Error::Memory`.
    pub fn step(&self, items: &[StepItem], interrupted: Option<Interrupted>) -> Result<Vec<f32>, Error> {
        self.step_hidden(items, &[], interrupted).map(|output| output.logits)
    }

    /// Same as `step`, but also returns the hidden states of every token at `places`: a value below the number of
    /// layers means the residual stream after that layer (counted from 0); the number of layers means the stream after
    /// the final norm, from which the logits are computed.
    ///
    /// # Errors
    /// Those of `step`; `Error::Argument` if `places` has a value above the number of layers or more values than there
    /// are places.
    pub fn step_hidden(
        &self,
        items: &[StepItem],
        places: &[usize],
        interrupted: Option<Interrupted>,
    ) -> Result<StepOutput, Error> {
        self.observed(items, places, interrupted, None)
    }

    /// Same as `step`, but every token goes through all layers, and the sums of squares of the inputs of all matrices are
    /// returned, too. Tokens are added in the order of the items, within the same matrix.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn step_squares(
        &self,
        items: &[StepItem],
        interrupted: Option<Interrupted>,
    ) -> Result<(Vec<f32>, Vec<Squares>), Error> {
        let squares = InputSquares::new(self.files());
        let last = [self.config().layers];
        let output = self.observed(items, &last, interrupted, Some(&squares))?;
        Ok((output.logits, squares.into_sums()))
    }

    fn observed(
        &self,
        items: &[StepItem],
        places: &[usize],
        interrupted: Option<Interrupted>,
        squares: Option<&InputSquares>,
    ) -> Result<StepOutput, Error> {
        self.check(items)?;
        if self.config().streams > 0 && places.iter().any(|&place| place < self.config().layers) {
            return Err(Error::Argument(format!(
                "the model ({}) has {} residual streams, and no single hidden state after a layer: expected {} only, the \
                 place of the last norm",
                self.config().architecture,
                self.config().streams,
                self.config().layers
            )));
        }
        let rows = items.iter().map(|item| item.tokens.len()).sum();
        let mut hidden = Hidden::new(places, self.config().layers, self.config().embedding_length, rows)?;
        let mut sessions = items.iter().map(|item| item.session.hold()).collect::<Result<Vec<_>, _>>()?;
        for (item, session) in items.iter().zip(&mut sessions) {
            let (position, added) = (session.position, item.tokens.len());
            let context = item.session.context().min(self.config().most_tokens());
            if position > 0 && !self.config().causal {
                return Err(Error::Argument(format!(
                    "tokens of this model see those behind them, so that a text of {position} tokens cannot go on: \
                     give the whole text to one step, and a new session to every text"
                )));
            }
            if added > context && !self.config().causal {
                return Err(Error::TextTooLong { tokens: added, most: context });
            }
            if added > context.saturating_sub(position) {
                return Err(Error::ContextOverflow { position, added, context });
            }
            session.expect(added, item.pictures.len())?;
            // Drops whatever a step that panicked may have left over.
            session.pages.truncate(position);
        }
        let mut buffers = self.take_buffers();
        let result = self.with_files(|| {
            recompute(self, items, &mut sessions, &mut buffers, interrupted)?;
            run(self, items, &mut sessions, &mut buffers, &mut hidden, (interrupted, squares))
        });
        self.keep_buffers(buffers);
        for (item, session) in items.iter().zip(&mut sessions) {
            let (tokens, pictures) = if result.is_ok() { (item.tokens, item.pictures) } else { (&[][..], &[][..]) };
            session.finish(tokens, pictures)?;
        }
        Ok(StepOutput { logits: result?, hidden: hidden.into_values() })
    }

    /// Computes the keys and values that a session lacks because it was rewound too far, now rather than in its next step.
    ///
    /// # Errors
    /// `Error::Busy` if the session is in a step; `Error::Argument` if it belongs to another model; `Error::Kernel` if
    /// the work was cancelled, a file has changed or memory ran out; `Error::Memory`.
    pub fn complete(&self, session: &Session, interrupted: Option<Interrupted>) -> Result<(), Error> {
        let mut held = session.hold()?;
        if held.pages.hold(held.position) {
            return Ok(());
        }
        self.check_owner(session)?;
        let item = StepItem { session, tokens: &[], pictures: &[], wanted: Wanted::None };
        let mut buffers = self.take_buffers();
        let sessions = std::slice::from_mut(&mut held);
        let result = self.with_files(|| recompute(self, &[item], sessions, &mut buffers, interrupted));
        self.keep_buffers(buffers);
        held.finish(&[], &[])?;
        result
    }

    fn check(&self, items: &[StepItem]) -> Result<(), Error> {
        if self.config().input != Input::Tokens {
            return Err(Error::Argument(format!(
                "the model ({}) is a drafter, which takes rows in place of tokens; open the model it was made for",
                self.config().architecture
            )));
        }
        for (index, item) in items.iter().enumerate() {
            if !self.config().output && item.wanted != Wanted::None {
                return Err(Error::Model(format!(
                    "the model ({}) makes vectors of texts and has no logits: it cannot write; ask for embeddings or \
                     hidden states, or open a model that generates text",
                    self.config().architecture
                )));
            }
            self.check_owner(item.session)?;
            if items[..index].iter().any(|other| std::ptr::eq(other.session, item.session)) {
                return Err(Error::Argument(
                    "a session occurs twice in one step; join its tokens into one item".to_owned(),
                ));
            }
            if item.tokens.is_empty() {
                return Err(Error::Argument("no tokens: a step needs at least one per session".to_owned()));
            }
            check_pictures(self.config(), item.tokens, item.pictures)?;
            self.check_tokens(item.tokens)?;
        }
        Ok(())
    }
}
