//! Scores of one row of queries, by page and by the chunks of pages that the softmax processes.

use super::pages::PAGE_TOKENS;

/// Pages whose softmax is computed independently: the unit that can be given to another thread.
pub(super) const CHUNK_PAGES: usize = 8;
/// Number of positions of a chunk.
pub const CHUNK: usize = CHUNK_PAGES * PAGE_TOKENS;

/// Scores of one query with the tokens of a page.
pub(super) type Scores = [f32; PAGE_TOKENS];

/// Scores of one row with the tokens of a chunk, as exponents of 2; afterwards their weights.
pub(super) type ChunkScores = [Scores; CHUNK_PAGES];
