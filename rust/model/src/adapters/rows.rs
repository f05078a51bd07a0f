//! Which adapters the rows of a chunk go through.

use std::ops::Range;
use std::sync::Arc;

use super::parts::{Adapter, AdapterUse, Adapters};
use super::steering::Steering;

/// Consecutive tokens of one session.
pub(crate) struct AdaptedText<'a> {
    /// Position of the first token.
    pub(crate) position: usize,
    /// Number of tokens; of those that continue after the last layer; of those that get logits: the last ones each.
    pub(crate) rows: [usize; 3],
    pub(crate) adapters: Option<&'a Adapters>,
}

/// Consecutive rows with the same adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) rows: Range<usize>,
    /// Index of the adapters among those of the chunk; `None` if there are none.
    pub(crate) set: Option<usize>,
}

/// The rows of a buffer: all tokens of the chunk, those that continue after the last layer, or those that get logits.
#[derive(Default)]
struct Grouping {
    rows: usize,
    runs: Vec<Run>,
    steered: Vec<(Range<usize>, Arc<Steering>)>,
}

/// The adapters of each row of a chunk; empty if no row has any.
#[derive(Default)]
pub(crate) struct AdaptedRows {
    sets: Vec<Vec<(Arc<Adapter>, f32)>>,
    groupings: Vec<Grouping>,
}

impl AdaptedRows {
    /// Groups the rows of some texts.
    pub(crate) fn of(texts: &[AdaptedText]) -> Self {
        let mut grouped = Self::default();
        if texts.iter().all(|text| text.adapters.is_none()) {
            return grouped;
        }
        for part in 0..3 {
            let mut grouping = Grouping::default();
            for text in texts {
                grouped.add(&mut grouping, text, text.rows[part]);
            }
            grouped.groupings.push(grouping);
        }
        grouped
    }

    /// Adds the last `count` rows of a text.
    fn add(&mut self, grouping: &mut Grouping, text: &AdaptedText, count: usize) {
        let end = text.position + text.rows[0];
        let mut position = end - count;
        let none = Adapters::default();
        let adapters = text.adapters.unwrap_or(&none);
        if let Some(steering) = adapters.steering.as_ref().filter(|_| count > 0) {
            grouping.steered.push((grouping.rows..grouping.rows + count, Arc::clone(steering)));
        }
        while position < end {
            // The adapters change only where one of them begins.
            let starts = adapters.low_rank.iter().map(|item| item.from);
            let next = starts.filter(|&from| from > position).min().unwrap_or(end).min(end);
            let set = self.set(adapters.low_rank.iter().filter(|item| item.from <= position));
            let rows = grouping.rows..grouping.rows + next - position;
            grouping.rows = rows.end;
            match grouping.runs.last_mut() {
                Some(last) if last.set == set => last.rows.end = rows.end,
                _ => grouping.runs.push(Run { rows, set }),
            }
            position = next;
        }
    }

    /// The index of these adapters.
    fn set<'a>(&mut self, items: impl Iterator<Item = &'a AdapterUse>) -> Option<usize> {
        let items: Vec<_> = items.filter(|item| item.scale != 0.0).collect();
        if items.is_empty() {
            return None;
        }
        let same = |set: &Vec<(Arc<Adapter>, f32)>| {
            set.len() == items.len()
                && set.iter().zip(&items).all(|((adapter, scale), item)| {
                    Arc::ptr_eq(adapter, &item.adapter) && scale.to_bits() == item.scale.to_bits()
                })
        };
        let known = self.sets.iter().position(same);
        known.or_else(|| {
            self.sets.push(items.iter().map(|item| (Arc::clone(&item.adapter), item.scale)).collect());
            Some(self.sets.len() - 1)
        })
    }

    /// Whether no row goes through low-rank changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The adapters with an index, each with its scale.
    pub(crate) fn adapters(&self, set: usize) -> &[(Arc<Adapter>, f32)] {
        &self.sets[set]
    }

    /// The runs of a buffer of `rows` rows. Their number tells which rows these are: no segment keeps more rows than it has
    /// tokens or gets logits for more than it keeps, so that equal sums mean equal rows.
    pub(crate) fn runs(&self, rows: usize) -> &[Run] {
        self.grouping(rows).map_or(&[], |grouping| &grouping.runs)
    }

    /// The adapters of a row of a buffer of `rows` rows.
    pub(crate) fn set_of(&self, rows: usize, row: usize) -> Option<usize> {
        let runs = self.runs(rows);
        runs.get(runs.partition_point(|run| run.rows.end <= row)).and_then(|run| run.set)
    }

    /// Adds their vectors to the rows of the stream, after a layer.
    pub(crate) fn steer(&self, layer: usize, stream: &mut [f32], width: usize) {
        let Some(grouping) = self.grouping(stream.len() / width) else { return };
        for (rows, steering) in &grouping.steered {
            let Some(vector) = steering.after(layer) else { continue };
            for row in stream[rows.start * width..rows.end * width].chunks_exact_mut(width) {
                row.iter_mut().zip(vector).for_each(|(value, more)| *value += more);
            }
        }
    }

    fn grouping(&self, rows: usize) -> Option<&Grouping> {
        self.groupings.iter().find(|grouping| grouping.rows == rows)
    }
}
