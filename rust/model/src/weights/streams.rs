//! The weights of hyper-connections, which mix several residual streams.

use llamacpu_kernels::matmul::Matrix;

use super::Linear;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// How the streams enter a block, and how its output and the streams make the next ones.
pub(crate) struct Link {
    /// From all streams to the numbers that weights are made of: those of the input, of the output and, for blocks, the
    /// matrix that mixes the streams.
    pub(crate) map: Linear,
    pub(crate) base: Vec<f32>,
    /// A factor for each of these three; one for the link to the output.
    pub(crate) factors: Vec<f32>,
}

/// The links of a layer.
pub(crate) struct Links {
    pub(crate) attention: Link,
    pub(crate) feed_forward: Link,
}

impl Link {
    fn load(
        config: &Config,
        tensors: &mut Tensors,
        name: &str,
        (rows, factors): (usize, usize),
    ) -> Result<Self, Error> {
        Ok(Self {
            map: tensors.linear(&format!("{name}_fn"), config.stream_width(), rows)?,
            base: tensors.vector(&format!("{name}_base.weight"), rows)?,
            factors: tensors.vector(&format!("{name}_scale.weight"), factors)?,
        })
    }

    /// The link to the final norm; `None` with a single stream.
    pub(super) fn of_output(config: &Config, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let streams = config.streams;
        (streams > 0).then(|| Self::load(config, tensors, "output_hc", (streams, 1))).transpose()
    }
}

impl Links {
    /// Those of a layer; `None` with a single stream.
    pub(super) fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let streams = config.streams;
        if streams == 0 {
            return Ok(None);
        }
        let mut link =
            |part: &str| Link::load(config, tensors, &format!("blk.{index}.hc_{part}"), (streams * (streams + 2), 3));
        Ok(Some(Self { attention: link("attn")?, feed_forward: link("ffn")? }))
    }

    pub(super) fn matrices(&self) -> [&Matrix; 2] {
        [&self.attention, &self.feed_forward].map(|link| &link.map.matrix)
    }
}
