//! What adapters change in products with the weights of the model.

use std::ops::Range;

use llamacpu_kernels::matmul::{Change, ChangeTerm};

use super::rows::{AdaptedRows, Run};

/// The changes of the matrix with this slot for a buffer of `rows` rows.
pub(crate) fn changes(adapted: &AdaptedRows, rows: usize, slot: usize) -> Vec<Change<'_>> {
    let runs = adapted.runs(rows).iter();
    runs.filter_map(|Run { rows, set }| change(adapted, rows.clone(), (*set)?, slot)).collect()
}

/// The changes of the matrix with this slot for `tokens` rows of an input; `set_of` gives the adapters of each.
pub(crate) fn changes_of_rows<'a>(
    adapted: &'a AdaptedRows,
    tokens: usize,
    slot: usize,
    set_of: &dyn Fn(usize) -> Option<usize>,
) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    let mut first = 0;
    while first < tokens && !adapted.is_empty() {
        let set = set_of(first);
        let end = (first..tokens).find(|&token| set_of(token) != set).unwrap_or(tokens);
        changes.extend(set.and_then(|set| change(adapted, first..end, set, slot)));
        first = end;
    }
    changes
}

/// The change for rows with the same adapters, if these change the matrix.
fn change(adapted: &AdaptedRows, tokens: Range<usize>, set: usize, slot: usize) -> Option<Change<'_>> {
    let terms = adapted.adapters(set).iter().filter_map(|(adapter, scale)| {
        let pair = adapter.pair(slot)?;
        Some(ChangeTerm { down: &pair.down, up: &pair.up, scale: scale * pair.factor })
    });
    let terms: Vec<_> = terms.collect();
    (!terms.is_empty()).then_some(Change { tokens, terms })
}
