//! States of recurrent layers: of fixed size, whatever the number of tokens, and impossible to rewind. A session keeps
//! some of those that it went through, and the inputs of its last tokens. A rewound session starts from the latest state
//! that is left: it runs the tokens since then through the recurrence alone if their inputs are there, or else through
//! the whole model. The bits are the same, since tokens go through a state one by one.

use std::sync::Arc;

use super::state_layout::{CHECKPOINTS, LOGGED_TOKENS, PURPOSE, StateLayout, input_numbers, input_widths};
use crate::Error;
use crate::error::zeroed;

/// Tokens between two states that are kept while single tokens are added.
const CHECKPOINT_TOKENS: usize = 512;

/// For each layer with a state, its index and the inputs of some tokens.
pub(crate) type LayerInputs = Vec<(usize, Vec<f32>)>;

/// The states of one session.
#[derive(Debug, Default)]
pub(crate) struct States {
    /// In the order of their positions; the last one is that of the whole session, unless it was rewound.
    kept: Vec<Kept>,
    /// Inputs of consecutive tokens; there is a state for the position of the first.
    log: Vec<Logged>,
    /// What the current chunk of a step computes.
    working: Option<Working>,
    /// The memory of a state that was dropped by rewinding, for the next one.
    spare: Option<Vec<f32>>,
}

/// The state after `position` tokens.
#[derive(Debug, Clone)]
struct Kept {
    position: usize,
    numbers: Arc<Vec<f32>>,
    /// Whether it is kept for rewinding.
    checkpoint: bool,
}

/// The inputs of some tokens: for each layer tokens × channels, tokens × heads and tokens × heads.
#[derive(Debug, Clone)]
struct Logged {
    first: usize,
    tokens: usize,
    /// Tokens that there is memory for: more than `tokens` after rewinding.
    room: usize,
    rows: Arc<Vec<f32>>,
}

#[derive(Debug)]
struct Working {
    /// Position at which the step began, whose state must survive it.
    step: usize,
    first: usize,
    end: usize,
    before: Option<Arc<Vec<f32>>>,
    /// The position and the state before the tokens whose inputs are kept, if not all are.
    middle: Option<(usize, Vec<f32>)>,
    numbers: Vec<f32>,
    log: Vec<f32>,
}

/// What a layer reads and writes in a step.
pub(crate) struct LayerState<'a> {
    /// The state before the tokens; `None` at the start of a session.
    pub(crate) before: Option<&'a [f32]>,
    /// A number of tokens, and what receives the state after them.
    pub(crate) middle: Option<(usize, &'a mut [f32])>,
    /// Receives the state after all tokens.
    pub(crate) state: &'a mut [f32],
    /// Receives the inputs of the tokens after `middle`: tokens × channels, tokens × heads, tokens × heads.
    pub(crate) log: &'a mut [f32],
}

impl States {
    /// The same states, shared.
    pub(super) fn fork(&self) -> Self {
        Self { kept: self.kept.clone(), log: self.log.clone(), working: None, spare: None }
    }

    pub(super) fn nbytes(&self) -> usize {
        let log: usize = self.log.iter().map(|logged| logged.rows.len()).sum();
        let states: usize = self.kept.iter().map(|kept| kept.numbers.len()).sum();
        let spare = self.spare.as_ref().map_or(0, Vec::len);
        (states + log + spare) * size_of::<f32>()
    }

    /// The largest position with a state; 0 if there is none.
    pub(super) fn position(&self) -> usize {
        self.kept.last().map_or(0, |kept| kept.position)
    }

    /// Forgets everything after the first `tokens` tokens, and what an interrupted chunk left over.
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.working = None;
        while let Some(kept) = self.kept.pop_if(|kept| kept.position > tokens) {
            self.spare = Arc::try_unwrap(kept.numbers).ok().or_else(|| self.spare.take());
        }
        if tokens == 0 {
            self.spare = None;
        }
        self.log.retain(|logged| logged.first < tokens);
        if let Some(last) = self.log.last_mut() {
            last.tokens = last.tokens.min(tokens - last.first);
        }
    }

    /// Starts a chunk of a step that began at position `step`: makes room for the state after tokens `first..end`.
    pub(super) fn begin(
        &mut self,
        layout: &StateLayout,
        (first, end): (usize, usize),
        step: usize,
    ) -> Result<(), Error> {
        if layout.numbers == 0 || end == first {
            return Ok(());
        }
        if self.position() != first {
            return Err(Error::Argument(format!("the state after {first} tokens is missing")));
        }
        self.log.try_reserve(1).map_err(|_| Error::Memory { bytes: 64, purpose: PURPOSE })?;
        self.kept.try_reserve(2).map_err(|_| Error::Memory { bytes: 64, purpose: PURPOSE })?;
        let logged = (end - first).min(LOGGED_TOKENS);
        let log = zeroed(layout.inputs.checked_mul(logged), PURPOSE)?;
        let numbers = self.memory(layout, first)?;
        let middle = if end - first > logged { Some((end - logged, self.memory(layout, first)?)) } else { None };
        self.prune(step);
        let before = self.kept.last().map(|kept| Arc::clone(&kept.numbers));
        self.working = Some(Working { step, first, end, before, middle, numbers, log });
        Ok(())
    }

    /// What a layer reads and writes in the current chunk.
    pub(super) fn layer(&mut self, layout: &StateLayout, layer: usize) -> Result<LayerState<'_>, Error> {
        let place = layout.place(layer)?;
        let working = self.working.as_mut();
        let working = working.ok_or_else(|| Error::Argument("no step of recurrent layers has begun".to_owned()))?;
        let numbers = place.state..place.state + place.net.state_numbers().unwrap_or(0);
        let logged = working.log.len() / layout.inputs;
        let inputs = place.input * logged..(place.input + input_numbers(&place.net)) * logged;
        let first = working.first;
        let middle = working.middle.as_mut();
        Ok(LayerState {
            before: working.before.as_ref().map(|before| &before[numbers.clone()]),
            middle: middle.map(|(position, state)| (*position - first, &mut state[numbers.clone()])),
            state: &mut working.numbers[numbers],
            log: &mut working.log[inputs],
        })
    }

    /// Ends a chunk whose tokens have gone through all layers.
    pub(super) fn commit(&mut self) {
        let Some(Working { step, first, end, middle, numbers, log, .. }) = self.working.take() else { return };
        let mut start = first;
        if let Some((position, numbers)) = middle {
            self.log.clear();
            self.kept.push(Kept { position, numbers: Arc::new(numbers), checkpoint: true });
            start = position;
        } else if self.log.iter().map(|logged| logged.room).sum::<usize>() + end - first > LOGGED_TOKENS {
            self.log.clear();
            let last = self.kept.iter().rev().find(|kept| kept.checkpoint).map_or(0, |kept| kept.position);
            if let Some(base) = self.kept.last_mut()
                && base.position - last >= CHECKPOINT_TOKENS
            {
                base.checkpoint = true;
            }
        }
        self.kept.push(Kept { position: end, numbers: Arc::new(numbers), checkpoint: false });
        let tokens = end - start;
        self.log.push(Logged { first: start, tokens, room: tokens, rows: Arc::new(log) });
        self.prune(step);
    }

    /// The inputs of the tokens since the last state up to position `tokens`, for each layer, if all of them are there.
    pub(super) fn logged(&self, layout: &StateLayout, tokens: usize) -> Result<Option<LayerInputs>, Error> {
        let first = self.position();
        let covers = |logged: &Logged| logged.first + logged.tokens == tokens;
        if self.log.first().is_none_or(|logged| logged.first > first) || !self.log.last().is_some_and(covers) {
            return Ok(None);
        }
        let mut layers = Vec::new();
        for (layer, place) in layout.layers.iter().enumerate() {
            let Some(place) = place else { continue };
            let mut rows = zeroed((tokens - first).checked_mul(input_numbers(&place.net)), PURPOSE)?;
            for logged in &self.log {
                let count = logged.room;
                let mut from = &logged.rows[place.input * count..];
                let mut to = &mut rows[..];
                let start = first.max(logged.first);
                let Some(copied) = (logged.first + logged.tokens).checked_sub(start) else { continue };
                for width in input_widths(&place.net) {
                    let own = &from[(start - logged.first) * width..][..copied * width];
                    to[(start - first) * width..][..copied * width].copy_from_slice(own);
                    from = &from[count * width..];
                    to = &mut to[(tokens - first) * width..];
                }
            }
            layers.push((layer, rows));
        }
        Ok(Some(layers))
    }

    /// Begins to run the tokens since the last state through the recurrence again.
    pub(super) fn begin_replay(&mut self, layout: &StateLayout, tokens: usize) -> Result<(), Error> {
        self.kept.try_reserve(1).map_err(|_| Error::Memory { bytes: 64, purpose: PURPOSE })?;
        let first = self.position();
        let numbers = self.memory(layout, first)?;
        let before = self.kept.last().map(|kept| Arc::clone(&kept.numbers));
        self.working =
            Some(Working { step: tokens, first, end: tokens, before, middle: None, numbers, log: Vec::new() });
        Ok(())
    }

    /// Ends that.
    pub(super) fn commit_replay(&mut self) {
        let Some(Working { end, numbers, .. }) = self.working.take() else { return };
        self.kept.push(Kept { position: end, numbers: Arc::new(numbers), checkpoint: false });
    }

    /// The largest position, up to `tokens`, to which a session can be rewound without running tokens through the model.
    pub(super) fn nearest(&self, tokens: usize) -> usize {
        let logged = self.log.iter().any(|logged| (logged.first..=logged.first + logged.tokens).contains(&tokens));
        if logged {
            return tokens;
        }
        self.kept.iter().map(|kept| kept.position).filter(|position| *position <= tokens).max().unwrap_or(0)
    }

    /// The last state as bytes, little-endian.
    pub(super) fn bytes(&self) -> impl Iterator<Item = [u8; 4]> + '_ {
        self.kept.last().into_iter().flat_map(|kept| kept.numbers.iter().map(|number| number.to_le_bytes()))
    }

    /// Adds the state after `tokens` tokens, as `bytes` gave it.
    pub(super) fn push(&mut self, layout: &StateLayout, bytes: &[u8], tokens: usize) -> Result<(), Error> {
        if bytes.len() != layout.nbytes() {
            return Err(Error::Argument(format!(
                "{} bytes of states of recurrent layers; expected {}",
                bytes.len(),
                layout.nbytes()
            )));
        }
        let mut numbers = zeroed(Some(layout.numbers), PURPOSE)?;
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *number = f32::from_le_bytes(*bytes);
        }
        self.kept.push(Kept { position: tokens, numbers: Arc::new(numbers), checkpoint: true });
        Ok(())
    }

    /// Drops states that nothing needs, and the least useful checkpoints if there are too many.
    fn prune(&mut self, step: usize) {
        let base = self.log.first().map(|logged| logged.first);
        let end = self.position();
        let needed = |kept: &Kept| kept.position == end || kept.position == step || Some(kept.position) == base;
        self.kept.retain(|kept| kept.checkpoint || needed(kept));
        loop {
            let candidates = self.kept.iter().enumerate().filter(|(_, kept)| !needed(kept));
            let candidates: Vec<usize> = candidates.map(|(index, _)| index).collect();
            if candidates.len() <= CHECKPOINTS {
                return;
            }
            // A rewound session lies behind a state by less than the distance to the next one, and more often near its end.
            let cost = |index: usize| {
                let position = self.kept[index].position;
                let previous = if index == 0 { 0 } else { self.kept[index - 1].position };
                let next = self.kept[index + 1].position;
                (position - previous) as f64 * (next - position) as f64 / (end - position) as f64
            };
            let least = candidates.into_iter().min_by(|left, right| cost(*left).total_cmp(&cost(*right)));
            let Some(least) = least else { return };
            self.kept.remove(least);
        }
    }

    /// Memory for a state: that of one which only this session has, and which is no longer needed when tokens follow
    /// position `first`, or new one.
    fn memory(&mut self, layout: &StateLayout, first: usize) -> Result<Vec<f32>, Error> {
        if let Some(numbers) = self.spare.take() {
            return Ok(numbers);
        }
        let base = self.log.first().map(|logged| logged.first);
        let unneeded = |kept: &Kept| !kept.checkpoint && kept.position != first && Some(kept.position) != base;
        let used = self.kept.iter().position(unneeded).map(|index| self.kept.remove(index).numbers);
        match used.and_then(|used| Arc::try_unwrap(used).ok()) {
            Some(numbers) => Ok(numbers),
            None => zeroed(Some(layout.numbers), PURPOSE),
        }
    }
}

#[cfg(test)]
mod tests;
