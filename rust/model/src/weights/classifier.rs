//! The weights of a classifier.

use super::Linear;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// Computes class scores from one state: `output(function(dense(x)))`.
pub(crate) struct Classifier {
    /// width × width; `None` if the state is classified as it is.
    pub(crate) dense: Option<Linear>,
    /// classes × width
    pub(crate) output: Linear,
}

impl Classifier {
    pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let (width, classes) = (config.embedding_length, config.classes);
        if classes == 0 {
            return Ok(None);
        }
        if !tensors.has("cls.output.weight") {
            return Ok(Some(Self { dense: None, output: tensors.linear("cls", width, classes)? }));
        }
        let dense = tensors.has("cls.weight").then(|| tensors.linear("cls", width, width)).transpose()?;
        Ok(Some(Self { dense, output: tensors.linear("cls.output", width, classes)? }))
    }
}
