//! Steps over rows in place of tokens, and what a model lends to another one that proposes tokens to it: embeddings and
//! the output matrix.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{InputBuffers, Job, matmul};

use crate::config::Input;
use crate::error::zeroed;
use crate::forward::{PassBuffers, forward, write_keys};
use crate::hidden::Hidden;
use crate::pass::Segment;
use crate::row_inputs::fuse;
use crate::session::Held;
use crate::{Config, Error, Interrupted, Model, Session};

/// The most rows that go through the layers together.
const CHUNK_ROWS: usize = 512;

/// What a step does with its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowUse {
    /// They go through the layers; each sees itself and those before it.
    Causal,
    /// They go through the layers and all see each other; at most 512.
    Together,
    /// Every layer computes its keys and values from them, and that is all.
    Keys,
}

/// One step over rows.
#[derive(Debug, Clone, Copy)]
pub struct RowStep<'a> {
    /// What the rows continue.
    pub session: &'a Session,
    /// At least one row, as wide as the model takes them.
    pub rows: &'a [f32],
    /// What is done with them.
    pub purpose: RowUse,
    /// How many of the last rows are wanted as results; none for `RowUse::Keys`.
    pub wanted: usize,
}

/// The results of the wanted rows.
#[derive(Debug, Default)]
pub struct RowOutput {
    /// rows × vocabulary; empty if the model has no output matrix.
    pub logits: Vec<f32>,
    /// 2 × rows × embedding: before and after the final norm.
    pub hidden: Vec<f32>,
}

impl Model {
    /// Continues a session of a model that takes rows in place of tokens. After an error, it is in its state before the
    /// call. Neither the division into steps nor the number of threads changes a bit.
    ///
    /// # Errors
    /// `Error::Argument` for a model that takes tokens, for rows of another width or with numbers that are not finite, and
    /// for more wanted rows than there are; otherwise those of `step`.
    pub fn step_rows(&self, step: &RowStep, interrupted: Option<Interrupted>) -> Result<RowOutput, Error> {
        let count = self.check_rows(step)?;
        self.check_owner(step.session)?;
        let config = self.config();
        let places = [config.layers - 1, config.layers];
        let mut held = step.session.hold()?;
        let (position, context) = (held.position, step.session.context());
        if count > context.saturating_sub(position) {
            return Err(Error::ContextOverflow { position, added: count, context });
        }
        held.expect(count, 0)?;
        held.pages.truncate(position);
        let mut ids = llamacpu_kernels::memory::room(count, "tokens")?;
        ids.resize(count, 0);
        let mut hidden = Hidden::new(&places, config.layers, config.embedding_length, step.wanted)?;
        let rows = if config.output { step.wanted } else { 0 };
        let mut logits = zeroed(rows.checked_mul(config.vocab_size), "logits")?;
        let mut buffers = self.take_buffers();
        let results = (&mut hidden, &mut logits[..]);
        let done = self.with_files(|| self.run_rows(step, &ids, &mut held, &mut buffers, results, interrupted));
        self.keep_buffers(buffers);
        held.finish(if done.is_ok() { &ids } else { &[] }, &[])?;
        done?;
        Ok(RowOutput { logits, hidden: hidden.into_values() })
    }

    fn run_rows(
        &self,
        step: &RowStep,
        ids: &[u32],
        held: &mut Held,
        buffers: &mut PassBuffers,
        (hidden, logits): (&mut Hidden, &mut [f32]),
        interrupted: Option<Interrupted>,
    ) -> Result<(), Error> {
        let (context, config, weights) = self.parts(interrupted);
        let (start, width) = (held.position, step.rows.len() / ids.len());
        let long = self.rotations().is_long(step.session.context());
        // Wanted rows must be in one chunk.
        let whole = step.purpose == RowUse::Together || step.wanted > 1;
        let size = if whole { ids.len() } else { CHUNK_ROWS };
        let chunks = ids.chunks(size).zip(step.rows.chunks(size * width)).enumerate();
        for (index, (tokens, rows)) in chunks {
            let position = start + index * size;
            let end = position + tokens.len();
            held.pages.reserve(position, end, start)?;
            let kept = if end == start + ids.len() { step.wanted } else { 0 };
            let mut segments = [Segment {
                pages: &mut held.pages,
                tokens,
                rows,
                together: step.purpose == RowUse::Together,
                pictures: (&[], 0),
                position,
                shift: 0,
                long,
                second_part: usize::MAX,
                wanted: if config.output { kept } else { 0 },
                kept,
                adapters: None,
            }];
            let parts = (config, weights, self.rotations());
            if step.purpose == RowUse::Keys {
                write_keys(&context, parts, &mut segments, buffers)?;
            } else {
                forward(&context, parts, &mut segments, buffers, hidden, logits)?;
            }
            held.pages.commit();
        }
        Ok(())
    }

    /// The number of rows.
    fn check_rows(&self, step: &RowStep) -> Result<usize, Error> {
        let config = self.config();
        let wrong = |message: String| Err(Error::Argument(message));
        if config.input == Input::Tokens {
            return wrong(format!(
                "the model ({}) takes tokens; expected a drafter, which takes rows",
                config.architecture
            ));
        }
        if !config.lent_layers.is_empty() {
            return wrong("the model reads keys and values of another one, and has no sessions of its own".to_owned());
        }
        let width = row_width(config);
        let count = step.rows.len() / width;
        if count == 0 || count * width != step.rows.len() {
            return wrong(format!("{} numbers: expected at least one row of {width}", step.rows.len()));
        }
        if step.purpose == RowUse::Keys && config.input != Input::Rows {
            return wrong("keys alone are made of rows; this model takes pairs".to_owned());
        }
        let most = if step.purpose == RowUse::Keys { 0 } else { count };
        if step.wanted > most || (count > CHUNK_ROWS && (step.wanted > 1 || step.purpose == RowUse::Together)) {
            return wrong(format!(
                "{} of {count} rows are wanted; expected at most {most}, and not several of more than {CHUNK_ROWS}",
                step.wanted
            ));
        }
        if step.rows.iter().all(|number| number.is_finite()) {
            return Ok(count);
        }
        wrong("the rows hold values that are not finite numbers".to_owned())
    }

    /// Rows of embedding width, made of the states of another model: rows × `states_width`.
    ///
    /// # Errors
    /// `Error::Argument` if the model makes none, or for another width; `Error::Kernel` and `Error::Memory` as for `step`.
    pub fn fuse(&self, states: Vec<f32>, interrupted: Option<Interrupted>) -> Result<Vec<f32>, Error> {
        let (context, config, weights) = self.parts(interrupted);
        let Some(rows) = &weights.rows else {
            return Err(Error::Argument(format!("the model ({}) is no drafter", config.architecture)));
        };
        self.with_files(|| fuse(&context, (config, rows), states))
    }

    /// The embeddings of tokens as the file has them, without scale or norm: tokens × embedding.
    ///
    /// # Errors
    /// `Error::Argument` for a token outside the vocabulary; `Error::Model` if the model has no embeddings;
    /// `Error::Kernel` and `Error::Memory` as for `step`.
    pub fn embeddings(&self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let (_, config, weights) = self.parts(None);
        let Some(table) = &weights.embedding.tokens else {
            return Err(Error::Model("the model has no embeddings of tokens".to_owned()));
        };
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.embedding_rows()) {
            return Err(Error::Argument(format!(
                "token id {token} has no embedding: expected 0 to {}",
                config.embedding_rows() - 1
            )));
        }
        let width = config.embedding_length;
        let mut rows = zeroed(tokens.len().checked_mul(width), "embeddings")?;
        self.with_files(|| {
            let mut rows = tokens.iter().zip(rows.chunks_exact_mut(width));
            Ok(rows.try_for_each(|(&token, row)| table.row(token as usize, row))?)
        })?;
        Ok(rows)
    }

    /// Products of `states` (rows × embedding) with the output matrix, without bias, scale or cap: rows × vocabulary.
    ///
    /// # Errors
    /// `Error::Model` if the model has no output matrix; `Error::Argument` for another width; `Error::Kernel` and
    /// `Error::Memory` as for `step`.
    pub fn output_products(&self, states: &[f32], interrupted: Option<Interrupted>) -> Result<Vec<f32>, Error> {
        let (context, config, weights) = self.parts(interrupted);
        let Some(output) = &weights.output else {
            return Err(Error::Model("the model has no output matrix".to_owned()));
        };
        let rows = states.len() / config.embedding_length;
        if rows * config.embedding_length != states.len() {
            return Err(Error::Argument(format!(
                "{} numbers: expected rows of {}",
                states.len(),
                config.embedding_length
            )));
        }
        let mut logits = zeroed(rows.checked_mul(config.vocab_size), "logits")?;
        if rows > 0 {
            let jobs = |logits| [Job { weights: &output.matrix, output: logits }];
            let product = |context: &Context, logits| {
                Ok(matmul(context, states, rows, &mut InputBuffers::default(), &mut jobs(logits))?)
            };
            self.with_files(|| product(&context, &mut logits[..]))?;
        }
        Ok(logits)
    }
}

/// Numbers of a row that a model takes in place of a token.
fn row_width(config: &Config) -> usize {
    match config.input {
        Input::Tokens | Input::Rows => config.embedding_length,
        Input::Pairs | Input::ProjectedPairs => 2 * config.embedding_length,
    }
}
