//! What is encoded.

/// The tiles of a picture: normalized values, tiles × height × width × 3.
#[derive(Debug)]
pub struct Pixels {
    /// The values, row by row.
    pub values: Vec<f32>,
    /// Number of tiles.
    pub tiles: usize,
    /// Rows of pixels of a tile.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// The arrangement of joint tiles: a row of their tables. 0 where there are none.
    pub arrangement: usize,
}
