//! A matrix unit, configured by a thread for the tiles of a piece of work.

/// How the unit is configured and released.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    /// Prepares for tiles of so many tokens and columns; a function of a table, as in `kernels`.
    pub(super) configure: unsafe fn(&[usize; 2]),
    /// Ends that.
    pub(super) release: unsafe fn(&()),
    /// Columns of a tile: the part of a block that is scaled as a whole.
    pub(super) columns: usize,
}

/// The unit, if the kernels need one, while this thread runs a piece; released when it is dropped.
pub(super) struct Configured {
    unit: Option<Unit>,
    tokens: usize,
}

impl Configured {
    /// A unit that is not configured yet.
    pub(super) fn new(unit: Option<Unit>) -> Self {
        Self { unit, tokens: 0 }
    }

    /// Configures the unit for tiles of `tokens`, unless it is.
    pub(super) fn set(&mut self, tokens: usize) {
        if self.tokens == tokens {
            return;
        }
        if let Some(unit) = self.unit {
            self.tokens = tokens;
            // SAFETY: only the kernels of a processor with the unit name one.
            unsafe { (unit.configure)(&[tokens, unit.columns]) };
        }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        if let Some(unit) = self.unit.filter(|_| self.tokens > 0) {
            // SAFETY: as in `set`, which has configured it.
            unsafe { (unit.release)(&()) };
        }
    }
}
