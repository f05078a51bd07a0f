//! A loaded model: immutable weights and the threads that compute with them.

use std::sync::{Arc, Mutex};

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::{Load, Mapping, SourceFile};
use llamacpu_kernels::threads::{Pool, Threads, default_threads};

use crate::config::SIZE_LIMIT;
use crate::forward::PassBuffers;
use crate::kv::{PageLayout, Pages};
use crate::page::Spare;
use crate::rotations::Rotations;
use crate::tensors::{Slot, TensorInfo, Tensors};
use crate::weights::{Weights, refuse_unread};
use crate::{Config, Error, FIRST_PICTURE_ID, Restoration, SavedPicture, Session, prepare};

/// Number of buffer sets kept for later steps; additional concurrent steps allocate their own.
const BUFFERS_KEPT: usize = 2;

/// Polled periodically by the calling thread; returning `true` stops the step.
pub type Interrupted<'a> = &'a (dyn Fn() -> bool + Sync);

/// A model, ready to run. It can be shared by any number of sessions and threads.
pub struct Model {
    config: Config,
    weights: Weights,
    slots: Vec<Slot>,
    files: Vec<Arc<Mapping>>,
    rotations: Rotations,
    isa: Isa,
    pool: Pool,
    threads_reason: String,
    unread: Vec<String>,
    nbytes: usize,
    buffers: Mutex<Vec<PassBuffers>>,
    spare: Arc<Spare>,
    identity: Arc<()>,
}

impl Model {
    /// Brings `files` into memory and finds the weights for `config` in the tensor table. If `threads` is `None`, the
    /// machine's default applies.
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
        let slots = table.into_slots();
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
            slots,
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

    /// The sizes and switches of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Keeps at most `bytes` of weights in memory, provided that none have been used yet. Every product reads the
    /// remaining weights from the file; their size in bytes is returned.
    pub fn limit_memory(&self, bytes: usize) -> usize {
        self.weights.limit(bytes)
    }

    /// Everything that products with the weights need.
    pub(crate) fn parts<'a>(&'a self, interrupted: Option<Interrupted<'a>>) -> (Context<'a>, &'a Config, &'a Weights) {
        (Context { isa: self.isa, pool: &self.pool, interrupted, observer: None }, &self.config, &self.weights)
    }

    /// The files that hold the weights.
    pub(crate) fn files(&self) -> &[Arc<Mapping>] {
        &self.files
    }

    /// The matrices that adapters can change.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What tells sessions and adapters of this model from those of others.
    pub(crate) fn identity(&self) -> Arc<()> {
        Arc::clone(&self.identity)
    }

    /// How queries and keys are rotated.
    pub(crate) fn rotations(&self) -> &Rotations {
        &self.rotations
    }

    /// Switches to another instruction set than the chosen one: speed changes, results do not.
    pub fn use_isa(&mut self, isa: Isa) {
        self.isa = isa;
    }

    /// Number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The reason for that number of threads.
    pub fn threads_reason(&self) -> &str {
        &self.threads_reason
    }

    /// Names of the tensors in the files that were not used.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Whether all files are memory-mapped rather than copied.
    pub fn is_mapped(&self) -> bool {
        self.files.iter().all(|file| file.is_mapped())
    }

    /// Size in bytes of the matrices that a token goes through (all experts counted).
    pub fn weight_bytes(&self) -> usize {
        self.nbytes
    }

    /// Size in the file, in bytes, of each part that `prepare` accepts: the layers, then the output matrix.
    pub fn part_bytes(&self) -> Vec<usize> {
        prepare::part_bytes(&self.weights)
    }

    /// Converts one part of the weights into the form that products use, now rather than in the first step.
    ///
    /// # Errors
    /// `Error::Argument` if there is no such part; `Error::Kernel` if the work was cancelled, a file has changed or
    /// memory ran out; `Error::Memory`.
    pub fn prepare(&self, part: usize, interrupted: Option<Interrupted>) -> Result<(), Error> {
        let context = Context { isa: self.isa, pool: &self.pool, interrupted, observer: None };
        self.with_files(|| prepare::prepare(&context, &self.weights, part))
    }

    /// Starts a conversation of at most `context` tokens (`None`: as many as the model was trained for).
    ///
    /// # Errors
    /// `Error::Argument` if `context` is out of range.
    pub fn session(&self, context: Option<usize>, kv_type: KvType) -> Result<Session, Error> {
        self.restore(context, kv_type, Vec::new(), &[])?.finish()
    }

    /// Size in bytes of the keys and values of a session of `tokens` tokens, stored as `kv_type`. Windows make it
    /// smaller than that number of tokens in full pages.
    pub fn kv_bytes(&self, kv_type: KvType, tokens: usize) -> Result<usize, Error> {
        Ok(PageLayout::new(&self.config, kv_type, &self.spare)?.bytes_for(tokens))
    }

    /// Size in bytes of a page of keys and values, stored as `kv_type`.
    pub fn page_bytes(&self, kv_type: KvType) -> Result<usize, Error> {
        Ok(PageLayout::new(&self.config, kv_type, &self.spare)?.page_bytes())
    }

    /// Size in bytes of a page of keys and values that cross-attention sees, stored as `kv_type`; 0 for models without.
    pub fn cross_page_bytes(&self, kv_type: KvType) -> Result<usize, Error> {
        if self.config.cross_layers.is_empty() {
            return Ok(0);
        }
        Ok(PageLayout::new(&self.config.crossed(), kv_type, &self.spare)?.page_bytes())
    }

    /// Starts a conversation whose first tokens are given, with what is known of the pictures among them; their keys and
    /// values follow page by page.
    ///
    /// # Errors
    /// `Error::Argument` if `context` is out of range, a token is outside the vocabulary or pictures do not fit;
    /// `Error::ContextOverflow` if the tokens do not fit into the context.
    pub fn restore(
        &self,
        context: Option<usize>,
        kv_type: KvType,
        tokens: Vec<u32>,
        pictures: &[SavedPicture],
    ) -> Result<Restoration, Error> {
        let context = context.unwrap_or(self.config.context_length);
        if !(1..=SIZE_LIMIT).contains(&context) {
            return Err(Error::Argument(format!("a context of {context} tokens: expected 1 to {SIZE_LIMIT}")));
        }
        if tokens.len() > context {
            return Err(Error::ContextOverflow { position: 0, added: tokens.len(), context });
        }
        self.check_tokens(&tokens)?;
        let layout = PageLayout::new(&self.config, kv_type, &self.spare)?;
        let (model, pages) = (Arc::clone(&self.identity), Pages::new(Arc::new(layout)));
        let mut restoration = Restoration { model, context, tokens, pages, pictures: Vec::new() };
        restoration.add_pictures(&self.config, pictures)?;
        Ok(restoration)
    }

    /// # Errors
    /// `Error::Argument` if the session was not started by this model.
    pub(crate) fn check_owner(&self, session: &Session) -> Result<(), Error> {
        if Arc::ptr_eq(&session.model, &self.identity) {
            return Ok(());
        }
        Err(Error::Argument("the session belongs to another model".to_owned()))
    }

    /// Runs `work`, which reads weights; returns its result only if the files have not changed since they were opened.
    pub(crate) fn with_files<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.files.iter().for_each(|file| file.watch());
        let result = work();
        check_files(&self.files).and(result)
    }

    /// # Errors
    /// `Error::Argument` if a token is outside the vocabulary and does not stand for a picture.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocabulary = self.config.vocab_size;
        let outside = |token: u32| token as usize >= vocabulary && token < FIRST_PICTURE_ID;
        tokens.iter().find(|&&token| outside(token)).map_or(Ok(()), |&token| {
            let last = vocabulary - 1;
            let pictures = if (token as usize) < self.config.embedding_rows() {
                "; it stands for a picture: give the states of the picture in its place"
            } else {
                ""
            };
            Err(Error::Argument(format!("token id {token} is outside the vocabulary: expected 0 to {last}{pictures}")))
        })
    }

    /// Takes the buffers of an earlier step, if any are available.
    pub(crate) fn take_buffers(&self) -> PassBuffers {
        // Not `lock`: a process forked while another thread held it would wait forever.
        self.buffers.try_lock().ok().and_then(|mut kept| kept.pop()).unwrap_or_default()
    }

    /// Keeps the buffers of a step for the next one.
    pub(crate) fn keep_buffers(&self, mut buffers: PassBuffers) {
        buffers.forget_adapters();
        if let Ok(mut kept) = self.buffers.try_lock()
            && kept.len() < BUFFERS_KEPT
        {
            kept.push(buffers);
        }
    }
}

/// Checks that the files have not changed since they were opened.
fn check_files(files: &[Arc<Mapping>]) -> Result<(), Error> {
    Ok(files.iter().try_for_each(|file| file.check())?)
}
