//! The two building blocks of all weights: linear maps and norms.

use llamacpu_kernels::matmul::Matrix;

use crate::config::NormKind;
use crate::error::zeroed;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// A matrix with an optional bias: `y = W x + b`.
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    /// One element per row of the matrix.
    pub(crate) bias: Option<Vec<f32>>,
    /// Number of the matrix among those that adapters can change.
    pub(crate) slot: usize,
}

/// The weight of a norm and its optional bias.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) kind: NormKind,
    /// Added to the mean square or to the variance.
    pub(crate) epsilon: f32,
}

impl Norm {
    /// A norm that only scales, and centres where the others of the model do.
    pub(crate) fn unweighted(config: &Config, len: usize) -> Result<Self, Error> {
        let mut weight = zeroed(Some(len), "weights")?;
        weight.fill(1.0);
        Ok(Self { weight, bias: None, kind: config.norm, epsilon: config.norm_epsilon })
    }
}

impl Linear {
    /// Number of outputs.
    pub(crate) fn rows(&self) -> usize {
        self.matrix.rows()
    }
}

impl Tensors<'_> {
    /// A matrix `NAME.weight` with its optional `NAME.bias`.
    pub(crate) fn linear(&mut self, name: &str, columns: usize, rows: usize) -> Result<Linear, Error> {
        let tensor = format!("{name}.weight");
        let matrix = self.matrix(&tensor, columns, rows)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { matrix, bias, slot: self.slot(&tensor, (rows, columns), (0, 0)) })
    }

    /// The parts of a single matrix `NAME.weight` that stacks several, each with its part of `NAME.bias`.
    pub(crate) fn linears(&mut self, name: &str, columns: usize, parts: &[usize]) -> Result<Vec<Linear>, Error> {
        let tensor = format!("{name}.weight");
        let matrices = self.stack(&tensor, columns, parts, 1)?;
        let bias = self.optional_vector(&format!("{name}.bias"), parts.iter().sum())?;
        let mut start = 0;
        let mut linears = Vec::with_capacity(parts.len());
        for (matrix, &rows) in matrices.into_iter().zip(parts) {
            let bias = bias.as_ref().map(|bias| bias[start..start + rows].to_vec());
            linears.push(Linear { matrix, bias, slot: self.slot(&tensor, (rows, columns), (start, 0)) });
            start += rows;
        }
        Ok(linears)
    }

    /// `NAME.weight`, a stack of `count` matrices, with the optional `NAME.bias`, one row per matrix.
    pub(super) fn linear_stack(
        &mut self,
        name: &str,
        columns: usize,
        rows: usize,
        count: usize,
    ) -> Result<Vec<Linear>, Error> {
        let tensor = format!("{name}.weight");
        let matrices = self.stack(&tensor, columns, &[rows], count)?;
        let biases = self.optional_table(&format!("{name}.bias"), rows, count)?;
        let bias = |index: usize| biases.as_ref().map(|biases| biases[index * rows..(index + 1) * rows].to_vec());
        let linears = matrices.into_iter().enumerate().map(|(index, matrix)| {
            let slot = self.slot(&tensor, (rows, columns), (0, index));
            Linear { matrix, bias: bias(index), slot }
        });
        Ok(linears.collect())
    }

    /// `NAME.weight` and, where vectors are centred, the optional `NAME.bias`; ones if norms have no weights.
    pub(super) fn norm(&mut self, config: &Config, name: &str, len: usize) -> Result<Norm, Error> {
        if !config.norm_weights {
            return Norm::unweighted(config, len);
        }
        let weight = self.vector(&format!("{name}.weight"), len)?;
        let bias = match config.norm {
            NormKind::Rms => None,
            NormKind::Layer => self.optional_vector(&format!("{name}.bias"), len)?,
        };
        Ok(Norm { weight, bias, kind: config.norm, epsilon: config.norm_epsilon })
    }
}
