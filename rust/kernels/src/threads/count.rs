//! How many threads to use when nobody says.

/// A number of threads and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threads {
    /// At least 1.
    pub count: usize,
    /// One line for people: what limits the number.
    pub why: String,
}

/// The number of threads that are likely to be fastest on this machine.
pub fn default_threads() -> Threads {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Threads { count, why: format!("{count} processors may be used") }
}
