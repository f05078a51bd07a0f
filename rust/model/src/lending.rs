//! Keys and values that the session of one model lends to another, which proposes tokens to it (as Gemma 4's
//! assistant does). The borrower has no session: its layers attend to pages of the lender, which nothing writes meanwhile.

use llamacpu_kernels::attention::{KvLayout, PAGE_TOKENS};

use crate::config::LayerConfig;
use crate::error::zeroed;
use crate::feed_forward::project;
use crate::forward::forward;
use crate::hidden::Hidden;
use crate::kv::{Kept, Pages};
use crate::pass::Segment;
use crate::row_inputs::fuse;
use crate::scratch::Scratch;
use crate::{Error, Interrupted, Model, Session};

/// What a pair leads to.
#[derive(Debug, Default)]
pub struct LentOutput {
    /// The logits of the token after it.
    pub logits: Vec<f32>,
    /// What stands for the lending model's state in the next pair.
    pub state: Vec<f32>,
}

impl Model {
    /// Whether a session holds all keys and values that a pair behind its tokens would see. If it was rewound far, those at
    /// the beginning of a window may be missing.
    ///
    /// # Errors
    /// `Error::Argument` for a model that reads no other one's keys and values, and for a session whose layers do not fit;
    /// `Error::Busy` if the session is in a step.
    pub fn can_borrow(&self, lender: &Session) -> Result<bool, Error> {
        let held = lender.hold()?;
        self.check_lender(&held.pages)?;
        self.is_held(&held.pages, held.position)
    }

    /// Runs a pair, the embedding of the last token and the lending model's state before it, 2 × `next_width` numbers. The
    /// token's position is that behind the tokens of the session, all of which it sees, or those in the window of a layer.
    ///
    /// # Errors
    /// Those of `can_borrow`; `Error::Argument` for a session that does not hold what the pair would see, and for another
    /// number of numbers or some that are not finite; `Error::Kernel` and `Error::Memory` as for `step`.
    pub fn step_lent(
        &self,
        lender: &Session,
        pair: Vec<f32>,
        interrupted: Option<Interrupted>,
    ) -> Result<LentOutput, Error> {
        let (context, config, weights) = self.parts(interrupted);
        let Some((rows, next)) = weights.rows.as_ref().and_then(|rows| Some((rows, rows.next.as_ref()?))) else {
            return Err(not_a_borrower(&config.architecture));
        };
        if pair.len() != 2 * config.next_width || pair.iter().any(|number| !number.is_finite()) {
            return Err(Error::Argument(format!(
                "a pair of {} numbers: expected {}, all of them finite",
                pair.len(),
                2 * config.next_width
            )));
        }
        let mut held = lender.hold()?;
        self.check_lender(&held.pages)?;
        let position = held.position;
        if !self.is_held(&held.pages, position)? {
            return Err(Error::Argument(
                "the session lacks keys and values that the pair would see: expected some tokens, after a step"
                    .to_owned(),
            ));
        }
        let places = [config.layers];
        let mut hidden = Hidden::new(&places, config.layers, config.embedding_length, 1)?;
        let mut output = LentOutput {
            logits: zeroed(Some(config.vocab_size), "logits")?,
            state: zeroed(Some(config.next_width), "states")?,
        };
        let mut buffers = self.take_buffers();
        let done = self.with_files(|| {
            let row = fuse(&context, (config, rows), pair)?;
            let mut segments = [Segment {
                pages: &mut held.pages,
                tokens: &[0],
                rows: &row,
                together: false,
                pictures: (&[], 0),
                position,
                shift: 0,
                long: self.rotations().is_long(lender.context()),
                second_part: usize::MAX,
                wanted: 1,
                kept: 1,
                adapters: None,
            }];
            let parts = (config, weights, self.rotations());
            forward(&context, parts, &mut segments, &mut buffers, &mut hidden, &mut output.logits)?;
            let state = hidden.into_values();
            project(&context, &state, 1, &mut Scratch::default(), &mut [(next, &mut output.state)])
        });
        self.keep_buffers(buffers);
        done.map(|()| output)
    }

    /// # Errors
    /// `Error::Argument` unless every layer finds the keys and values that it expects.
    fn check_lender(&self, pages: &Pages) -> Result<(), Error> {
        let config = self.config();
        if config.lent_layers.is_empty() {
            return Err(not_a_borrower(&config.architecture));
        }
        for layer in 0..config.layers {
            let LayerConfig { kv_heads, key_size, value_size, lent, .. } = config.layer(layer);
            let layout = pages.layout().layout(Kept::Layer(lent.unwrap_or(layer)))?;
            let expected = KvLayout { kv_type: layout.kv_type, kv_heads, key_size, value_size, latent: false };
            if *layout != expected {
                return Err(Error::Argument(format!(
                    "layer {layer} reads {kv_heads} heads with keys of {key_size} and values of {value_size} elements: \
                     the other model has {} with {} and {}",
                    layout.kv_heads, layout.key_size, layout.value_size
                )));
            }
        }
        Ok(())
    }

    /// Whether all pages that a pair behind `tokens` tokens sees are present.
    fn is_held(&self, pages: &Pages, tokens: usize) -> Result<bool, Error> {
        if tokens == 0 || !pages.hold_pages(tokens) {
            return Ok(false);
        }
        for layer in 0..self.config().layers {
            let LayerConfig { lent, sight, .. } = self.config().layer(layer);
            let slices = pages.layer_slices(Kept::Layer(lent.unwrap_or(layer)), tokens)?;
            let first = sight.behind(tokens).start / PAGE_TOKENS;
            if slices[first..].iter().any(|page| page.is_empty()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn not_a_borrower(name: &str) -> Error {
    Error::Argument(format!("the model ({name}) reads no keys and values of another one"))
}
