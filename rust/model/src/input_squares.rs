//! What importance matrices are made from: for every matrix, the sums of squares of each element of its input.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::context::{Context, Observer};
use llamacpu_kernels::mapping::{Bytes, Mapping};
use llamacpu_kernels::memory;
use llamacpu_kernels::squares::add_squares;

/// The sums of one matrix of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Squares {
    /// Index of the file.
    pub file: usize,
    /// Offset of the matrix in it, in bytes.
    pub offset: u64,
    /// Number of inputs that were added.
    pub count: u64,
    /// The sum of the squares of every element, in the order of the tokens.
    pub sums: Vec<f64>,
}

/// Collects the squares of the inputs of all matrices that lie in files. Matrices that were derived from others at loading
/// are not seen.
pub(crate) struct InputSquares<'a> {
    files: &'a [Arc<Mapping>],
    found: Mutex<HashMap<(usize, usize), Squares>>,
}

impl<'a> InputSquares<'a> {
    pub(crate) fn new(files: &'a [Arc<Mapping>]) -> Self {
        Self { files, found: Mutex::new(HashMap::new()) }
    }

    /// The sums of every matrix that was used, in the order of the files.
    pub(crate) fn into_sums(self) -> Vec<Squares> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = found.into_values().collect();
        all.sort_by_key(|squares| (squares.file, squares.offset));
        all
    }
}

impl Observer for InputSquares<'_> {
    fn product(
        &self,
        context: &Context,
        weights: &Bytes,
        columns: usize,
        (input, stride): (&[f32], usize),
        tokens: usize,
    ) -> Result<(), KernelError> {
        let Some((file, offset)) = weights.place() else { return Ok(()) };
        let Some(file) = self.files.iter().position(|own| Arc::ptr_eq(own, file)) else { return Ok(()) };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let squares = match found.entry((file, offset)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut sums = memory::room(columns, "sums of squares")?;
                sums.resize(columns, 0.0);
                entry.insert(Squares { file, offset: offset as u64, count: 0, sums })
            }
        };
        add_squares(context, input, stride, tokens, &mut squares.sums)?;
        squares.count += tokens as u64;
        Ok(())
    }
}
