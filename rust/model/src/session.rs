//! One conversation: its tokens and their keys and values.
//!
//! There are two locks. `pages` is held by a step from beginning to end, and nothing waits for it: an attempt to take
//! it meanwhile returns `Error::Busy`. `told` is held only for the duration of a copy, so that the session's state can
//! be read in the middle of a step: it is the state before that step.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::mapping::AlignedBytes;
use llamacpu_kernels::memory;

use crate::Error;
use crate::adapters::Adapters;
use crate::kv::Pages;
use crate::picture::{Picture, PictureInput, SavedPicture};

/// `told` is never held for this long; if it stays locked, its holder is a thread that does not exist in a forked process.
const PATIENCE: Duration = Duration::from_secs(5);

/// A conversation with one model. Several threads may share it, but only one step at a time may run on it.
#[derive(Debug)]
pub struct Session {
    /// Identifies the model that the session belongs to.
    pub(crate) model: Arc<()>,
    context: usize,
    kv_type: KvType,
    /// Number of tokens in the first of two texts that are read together; the remaining tokens have the second type.
    first_part: AtomicUsize,
    told: Mutex<Told>,
    pages: Mutex<Pages>,
}

/// The state that a session reports; changed only while holding the pages.
#[derive(Debug)]
struct Told {
    /// Every token whose keys and values are in the pages.
    tokens: Vec<u32>,
    /// What those of them stand for that are pictures; states without their numbers, which are in the pages.
    pictures: Vec<Picture>,
    nbytes: usize,
    /// What the tokens go through in addition to the model.
    adapters: Option<Arc<Adapters>>,
}

/// Exclusive access to a session: nothing else can step, truncate or copy it until this is dropped.
pub(crate) struct Held<'a> {
    session: &'a Session,
    pub(crate) pages: MutexGuard<'a, Pages>,
    /// Number of tokens.
    pub(crate) position: usize,
}

impl Session {
    pub(crate) fn new(model: Arc<()>, context: usize, tokens: Vec<u32>, pages: Pages) -> Self {
        let (kv_type, nbytes) = (pages.layout().kv_type(), pages.nbytes());
        let first_part = AtomicUsize::new(usize::MAX);
        Self {
            model,
            context,
            kv_type,
            first_part,
            told: Mutex::new(Told { tokens, pictures: Vec::new(), nbytes, adapters: None }),
            pages: Mutex::new(pages),
        }
    }

    /// The session of a file, whose pictures come without their numbers.
    pub(crate) fn with_pictures(self, pictures: Vec<Picture>) -> Result<Self, Error> {
        self.told()?.pictures = pictures;
        Ok(self)
    }

    /// What a saved session says of the pictures among the tokens.
    ///
    /// # Errors
    /// `Error::Busy` if a step is running; `Error::Memory`.
    pub fn saved_pictures(&self) -> Result<Vec<SavedPicture>, Error> {
        let held = self.hold()?;
        let states =
            |position: usize| held.pages.crossing.as_ref().map_or(0, |crossing| crossing.pictures.states_of(position));
        let pictures = self.pictures()?;
        let mut saved = memory::room(pictures.len(), "pictures")?;
        saved.extend(pictures.into_iter().map(|picture| SavedPicture { states: states(picture.start), picture }));
        Ok(saved)
    }

    /// Marks the tokens after the first `tokens` as a second text, for models that tell two texts apart by token types;
    /// must be called before they are processed.
    pub fn set_first_part(&self, tokens: usize) {
        self.first_part.store(tokens, Ordering::Relaxed);
    }

    /// Number of tokens in the first text.
    pub(crate) fn first_part(&self) -> usize {
        self.first_part.load(Ordering::Relaxed)
    }

    /// The maximum number of tokens that the session may hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Number of processed tokens; in the middle of a step, the number before that step.
    pub fn position(&self) -> Result<usize, Error> {
        Ok(self.told()?.tokens.len())
    }

    /// The processed tokens; in the middle of a step, those before that step.
    pub fn tokens(&self) -> Result<Vec<u32>, Error> {
        copy_of(&self.told()?.tokens)
    }

    /// What the ids of pictures among the tokens stand for; those of a restored session, and states, come without their
    /// numbers.
    ///
    /// # Errors
    /// `Error::Memory`.
    pub fn pictures(&self) -> Result<Vec<Picture>, Error> {
        let told = self.told()?;
        let mut copy = memory::room(told.pictures.len(), "pictures")?;
        copy.extend_from_slice(&told.pictures);
        Ok(copy)
    }

    /// Size in bytes of the keys and values, including pages shared with forks; in the middle of a step, the size
    /// before that step.
    pub fn nbytes(&self) -> Result<usize, Error> {
        Ok(self.told()?.nbytes)
    }

    /// Sets what the tokens go through in addition to the model, and forgets those that went through something else.
    /// Returns how many tokens are left.
    ///
    /// # Errors
    /// `Error::Argument` if an adapter belongs to another model; `Error::Busy` if a step is running.
    pub fn set_adapters(&self, adapters: Adapters) -> Result<usize, Error> {
        adapters.check(&self.model)?;
        let mut held = self.hold()?;
        let before = self.adapters()?;
        let common = before.as_deref().unwrap_or(&Adapters::default()).common(&adapters).min(held.position);
        if common < held.position {
            held.forget(common)?;
        }
        let any = !adapters.low_rank.is_empty() || adapters.steering.is_some();
        self.told()?.adapters = any.then(|| Arc::new(adapters));
        Ok(common)
    }

    /// Says that the tokens of a restored session have gone through these.
    ///
    /// # Errors
    /// `Error::Argument` if an adapter belongs to another model.
    pub fn declare_adapters(&self, adapters: Adapters) -> Result<(), Error> {
        adapters.check(&self.model)?;
        self.told()?.adapters = Some(Arc::new(adapters));
        Ok(())
    }

    /// What the tokens go through in addition to the model.
    pub(crate) fn adapters(&self) -> Result<Option<Arc<Adapters>>, Error> {
        Ok(self.told()?.adapters.clone())
    }

    /// Locks the session, unless a step is running.
    pub(crate) fn hold(&self) -> Result<Held<'_>, Error> {
        let pages = match self.pages.try_lock() {
            Ok(pages) => pages,
            // A panic in a kernel left the position unchanged; the next step drops the unfinished pages.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy(
                    "the session is in the middle of another step; wait for it, or fork the session before it starts"
                        .to_owned(),
                ));
            }
        };
        Ok(Held { session: self, pages, position: self.position()? })
    }

    fn told(&self) -> Result<MutexGuard<'_, Told>, Error> {
        let mut start = None;
        loop {
            match self.told.try_lock() {
                Ok(told) => return Ok(told),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if start.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                    return Err(Error::Busy(
                        "this process was forked while another thread of its parent changed the session, which cannot be \
                         used here; use one that no other thread has"
                            .to_owned(),
                    ));
                }
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }

    /// A copy of the keys and values of the tokens from `index * PAGE_TOKENS` on, in the form that
    /// [`crate::Restoration::push`] accepts. It contains nothing of forgotten tokens.
    ///
    /// # Errors
    /// `Error::Busy` if a step is running; `Error::Argument` if there is no such page or the session was rewound so far
    /// that its keys and values must be recomputed first; `Error::Kernel` or `Error::Memory` if memory runs out.
    pub fn page(&self, index: usize) -> Result<AlignedBytes, Error> {
        let held = self.hold()?;
        held.pages.copy_page(index, held.position)
    }

    /// Forgets all but the first `tokens` tokens. If keys and values that these need were dropped because no later
    /// token could see them, the next step recomputes them, with the same bits.
    ///
    /// # Errors
    /// `Error::Argument` if the session has fewer tokens; `Error::Busy` if a step is running.
    pub fn truncate(&self, tokens: usize) -> Result<(), Error> {
        let mut held = self.hold()?;
        let position = held.position;
        if tokens > position {
            return Err(Error::Argument(format!("cannot truncate the session to {tokens} tokens: it has {position}")));
        }
        let cut = |picture: &&Picture| picture.is_together() && picture.start < tokens && tokens < picture.end();
        if let Some(picture) = self.told()?.pictures.iter().find(cut) {
            return Err(Error::Argument(format!(
                "cannot truncate the session to {tokens} tokens: they end inside a picture whose rows see each other; \
                 truncate it to {}, before the picture, or to {}",
                picture.start,
                picture.end()
            )));
        }
        held.forget(tokens)
    }

    /// The largest position, up to `tokens`, to which the session can be rewound without recomputing tokens: `tokens`
    /// itself, unless windows have dropped what it needs, or recurrent layers have no state for it.
    ///
    /// # Errors
    /// `Error::Argument` if the session has fewer tokens; `Error::Busy` if a step is running.
    pub fn resume_point(&self, tokens: usize) -> Result<usize, Error> {
        let held = self.hold()?;
        if tokens > held.position {
            let position = held.position;
            return Err(Error::Argument(format!("cannot rewind the session to {tokens} tokens: it has {position}")));
        }
        Ok(held.pages.resume_point(tokens))
    }

    /// A second conversation with the same past, whose memory is shared.
    ///
    /// # Errors
    /// `Error::Busy` if a step is running; `Error::Kernel` if there is no memory for the copy.
    pub fn fork(&self) -> Result<Self, Error> {
        let held = self.hold()?;
        let mut pages = held.pages.fork()?;
        pages.truncate(held.position);
        let fork = Self::new(Arc::clone(&self.model), self.context, self.tokens()?, pages);
        fork.set_first_part(self.first_part());
        fork.told()?.adapters = self.adapters()?;
        fork.told()?.pictures = self.pictures()?;
        Ok(fork)
    }
}

impl Held<'_> {
    /// Keeps the first `tokens` tokens only.
    fn forget(&mut self, tokens: usize) -> Result<(), Error> {
        self.pages.truncate(tokens);
        self.pages.release(tokens, None);
        let mut told = self.session.told()?;
        told.tokens.truncate(tokens);
        told.pictures.retain(|picture| picture.start < tokens);
        if let Some(last) = told.pictures.last_mut() {
            last.count = last.count.min(tokens - last.start);
        }
        told.nbytes = self.pages.nbytes();
        Ok(())
    }

    /// Makes room to record `added` more tokens, so that `finish` cannot fail for lack of memory.
    pub(crate) fn expect(&mut self, added: usize, pictures: usize) -> Result<(), Error> {
        let bytes = added.saturating_mul(size_of::<u32>()).saturating_add(pictures * size_of::<Picture>());
        let mut told = self.session.told()?;
        let done = told.tokens.try_reserve(added).and_then(|()| told.pictures.try_reserve(pictures));
        done.map_err(|_| Error::Memory { bytes, purpose: "token ids" })
    }

    /// Ends a step: either records the `added` tokens, or drops the pages that were started for them.
    pub(crate) fn finish(&mut self, added: &[u32], pictures: &[Picture]) -> Result<(), Error> {
        let position = self.position + added.len();
        self.pages.truncate(position);
        self.pages.release(position, None);
        let mut told = self.session.told()?;
        told.tokens.extend_from_slice(added);
        told.pictures.extend(pictures.iter().map(|picture| kept(picture, self.position)));
        told.nbytes = self.pages.nbytes();
        Ok(())
    }
}

/// What a session keeps of a picture of a step that began at `position`.
fn kept(picture: &Picture, position: usize) -> Picture {
    let input = match &picture.input {
        PictureInput::States { token, .. } => PictureInput::States { token: *token, states: Arc::default() },
        rows @ PictureInput::Rows { .. } => rows.clone(),
    };
    Picture { start: position + picture.start, count: picture.count, input }
}

fn copy_of(tokens: &[u32]) -> Result<Vec<u32>, Error> {
    let mut copy = memory::room(tokens.len(), "tokens")?;
    copy.extend_from_slice(tokens);
    Ok(copy)
}
