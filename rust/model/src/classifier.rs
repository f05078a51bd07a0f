//! Class scores: the classifier's output for hidden states (of the first token of each text, for BERT and DeBERTa).

use crate::activation::plain;
use crate::error::{Error, zeroed};
use crate::feed_forward::project;
use crate::scratch::Scratch;
use crate::{Interrupted, Model};

impl Model {
    /// The class scores of `states` (rows × embedding) as rows × classes.
    ///
    /// # Errors
    /// `Error::Model` if the model has no classifier; `Error::Argument` if `states` is not a whole number of rows;
    /// `Error::Kernel` if the work was cancelled, a file has changed or memory ran out; `Error::Memory`.
    pub fn classify(&self, states: &[f32], interrupted: Option<Interrupted>) -> Result<Vec<f32>, Error> {
        let (context, config, weights) = self.parts(interrupted);
        let Some(classifier) = &weights.classifier else {
            return Err(Error::Model(
                "the model has no classifier (cls.weight, cls.output.weight): it gives states of tokens, and no classes"
                    .to_owned(),
            ));
        };
        let (width, classes) = (config.embedding_length, config.classes);
        let rows = states.len() / width;
        if rows * width != states.len() {
            return Err(Error::Argument(format!("{} numbers: expected rows of {width}", states.len())));
        }
        let mut scores = zeroed(rows.checked_mul(classes), "scores of classes")?;
        if rows == 0 {
            return Ok(scores);
        }
        self.with_files(|| {
            let mut scratch = Scratch::default();
            let mut dense;
            let input = if let Some(linear) = &classifier.dense {
                dense = zeroed(Some(states.len()), "activations")?;
                project(&context, states, rows, &mut scratch, &mut [(linear, &mut dense[..])])?;
                plain(&context, config.classifier_activation, &mut dense)?;
                &dense
            } else {
                states
            };
            project(&context, input, rows, &mut scratch, &mut [(&classifier.output, &mut scores)])
        })?;
        Ok(scores)
    }
}
