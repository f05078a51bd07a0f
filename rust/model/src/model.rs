//! A loaded model: immutable weights, the threads that run them, and the one way in, `step`.

use std::sync::{Arc, Mutex};

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::{Load, Mapping, SourceFile};
use llamacpu_kernels::threads::{Pool, Threads, default_threads};

use crate::config::SIZE_LIMIT;
use crate::error::zeroed;
use crate::forward::{Buffers, forward};
use crate::hidden::Hidden;
use crate::kv::{PageLayout, Pages};
use crate::page::Spare;
use crate::pass::Segment;
use crate::rotations::Rotations;
use crate::session::Held;
use crate::tensors::{TensorInfo, Tensors};
use crate::weights::{Weights, refuse_unread};
use crate::{Config, Error, Restoration, Session, prepare};

/// Most tokens that go through the layers together: enough to keep matrix products at full speed, few enough for small
/// buffers and a quick cancellation.
const CHUNK_TOKENS: usize = 512;
/// Rows of a chunk are also bounded by the memory of their activations, in bytes.
const CHUNK_BYTES: usize = 256 << 20;
/// Buffers kept for the next steps; further concurrent steps bring their own.
const BUFFERS_KEPT: usize = 2;

/// For which of its tokens a step returns logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// For none: the tokens only become part of the context.
    None,
    /// For the last token.
    Last,
    /// For every token.
    All,
}

/// What one session contributes to a step.
#[derive(Debug, Clone, Copy)]
pub struct StepItem<'a> {
    /// The conversation that the tokens continue.
    pub session: &'a Session,
    /// At least one token.
    pub tokens: &'a [u32],
    /// Which rows of logits are returned.
    pub wanted: Wanted,
}

/// What a step returns.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// The logits of the wanted rows: rows × vocabulary, items in order.
    pub logits: Vec<f32>,
    /// The hidden states of every token: places × tokens × embedding, items in order.
    pub hidden: Vec<f32>,
}

/// Asked now and then by the thread that called; `true` stops the step.
pub type Interrupted<'a> = &'a (dyn Fn() -> bool + Sync);

/// A model, ready to run. Shared by all its sessions and by any number of threads.
pub struct Model {
    config: Config,
    weights: Weights,
    files: Vec<Arc<Mapping>>,
    rotations: Rotations,
    isa: Isa,
    pool: Pool,
    threads_reason: String,
    unread: Vec<String>,
    nbytes: usize,
    buffers: Mutex<Vec<Buffers>>,
    spare: Arc<Spare>,
    identity: Arc<()>,
}

impl Model {
    /// Brings `files` into memory and finds the weights of `config` in the table. `threads` of `None` takes the machine's
    /// default.
    pub fn open(
        files: &[Arc<SourceFile>],
        config: Config,
        tensors: &[TensorInfo],
        (threads, load): (Option<usize>, Load),
        interrupted: Option<Interrupted>,
    ) -> Result<Self, Error> {
        Self::load(files, config, tensors, (threads, load), interrupted).map_err(|error| match error {
            // Sizes that do not fit together come from the file here.
            Error::Kernel(KernelError::Shape(message)) => Error::Model(message),
            error => error,
        })
    }

    fn load(
        files: &[Arc<SourceFile>],
        config: Config,
        tensors: &[TensorInfo],
        (threads, load): (Option<usize>, Load),
        interrupted: Option<Interrupted>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let isa = Isa::chosen()?;
        let files =
            files.iter().map(|file| Mapping::of(file, load, interrupted)).collect::<Result<Vec<_>, KernelError>>()?;
        let mut table = Tensors::new(&files, tensors)?;
        let mut weights = Weights::load(&config, &mut table)?;
        let unread = refuse_unread(&config, &table.unread())?;
        check_files(&files)?;
        let rotations = Rotations::new(&config, &mut weights.rope_factors)?;
        let threads = match threads {
            Some(count) => Threads { count, why: "asked for".to_owned() },
            None => default_threads(),
        };
        Ok(Self {
            nbytes: weights.nbytes(),
            files,
            config,
            weights,
            rotations,
            isa,
            pool: Pool::new(threads.count)?,
            threads_reason: threads.why,
            unread,
            buffers: Mutex::new(Vec::new()),
            spare: Arc::default(),
            identity: Arc::new(()),
        })
    }

    /// Sizes and switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Keeps weights in at most `bytes` of memory, if none have been used yet; the others, whose bytes are returned, are read
    /// from the file by every product.
    pub fn limit_memory(&self, bytes: usize) -> usize {
        self.weights.limit(bytes)
    }

    /// What products with the weights need.
    pub(crate) fn parts<'a>(&'a self, interrupted: Option<Interrupted<'a>>) -> (Context<'a>, &'a Config, &'a Weights) {
        (Context { isa: self.isa, pool: &self.pool, interrupted }, &self.config, &self.weights)
    }

    /// Uses another instruction set than the chosen one: slower or faster, the results are the same.
    pub fn use_isa(&mut self, isa: Isa) {
        self.isa = isa;
    }

    /// Number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Why that number.
    pub fn threads_reason(&self) -> &str {
        &self.threads_reason
    }

    /// Names of the tensors in the files that nothing asked for.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Whether all files are mapped, and none is copied.
    pub fn is_mapped(&self) -> bool {
        self.files.iter().all(|file| file.is_mapped())
    }

    /// Bytes of the matrices that a token goes through (all experts counted).
    pub fn weight_bytes(&self) -> usize {
        self.nbytes
    }

    /// Bytes in the file of the parts that `prepare` takes: the layers, then the output matrix.
    pub fn part_bytes(&self) -> Vec<usize> {
        prepare::part_bytes(&self.weights)
    }

    /// Brings one part of the weights into the form that products use, now instead of in the first step.
    pub fn prepare(&self, part: usize, interrupted: Option<Interrupted>) -> Result<(), Error> {
        let context = Context { isa: self.isa, pool: &self.pool, interrupted };
        self.files.iter().for_each(|file| file.watch());
        prepare::prepare(&context, &self.weights, part)?;
        check_files(&self.files)
    }

    /// Starts a conversation of at most `context` tokens (`None`: as many as the model was trained for).
    pub fn session(&self, context: Option<usize>, kv_type: KvType) -> Result<Session, Error> {
        self.restore(context, kv_type, Vec::new())?.finish()
    }

    /// Bytes of keys and values of a session of `tokens` tokens, stored as `kv_type`: windows make it less than as many pages.
    pub fn kv_bytes(&self, kv_type: KvType, tokens: usize) -> Result<usize, Error> {
        Ok(PageLayout::new(&self.config, kv_type, &self.spare)?.bytes_for(tokens))
    }

    /// Bytes of a page of keys and values, stored as `kv_type`.
    pub fn page_bytes(&self, kv_type: KvType) -> Result<usize, Error> {
        Ok(PageLayout::new(&self.config, kv_type, &self.spare)?.page_bytes())
    }

    /// Starts a conversation that has its first tokens already; their keys and values follow page by page.
    pub fn restore(&self, context: Option<usize>, kv_type: KvType, tokens: Vec<u32>) -> Result<Restoration, Error> {
        let context = context.unwrap_or(self.config.context_length);
        if !(1..=SIZE_LIMIT).contains(&context) {
            return Err(Error::Argument(format!("a context of {context} tokens: expected 1 to {SIZE_LIMIT}")));
        }
        if tokens.len() > context {
            return Err(Error::ContextOverflow { position: 0, added: tokens.len(), context });
        }
        self.check_tokens(&tokens)?;
        let layout = PageLayout::new(&self.config, kv_type, &self.spare)?;
        Ok(Restoration { model: Arc::clone(&self.identity), context, tokens, pages: Pages::new(Arc::new(layout)) })
    }

    /// Continues every item's session by its tokens, in one pass over the weights, and returns the logits of the wanted
    /// rows: rows × vocabulary, items in order. After an error every session is where it was before the call.
    pub fn step(&self, items: &[StepItem], interrupted: Option<Interrupted>) -> Result<Vec<f32>, Error> {
        self.step_hidden(items, &[], interrupted).map(|output| output.logits)
    }

    /// As `step`, and returns the hidden states of every token at `places` too: a number below the number of layers
    /// stands for the residual stream behind that layer (counted from 0), the number of layers for the stream behind the
    /// last norm, which the logits are made of.
    pub fn step_hidden(
        &self,
        items: &[StepItem],
        places: &[usize],
        interrupted: Option<Interrupted>,
    ) -> Result<StepOutput, Error> {
        self.check(items)?;
        let rows = items.iter().map(|item| item.tokens.len()).sum();
        let mut hidden = Hidden::new(places, self.config.layers, self.config.embedding_length, rows)?;
        let mut sessions = items.iter().map(|item| item.session.hold()).collect::<Result<Vec<_>, _>>()?;
        for (item, session) in items.iter().zip(&mut sessions) {
            let (position, added) = (session.position, item.tokens.len());
            let context = item.session.context().min(self.config.most_tokens());
            if position > 0 && !self.config.causal {
                return Err(Error::Argument(format!(
                    "tokens of this model see those behind them, so that a text of {position} tokens cannot go on: \
                     give the whole text to one step, and a new session to every text"
                )));
            }
            if added > context && !self.config.causal {
                return Err(Error::TextTooLong { tokens: added, most: context });
            }
            if added > context.saturating_sub(position) {
                return Err(Error::ContextOverflow { position, added, context });
            }
            session.expect(added)?;
            // What a step that ended in a panic may have left behind.
            session.pages.truncate(position);
        }
        self.files.iter().for_each(|file| file.watch());
        let mut buffers = self.take_buffers();
        let result = self
            .recompute(items, &mut sessions, &mut buffers, interrupted)
            .and_then(|()| self.run(items, &mut sessions, &mut buffers, &mut hidden, interrupted));
        // Whatever came out was made of weights that are those of the file, or it does not leave.
        let result = check_files(&self.files).and(result);
        self.keep_buffers(buffers);
        for (item, session) in items.iter().zip(&mut sessions) {
            session.finish(if result.is_ok() { item.tokens } else { &[] })?;
        }
        Ok(StepOutput { logits: result?, hidden: hidden.into_values() })
    }

    /// Computes the keys and values that sessions lack because they were rewound too far.
    fn recompute(
        &self,
        items: &[StepItem],
        sessions: &mut [Held],
        buffers: &mut Buffers,
        interrupted: Option<Interrupted>,
    ) -> Result<(), Error> {
        for (item, session) in items.iter().zip(sessions) {
            let position = session.position;
            if session.pages.hold(position) {
                continue;
            }
            let tokens = item.session.tokens()?;
            let again = StepItem { session: item.session, tokens: &tokens, wanted: Wanted::None };
            let mut hidden = Hidden::new(&[], self.config.layers, self.config.embedding_length, 0)?;
            session.pages.begin_again();
            session.position = 0;
            let done = self.run(&[again], std::slice::from_mut(session), buffers, &mut hidden, interrupted);
            session.position = position;
            done?;
            session.pages.finish();
        }
        Ok(())
    }

    /// Computes the keys and values that a session lacks because it was rewound too far, now instead of in its next step.
    pub fn complete(&self, session: &Session, interrupted: Option<Interrupted>) -> Result<(), Error> {
        let mut held = session.hold()?;
        if held.pages.hold(held.position) {
            return Ok(());
        }
        if !Arc::ptr_eq(&session.model, &self.identity) {
            return Err(Error::Argument("the session belongs to another model".to_owned()));
        }
        let item = StepItem { session, tokens: &[], wanted: Wanted::None };
        let mut buffers = self.take_buffers();
        let result = self.recompute(&[item], std::slice::from_mut(&mut held), &mut buffers, interrupted);
        self.keep_buffers(buffers);
        let result = check_files(&self.files).and(result);
        held.finish(&[])?;
        result
    }

    fn check(&self, items: &[StepItem]) -> Result<(), Error> {
        for (index, item) in items.iter().enumerate() {
            if !self.config.output && item.wanted != Wanted::None {
                return Err(Error::Model(format!(
                    "the model ({}) makes vectors of texts and has no logits: it cannot write; ask for embeddings or \
                     hidden states, or open a model that generates text",
                    self.config.architecture
                )));
            }
            if !Arc::ptr_eq(&item.session.model, &self.identity) {
                return Err(Error::Argument("the session belongs to another model".to_owned()));
            }
            if items[..index].iter().any(|other| std::ptr::eq(other.session, item.session)) {
                return Err(Error::Argument(
                    "a session occurs twice in one step; join its tokens into one item".to_owned(),
                ));
            }
            if item.tokens.is_empty() {
                return Err(Error::Argument("no tokens: a step needs at least one per session".to_owned()));
            }
            self.check_tokens(item.tokens)?;
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocabulary = self.config.vocab_size;
        tokens.iter().find(|&&token| token as usize >= vocabulary).map_or(Ok(()), |&token| {
            let last = vocabulary - 1;
            let pictures = if (token as usize) < self.config.embedding_rows() {
                "; it stands for a picture, and this version runs the text part of the model alone"
            } else {
                ""
            };
            Err(Error::Argument(format!("token id {token} is outside the vocabulary: expected 0 to {last}{pictures}")))
        })
    }

    /// The chunks of a step, one after the other.
    fn run(
        &self,
        items: &[StepItem],
        sessions: &mut [Held],
        buffers: &mut Buffers,
        hidden: &mut Hidden,
        interrupted: Option<Interrupted>,
    ) -> Result<Vec<f32>, Error> {
        let context = Context { isa: self.isa, pool: &self.pool, interrupted };
        let rows = items.iter().map(|item| match item.wanted {
            Wanted::None => 0,
            Wanted::Last => 1,
            Wanted::All => item.tokens.len(),
        });
        let mut logits = zeroed(rows.sum::<usize>().checked_mul(self.config.vocab_size), "logits")?;
        let mut filled = 0;
        let mut done = vec![0; items.len()];
        let mut current = 0;
        while current < items.len() {
            let mut room = self.chunk_rows();
            let mut segments = Vec::new();
            for (index, (item, session)) in items.iter().zip(sessions.iter_mut()).enumerate().skip(current) {
                let left = &item.tokens[done[index]..];
                // Tokens that see those behind them go through the layers with their whole text.
                if !self.config.causal && left.len() > room && !segments.is_empty() {
                    break;
                }
                let tokens = if self.config.causal { &left[..left.len().min(room)] } else { left };
                let position = session.position + done[index];
                let wanted = match item.wanted {
                    Wanted::None => 0,
                    Wanted::Last => usize::from(tokens.len() == left.len()),
                    Wanted::All => tokens.len(),
                };
                // Nothing that the session needs if this step fails.
                session.pages.release(position, Some(session.position));
                session.pages.reserve(position, position + tokens.len())?;
                done[index] += tokens.len();
                room = room.saturating_sub(tokens.len());
                current = if tokens.len() == left.len() { index + 1 } else { index };
                let kept = if hidden.needs_last_layer() { tokens.len() } else { wanted };
                let long = self.rotations.is_long(item.session.context());
                segments.push(Segment { pages: &mut session.pages, tokens, position, long, wanted, kept });
                if room == 0 {
                    break;
                }
            }
            let wanted: usize = segments.iter().map(|segment| segment.wanted).sum();
            let end = filled + wanted * self.config.vocab_size;
            let parts = (&self.config, &self.weights, &self.rotations);
            let rows = segments.iter().map(|segment| segment.tokens.len()).sum();
            forward(&context, parts, &mut segments, buffers, hidden, &mut logits[filled..end])?;
            hidden.advance(rows);
            filled = end;
        }
        Ok(logits)
    }

    /// Rows of a chunk: fewer where rows are very wide.
    fn chunk_rows(&self) -> usize {
        let [query, key, value, inner] = self.config.widths();
        let experts = self.config.experts_used.saturating_mul(self.config.embedding_length);
        let row = [4 * self.config.embedding_length, 2 * query, key, value, inner, inner, experts]
            .into_iter()
            .fold(0usize, usize::saturating_add)
            .saturating_mul(size_of::<f32>());
        (CHUNK_BYTES / row.max(1)).clamp(1, CHUNK_TOKENS)
    }

    fn take_buffers(&self) -> Buffers {
        // Not `lock`: a process forked while another thread held it would wait for ever.
        self.buffers.try_lock().ok().and_then(|mut kept| kept.pop()).unwrap_or_default()
    }

    fn keep_buffers(&self, buffers: Buffers) {
        if let Ok(mut kept) = self.buffers.try_lock()
            && kept.len() < BUFFERS_KEPT
        {
            kept.push(buffers);
        }
    }
}

/// Proves that the files are still as they were when they were opened.
fn check_files(files: &[Arc<Mapping>]) -> Result<(), Error> {
    Ok(files.iter().try_for_each(|file| file.check())?)
}
