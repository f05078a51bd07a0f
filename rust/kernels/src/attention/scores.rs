//! Scores of one row of queries, by pages and by the chunks of pages that softmax runs over.

use super::pages::PAGE_TOKENS;

/// Pages whose softmax is computed from its own start: what can be given to another thread.
pub(super) const CHUNK_PAGES: usize = 8;
/// Positions of a chunk.
pub(super) const CHUNK: usize = CHUNK_PAGES * PAGE_TOKENS;

/// Scores of one query with the tokens of a page.
pub(super) type Scores = [f32; PAGE_TOKENS];

/// Scores of one row with the tokens of a chunk, as exponents of 2, then their weights.
pub(super) type ChunkScores = [Scores; CHUNK_PAGES];
