//! `llamacpu._native.File`: a model file, opened once for its header and for its weights.
#![expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted by value")]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use llamacpu_kernels::mapping::{Load, SourceFile};
use llamacpu_kernels::{Error, memory};

use crate::errors::{IntoPython, raise};
use crate::gguf::StringIndex;
use crate::lists::array;
use crate::opened::Opened;
use crate::outside::released;

/// An open file, read at any position.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct File {
    size: u64,
    open: Opened<SourceFile>,
    /// The first bytes of the file, once `keep` has read them.
    kept: OnceLock<Vec<u8>>,
}

impl File {
    fn kept(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.kept.get()?.get(usize::try_from(offset).ok()?..)?.get(..length)
    }

    pub(crate) fn source(&self, py: Python<'_>) -> PyResult<Arc<SourceFile>> {
        self.open.get().ok_or_else(|| raise(py, "GGUFError", "the GGUF file is closed: read it before close()"))
    }
}

#[pymethods]
impl File {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let source = released(py, || SourceFile::open(&path).map_err(|error| NotOpened { path: path.clone(), error }))?;
        Ok(Self { size: source.len(), open: Opened::new(source), kept: OnceLock::new() })
    }

    /// Length in bytes when it was opened.
    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    /// Whether `close` has been called.
    #[getter]
    fn closed(&self) -> bool {
        self.open.is_closed()
    }

    /// `length` bytes from `offset` on.
    fn read<'py>(&self, py: Python<'py>, offset: u64, length: u64) -> PyResult<Bound<'py, PyBytes>> {
        let source = self.source(py)?;
        let end = offset.checked_add(length).filter(|&end| end <= self.size);
        let length = end.and_then(|_| usize::try_from(length).ok()).ok_or_else(|| {
            let message = format!("{length} bytes from byte {offset} on of a file of {} bytes", self.size);
            raise(py, "GGUFError", &message)
        })?;
        PyBytes::new_with(py, length, |out| {
            if let Some(kept) = self.kept(offset, length) {
                out.copy_from_slice(kept);
                return Ok(());
            }
            released(py, || unchanged(&source, offset, out))
        })
    }

    /// Reads the first `length` bytes into memory: from then on nothing that happens to the file changes them.
    fn keep(&self, py: Python<'_>, length: u64) -> PyResult<()> {
        let source = self.source(py)?;
        let bytes = released(py, || {
            let length = usize::try_from(length.min(self.size)).unwrap_or(usize::MAX);
            let mut bytes = Vec::new();
            memory::grow(&mut bytes, length, 0, "the header of the file")?;
            unchanged(&source, 0, &mut bytes)?;
            Ok::<_, Error>(bytes)
        })?;
        // If two callers race, the first one's bytes stay; both are identical.
        let _ = self.kept.set(bytes);
        Ok(())
    }

    /// As the function `index_strings`, in this file.
    fn index_strings<'py>(&self, py: Python<'py>, start: u64, count: u64) -> PyResult<StringIndex<'py>> {
        let source = self.source(py)?;
        let read = |at: u64, out: &mut [u8]| {
            unchanged(&source, at, out).map_err(|error| llamacpu_text::Error::File(error.to_string()))
        };
        let index = released(py, || llamacpu_text::index_strings_of(self.size, start, count, &read))?;
        Ok((array(py, index.offsets)?, index.end))
    }

    /// Closes the file; a model that was made of it keeps its own reference.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.open.close(py)
    }
}

/// The open files that hold weights. Raises a GGUFError for a closed one.
pub(crate) fn sources(py: Python<'_>, files: Vec<Bound<'_, File>>) -> PyResult<Vec<Arc<SourceFile>>> {
    files.into_iter().map(|file| file.get().source(py)).collect()
}

/// How the files are brought into memory.
pub(crate) fn load_from(name: &str) -> PyResult<Load> {
    match name {
        "map" => Ok(Load::Map),
        "copy" => Ok(Load::Copy),
        other => Err(PyValueError::new_err(format!("load is {other:?}; expected \"map\" or \"copy\""))),
    }
}

/// Reads bytes, making sure that the file has not changed since it was opened.
fn unchanged(source: &SourceFile, offset: u64, out: &mut [u8]) -> Result<(), Error> {
    source.read(offset, out)?;
    source.check().map_err(|error| Error::File(error.to_string()))
}

/// The system's error when a file cannot be opened.
struct NotOpened {
    path: PathBuf,
    error: std::io::Error,
}

impl IntoPython for NotOpened {
    /// The exception that Python itself would raise, with the error number.
    fn into_python(self, py: Python<'_>) -> PyErr {
        match self.error.raw_os_error() {
            Some(number) if cfg!(unix) => {
                let text = py.import("os").and_then(|os| os.call_method1("strerror", (number,))?.extract::<String>());
                text.map_or_else(|error| error, |text| PyOSError::new_err((number, text, self.path)))
            }
            _ => self.error.into(),
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<File>()
}
