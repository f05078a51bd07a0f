//! The size of a page.

/// Number of tokens in a page.
pub const PAGE_TOKENS: usize = 64;
