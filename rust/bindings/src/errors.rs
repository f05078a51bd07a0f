//! The only mapping from Rust errors to the Python exceptions in `llamacpu.errors`.

use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use llamacpu_kernels::Error as KernelError;
use llamacpu_model::Error as ModelError;
use llamacpu_text::Error as TextError;

/// Builds the exception of the class `name` in `llamacpu.errors`.
pub(crate) fn raise(py: Python<'_>, name: &str, message: &str) -> PyErr {
    match py.import("llamacpu.errors").and_then(|errors| errors.getattr(name)?.call1((message,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// An error that can be converted to a Python exception.
pub(crate) trait IntoPython {
    /// Converts the error to an exception.
    fn into_python(self, py: Python<'_>) -> PyErr;
}

impl IntoPython for KernelError {
    fn into_python(self, py: Python<'_>) -> PyErr {
        let message = self.to_string();
        match self {
            // Sizes, formats and instruction sets are arguments here.
            Self::Shape(_) | Self::Unsupported(_) => PyValueError::new_err(message),
            Self::File(_) => raise(py, "GGUFError", &message),
            Self::Changed(_) => raise(py, "ModelError", &message),
            Self::Memory { .. } => PyMemoryError::new_err(message),
            Self::Cancelled => raise(py, "Cancelled", "stopped before it was done"),
        }
    }
}

impl IntoPython for ModelError {
    fn into_python(self, py: Python<'_>) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Model(_) => raise(py, "ModelError", &message),
            Self::Argument(_) => PyValueError::new_err(message),
            Self::Busy(_) => PyRuntimeError::new_err(message),
            Self::ContextOverflow { .. } | Self::TextTooLong { .. } => raise(py, "ContextOverflow", &message),
            Self::Memory { .. } => PyMemoryError::new_err(message),
            // Sizes, formats and instruction sets are not arguments here.
            Self::Kernel(KernelError::Shape(_) | KernelError::Unsupported(_)) => raise(py, "LlamaCpuError", &message),
            Self::Kernel(error) => error.into_python(py),
        }
    }
}

impl IntoPython for TextError {
    fn into_python(self, py: Python<'_>) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Argument(_) => PyValueError::new_err(message),
            Self::File(_) => raise(py, "GGUFError", &message),
            Self::Unsupported(_) => raise(py, "ModelError", &message),
            Self::Grammar(_) => raise(py, "GrammarError", &message),
            Self::Cancelled => raise(py, "Cancelled", &message),
            Self::Memory => PyMemoryError::new_err(message),
        }
    }
}
