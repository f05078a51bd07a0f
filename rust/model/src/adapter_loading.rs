//! From the tensors of an adapter file to changes of the matrices of a model.

use std::collections::HashMap;
use std::sync::Arc;

use llamacpu_kernels::low_rank::{UpMatrix, down_matrix, gather};
use llamacpu_kernels::mapping::{Load, Mapping, SourceFile};
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::memory;

use crate::adapters::{Adapter, Pair, Steering};
use crate::error::zeroed;
use crate::model::Interrupted;
use crate::tensors::{Slot, TensorInfo, Tensors};
use crate::{Error, Model};

const PURPOSE: &str = "adapters";

/// A pair of tensors that changes one tensor of the model.
#[derive(Debug, Clone)]
pub struct AdapterPair {
    /// Name of the tensor of the model.
    pub base: String,
    /// Name of the tensor that is multiplied with the input: rank × columns, or a stack of these.
    pub down: String,
    /// Name of the tensor that is multiplied with the result: rows × rank, or a stack of these.
    pub up: String,
    /// Factor of the product.
    pub factor: f32,
}

impl Model {
    /// Vectors for sessions of this model: `vectors` are pairs of a layer, counted from 0, and what is added to the stream
    /// after it. Those of the same layer are added up, in order.
    ///
    /// # Errors
    /// `Error::Argument` if there is no such layer or a vector has another length than the embedding; `Error::Memory`.
    pub fn steering(&self, vectors: &[(usize, Vec<f32>)]) -> Result<Steering, Error> {
        if self.config().streams > 0 {
            return Err(Error::Argument(format!(
                "the model ({}) has {} residual streams: expected one that a vector can be added to",
                self.config().architecture,
                self.config().streams
            )));
        }
        Steering::new(self.identity(), (self.config().layers, self.config().embedding_length), vectors)
    }

    /// Reads an adapter for this model into memory; its files are not needed any more afterwards.
    ///
    /// # Errors
    /// `Error::Model` if a tensor is missing, cannot be read or does not fit to the model; `Error::Kernel` if a file has
    /// changed; `Error::Memory`.
    pub fn adapter(
        &self,
        files: &[Arc<SourceFile>],
        tensors: &[TensorInfo],
        pairs: &[AdapterPair],
        interrupted: Option<Interrupted>,
    ) -> Result<Adapter, Error> {
        if self.config().relative_positions > 0 {
            return Err(Error::Model(format!(
                "adapters for {}, whose attention multiplies embeddings of distances too, are not supported",
                self.config().architecture
            )));
        }
        let files =
            files.iter().map(|file| Mapping::of(file, Load::Map, interrupted)).collect::<Result<Vec<_>, _>>()?;
        for file in &files {
            file.watch();
        }
        let mut table = Tensors::new(&files, tensors)?;
        let slots = self.slots();
        let mut by_tensor: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, slot) in slots.iter().enumerate() {
            by_tensor.entry(&slot.tensor).or_default().push(index);
        }
        let mut found: Vec<Option<Pair>> = memory::room(slots.len(), PURPOSE)?;
        found.resize_with(slots.len(), || None);
        let (mut embedding, mut token_types) = (None, Vec::new());
        for pair in pairs {
            let shapes = (table.shape(&pair.down)?, table.shape(&pair.up)?);
            let ([columns, rank, _], [inner, rows, _]) = shapes;
            if pair.base == "token_embd.weight" {
                let (vocabulary, width) = (self.config().embedding_rows(), self.config().embedding_length);
                if shapes != ([inner, vocabulary, 1], [inner, width, 1]) {
                    return Err(misfit(pair, &format!("rank × {vocabulary} and rank × {width}")));
                }
                let up = all(&table.matrix(&pair.up, inner, width)?)?;
                let down = narrowed(&table.matrix(&pair.down, inner, vocabulary)?)?;
                embedding = Some(Pair { down, up: UpMatrix::new(width, inner, &up)?, factor: pair.factor });
                continue;
            }
            if pair.base == "token_types.weight" && self.config().token_types > 0 {
                token_types = self.changed_types(&mut table, pair, shapes)?;
                continue;
            }
            let own = by_tensor.get(pair.base.as_str()).ok_or_else(|| {
                Error::Model(format!(
                    "the adapter changes {:?}, a tensor that this model multiplies nothing by",
                    pair.base
                ))
            })?;
            if inner != rank {
                return Err(misfit(pair, "the same rank"));
            }
            let count = shapes.0[2];
            let (downs, ups) =
                (table.stack(&pair.down, columns, &[rank], count)?, table.stack(&pair.up, rank, &[rows], shapes.1[2])?);
            let mut last: Option<(usize, Arc<Matrix>)> = None;
            for &index in own {
                let slot = &slots[index];
                let (wide, high) = if slot.transposed { (slot.rows, slot.columns) } else { (slot.columns, slot.rows) };
                let (Some(down), Some(up)) = (downs.get(slot.part), ups.get(slot.part)) else {
                    return Err(misfit(pair, &format!("at least {} parts", slot.part + 1)));
                };
                if wide != columns || slot.first_row + high > rows {
                    return Err(misfit(pair, &format!("{wide} inputs and at least {} outputs", slot.first_row + high)));
                }
                let change = if slot.transposed {
                    transposed(down, up, slot, pair.factor)?
                } else {
                    let down = match &last {
                        Some((part, down)) if *part == slot.part => Arc::clone(down),
                        _ => narrowed(down)?,
                    };
                    last = Some((slot.part, Arc::clone(&down)));
                    let up = some(up, slot.first_row, slot.rows)?;
                    Pair { down, up: UpMatrix::new(slot.rows, rank, &up)?, factor: pair.factor }
                };
                found[index] = Some(change);
            }
        }
        files.iter().try_for_each(|file| file.check())?;
        gather_pairs(&mut found)?;
        Ok(Adapter::new(self.identity(), found, (embedding, token_types)))
    }

    /// What is added to the embedding of each type of token: the rows of the whole product, which are few.
    fn changed_types(
        &self,
        table: &mut Tensors,
        pair: &AdapterPair,
        shapes: ([usize; 3], [usize; 3]),
    ) -> Result<Vec<Vec<f32>>, Error> {
        let (types, width) = (self.config().token_types, self.config().embedding_length);
        let rank = shapes.0[1];
        if shapes != ([width, rank, 1], [rank, types, 1]) {
            return Err(misfit(pair, &format!("{width} × rank and rank × {types}")));
        }
        let (down, up) = (table.matrix(&pair.down, width, rank)?, table.matrix(&pair.up, rank, types)?);
        let (down, up) = (all(&down)?, all(&up)?);
        let mut rows: Vec<Vec<f32>> = memory::room(types, PURPOSE)?;
        for factors in up.chunks_exact(rank.max(1)) {
            let mut row = zeroed(Some(width), PURPOSE)?;
            for (factor, numbers) in factors.iter().zip(down.chunks_exact(width)) {
                row.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += factor * number);
            }
            for sum in &mut row {
                *sum *= pair.factor;
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

/// Moves the matrices of all pairs into memory of their own, in the order in which they are used.
fn gather_pairs(pairs: &mut [Option<Pair>]) -> Result<(), Error> {
    let parts: Vec<_> = pairs.iter().flatten().map(|pair| (Arc::clone(&pair.down), &pair.up)).collect();
    let moved = gather(&parts)?;
    for (pair, (down, up)) in pairs.iter_mut().flatten().zip(moved) {
        (pair.down, pair.up) = (down, up);
    }
    Ok(())
}

fn misfit(pair: &AdapterPair, expected: &str) -> Error {
    Error::Model(format!(
        "the tensors {:?} and {:?} do not fit to {:?} of the model: expected {expected}; the adapter belongs to another model",
        pair.down, pair.up, pair.base
    ))
}

/// The change of the transposed matrix: `(B A)ᵀ = Aᵀ Bᵀ`.
fn transposed(down: &Matrix, up: &Matrix, slot: &Slot, factor: f32) -> Result<Pair, Error> {
    let rank = down.rows();
    // rank × latent size
    let first = all(down)?;
    // inputs × rank
    let second = some(up, slot.first_row, slot.columns)?;
    let mut turned_up = zeroed(Some(second.len()), PURPOSE)?;
    for (row, numbers) in turned_up.chunks_exact_mut(slot.columns.max(1)).enumerate() {
        numbers.iter_mut().enumerate().for_each(|(column, number)| *number = second[column * rank + row]);
    }
    let mut turned_down = zeroed(Some(first.len()), PURPOSE)?;
    for (row, numbers) in turned_down.chunks_exact_mut(rank.max(1)).enumerate() {
        numbers.iter_mut().enumerate().for_each(|(column, number)| *number = first[column * slot.rows + row]);
    }
    let down = matrix_of(rank, slot.columns, &turned_up)?;
    Ok(Pair { down, up: UpMatrix::new(slot.rows, rank, &turned_down)?, factor })
}

/// All numbers of a matrix, row by row.
fn all(matrix: &Matrix) -> Result<Vec<f32>, Error> {
    some(matrix, 0, matrix.rows())
}

/// The numbers of some rows.
fn some(matrix: &Matrix, first: usize, count: usize) -> Result<Vec<f32>, Error> {
    let columns = matrix.columns();
    let mut numbers = zeroed(count.checked_mul(columns), PURPOSE)?;
    for (row, numbers) in numbers.chunks_exact_mut(columns.max(1)).enumerate() {
        matrix.row(first + row, numbers)?;
    }
    Ok(numbers)
}

/// The same numbers in memory, in the smallest format without loss that products with 32-bit activations know.
fn narrowed(matrix: &Matrix) -> Result<Arc<Matrix>, Error> {
    matrix_of(matrix.rows(), matrix.columns(), &all(matrix)?)
}

fn matrix_of(rows: usize, columns: usize, numbers: &[f32]) -> Result<Arc<Matrix>, Error> {
    Ok(Arc::new(down_matrix(rows, columns, numbers)?))
}
