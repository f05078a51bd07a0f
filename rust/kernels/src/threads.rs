//! threads

/// Worker threads.
pub struct Pool {}
