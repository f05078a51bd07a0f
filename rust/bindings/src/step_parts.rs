//! The items of a step from Python: sessions, ids, and the pictures among them.

use std::sync::Arc;

use numpy::{PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_model::{Grid, Picture, PictureInput, StepItem, Wanted};

use crate::lists::{array, copy_of, reserved, token_ids};
use crate::session::Session;

/// A picture among ids: index of its first id; rows, float32[rows, width]; whether these see each other; for states of
/// cross-attention, the id of the placeholder; number of the first row in the picture, its height and its width, if known.
pub(crate) type PictureRow<'py> = (usize, Bound<'py, PyArray2<f32>>, bool, Option<u32>, Option<(usize, usize, usize)>);

/// An item of a step: a session and ids, and where the ids stand for pictures, these.
#[derive(FromPyObject)]
pub(crate) enum ItemRow<'py> {
    /// Tokens alone.
    Tokens(Bound<'py, Session>, Bound<'py, PyAny>),
    /// Tokens and pictures.
    Mixed(Bound<'py, Session>, Bound<'py, PyAny>, Vec<PictureRow<'py>>),
}

/// A session of a step, and what continues it.
pub(crate) struct StepPart {
    pub(crate) session: Arc<llamacpu_model::Session>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) pictures: Vec<Picture>,
}

/// Copies the items, so that nothing that Python does meanwhile changes them.
pub(crate) fn step_parts(items: Vec<ItemRow>) -> PyResult<Vec<StepPart>> {
    let part = |item| {
        let (session, ids, rows) = match item {
            ItemRow::Tokens(session, ids) => (session, ids, Vec::new()),
            ItemRow::Mixed(session, ids, rows) => (session, ids, rows),
        };
        let pictures = rows.into_iter().map(picture).collect::<PyResult<_>>()?;
        Ok(StepPart { session: session.get().inner(), tokens: token_ids(&ids)?, pictures })
    };
    items.into_iter().map(part).collect()
}

/// The tokens for which a step returns logits.
pub(crate) fn wanted_from(name: &str) -> PyResult<Wanted> {
    match name {
        "none" => Ok(Wanted::None),
        "last" => Ok(Wanted::Last),
        "all" => Ok(Wanted::All),
        other => Err(PyValueError::new_err(format!("logits is {other:?}; expected \"last\", \"all\" or \"none\""))),
    }
}

/// The parts as items of a step.
pub(crate) fn step_items<'a>(parts: &'a [StepPart], wanted: Wanted) -> Vec<StepItem<'a>> {
    let item = |part: &'a StepPart| {
        let StepPart { session, tokens, pictures } = part;
        StepItem { session, tokens, pictures, wanted }
    };
    parts.iter().map(item).collect()
}

fn picture((start, rows, together, token, grid): PictureRow) -> PyResult<Picture> {
    let count = if token.is_some() { 1 } else { rows.shape()[0] };
    let rows = rows.readonly();
    let rows = rows.as_slice().map_err(|_| PyValueError::new_err("the rows of a picture must be contiguous"))?;
    let rows = Arc::new(copy_of(rows)?);
    let input = if let Some(token) = token {
        PictureInput::States { token, states: rows }
    } else {
        let grid = grid.map(|(first, height, width)| Grid { first, height, width });
        PictureInput::Rows { rows, together, grid }
    };
    Ok(Picture { start, count, input })
}

/// The pictures of a session from position `first` on, in the form that a step takes, counted from there.
pub(crate) fn picture_rows<'py>(
    py: Python<'py>,
    session: &llamacpu_model::Session,
    width: usize,
    first: usize,
) -> PyResult<Vec<PictureRow<'py>>> {
    let pictures = crate::outside::attached(py, || session.pictures())?;
    let mut rows = reserved(pictures.len())?;
    for picture in pictures.into_iter().filter(|picture| picture.start + picture.count > first) {
        let start = picture.start.max(first);
        let skipped = start - picture.start;
        let (numbers, together, token, grid) = match &picture.input {
            PictureInput::Rows { rows, together, grid } => {
                let grid = grid.map(|grid| (grid.first + skipped, grid.height, grid.width));
                let own = rows.get(skipped * width..picture.count * width).ok_or_else(|| {
                    PyValueError::new_err(
                        "the session was restored from a file, and its pictures, which the file does not hold, are \
                         needed; truncate it to 0 tokens and give everything again",
                    )
                })?;
                (own, *together, None, grid)
            }
            PictureInput::States { token, .. } => (&[][..], false, Some(*token), None),
        };
        let numbers = copy_of(numbers)?;
        let shape = [numbers.len() / width, width];
        rows.push((start - first, array(py, numbers)?.reshape(shape)?, together, token, grid));
    }
    Ok(rows)
}
