//! Units that multiply tiles of bytes: those of AMX, and the same in software.
//!
//! A product is `sums = activations × weights`, exact in 32 bits: up to 16 tokens × 16 or 32 columns, times as many columns × 16
//! rows of weights. The three are tiles of AMX, at most 16 rows of 64 bytes:
//!
//! | tile | its rows | bytes of a row |
//! |---|---|---|
//! | activations | tokens | one signed byte for each column |
//! | weights | groups of 4 columns | 4 bytes for each of 16 rows of weights, the arrangement of a panel with 8 bits |
//! | sums | tokens | 4 bytes for each of 16 rows of weights |
//!
//! A thread configures the unit for a piece of work and releases it at its end, so no thread waits, forks or parks with tiles
//! in use, and the system has nothing to save for it then. Within a piece they are registers like any others, saved when
//! threads take turns and when a signal arrives.

pub(crate) mod amx;
mod software;

pub use amx::{Amx, usable};
pub use software::Software;

/// Most tokens in a product.
pub const TOKENS: usize = 16;

/// Bytes from one token's activations to the next: a block of 32 columns.
pub const ACTIVATION_STRIDE: usize = 32;

/// Bytes from 4 columns of 16 rows of weights to the next 4.
pub const WEIGHT_STRIDE: usize = 64;

/// Sums from one token to the next.
pub const SUM_STRIDE: usize = 16;

/// A unit that multiplies tiles.
///
/// # Safety
/// `multiply` reads and writes nothing but the tiles that its caller promises.
pub unsafe trait Tiles: 'static {
    /// Prepares this thread for products of `tokens` (1 to 16) × `columns` (16 or 32).
    ///
    /// # Safety
    /// The processor has the unit, and this process may use it.
    unsafe fn configure(tokens: usize, columns: usize);

    /// Ends what `configure` began.
    ///
    /// # Safety
    /// As for `configure`.
    unsafe fn release();

    /// Overwrites `sums` with the product of signed activations and weights, which are signed or not. `SECOND` chooses one of
    /// two sets of registers, which successive products should alternate.
    ///
    /// # Safety
    /// As for `configure`, which this thread has called; all tiles of that configuration are there, at the strides of this
    /// module.
    unsafe fn multiply<const SIGNED: bool, const SECOND: bool>(
        activations: *const i8,
        weights: *const u8,
        sums: *mut i32,
    );
}

/// Registers, of which each product uses one of each pair.
const SUMS: [usize; 2] = [0, 1];
/// See `SUMS`.
const ACTIVATIONS: [usize; 2] = [2, 3];
/// See `SUMS`.
const WEIGHTS: [usize; 2] = [4, 5];

/// The operand of `ldtilecfg`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Configuration {
    /// Number of the layout of registers: 1, 8 tiles of at most 16 rows of 64 bytes.
    palette: u8,
    /// Row at which an interrupted load or store continues: 0.
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, for each tile; 8 more entries are reserved.
    pub row_bytes: [u16; 16],
    /// Rows, for each tile; 8 more entries are reserved.
    pub rows: [u8; 16],
}

const _: () = assert!(size_of::<Configuration>() == 64);

impl Configuration {
    /// For products of `tokens` × `columns`.
    pub const fn new(tokens: usize, columns: usize) -> Self {
        let mut found = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut set = 0;
        while set < 2 {
            (found.rows[SUMS[set]], found.row_bytes[SUMS[set]]) = (tokens as u8, 4 * SUM_STRIDE as u16);
            (found.rows[ACTIVATIONS[set]], found.row_bytes[ACTIVATIONS[set]]) = (tokens as u8, columns as u16);
            (found.rows[WEIGHTS[set]], found.row_bytes[WEIGHTS[set]]) = (columns as u8 / 4, WEIGHT_STRIDE as u16);
            set += 1;
        }
        found
    }
}
