//! Settings of picture encoders that take one of a few names.

use llamacpu_kernels::activation::Activation;

use crate::config::choices;
use crate::settings::Choice;

choices! {
    /// Whether a learned row stands beside the patches of a tile.
    ClassToken {
        /// There is none.
        None = "none",
        /// Before the patches.
        First = "first",
        /// Behind them.
        Last = "last",
    }

    /// How learned embeddings of positions are looked up.
    PositionTable {
        /// There are none.
        None = "none",
        /// One row for each row of a tile.
        Fixed = "fixed",
        /// A square table of n rows and columns, of which row i of H uses row floor(n i / H), and columns likewise
        /// (MiniCPM-V).
        Nearest = "nearest",
        /// A square table, resampled linearly to the grid of the patches; beyond its edge are zeros. For a grid of H rows
        /// and W columns it is resampled to W rows and H columns, which are read row by row (Muse Glimmer, as the
        /// `transformers` library runs it).
        Transposed = "transposed",
        /// A square table, resampled linearly to the grid of the patches, whose corners are those of the table (Qwen3-VL).
        Corners = "corners",
    }

    /// How queries and keys are rotated by the place of their patch: half of the pairs of a head by each coordinate.
    VisionRotation {
        /// Not at all.
        None = "none",
        /// The first pairs by the column.
        ColumnsFirst = "columns_first",
        /// The first pairs by the row.
        RowsFirst = "rows_first",
    }

    /// How the patches of a square become one row.
    MergeOrder {
        /// Their vectors side by side, row by row of the square.
        Patches = "patches",
        /// The same, with the elements of all patches side by side for each place of the vector.
        Channels = "channels",
        /// Their mean.
        Average = "average",
    }

    /// The function inside feed-forward networks and projectors (D. Hendrycks and K. Gimpel, arXiv:1606.08415).
    VisionActivation {
        /// `x (1 + erf(x / sqrt(2))) / 2`.
        Gelu = "gelu",
        /// The same by a hyperbolic tangent.
        GeluTanh = "gelu_tanh",
        /// `x / (1 + exp(-1.702 x))`.
        GeluSigmoid = "gelu_sigmoid",
        /// `x / (1 + exp(-x))`.
        Silu = "silu",
    }
}

impl VisionActivation {
    /// The kernel that computes it.
    pub(super) fn kernel(self) -> Activation {
        match self {
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
            Self::GeluSigmoid => Activation::GeluSigmoid,
            Self::Silu => Activation::Silu,
        }
    }
}
