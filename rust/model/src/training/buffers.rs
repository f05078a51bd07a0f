//! The buffers of a step: how large they are, in one place for the plan and for the allocation.

use llamacpu_kernels::backward::{Packed, PackedBytes};
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::matmul::{InputBuffers, Matrix};

use super::adapters::{Adapters, Part};
use super::floats::Floats;
use super::shape::TrainerShape;
use crate::config::{Config, Norms};
use crate::rotations::Angles;
use crate::{Error, Model};

/// Bytes of logits that are in memory at a time, unless a single row is longer.
const LOGITS: usize = 24 << 20;
/// Bytes of their rounded gradients that are in memory at a time, unless the rows of those logits have more.
const OF_LOGITS: usize = 72 << 20;
/// Bytes of the panels and tiles of a thread, at most.
const OF_A_THREAD: usize = 2 << 20;
/// Bytes of a file that are read before they are given back, about.
const STAGE: usize = 32 << 20;
const PURPOSE: &str = "activations; train on fewer tokens at a time";

/// What a layer's backward pass needs of its forward pass; each holds tokens × the width given in its comment.
#[derive(Default)]
pub(super) struct Saved {
    /// heads × key size, before norm and rotation
    pub(super) query: Floats,
    /// key and value heads × key size, before norm and rotation
    pub(super) key: Floats,
    /// key and value heads × value size
    pub(super) value: Floats,
    /// heads × value size
    pub(super) attended: Floats,
    /// heads
    pub(super) logarithms: Floats,
    /// embedding: the stream between attention and the feed-forward network
    pub(super) middle: Floats,
    /// feed-forward
    pub(super) gate: Floats,
    /// feed-forward
    pub(super) up: Floats,
    /// embedding: what the norms behind attention and the feed-forward network normalize, if there are any
    pub(super) behind: [Floats; 2],
    /// rank: the products of the A of every part
    pub(super) low: [Floats; Part::ALL.len()],
}

/// Intermediate results; each holds tokens × the width given in its comment.
#[derive(Default)]
pub(super) struct Work {
    /// embedding
    pub(super) normed: Floats,
    /// embedding
    pub(super) branch: Floats,
    /// heads × key size, as attention sees them
    pub(super) query: Floats,
    /// key and value heads × key size, as attention sees them
    pub(super) key: Floats,
    /// heads × the larger head size: gradients of queries, and of what they attend to
    pub(super) wide: [Floats; 2],
    /// key and value heads × key size: a gradient
    pub(super) of_key: Floats,
    /// key and value heads × value size: a gradient
    pub(super) of_value: Floats,
    /// Feed-forward: the input of the last matrix, or the gradient with respect to it. The loss, which comes between the layers'
    /// two passes, has its logits there: rows of logits at a time × vocabulary.
    pub(super) shared: Floats,
    /// rank
    pub(super) low: Floats,
    pub(super) packed: Packed,
    pub(super) packed_low: Packed,
    pub(super) bytes: PackedBytes,
    pub(super) inputs: InputBuffers,
    pub(super) angles: Angles,
}

/// All buffers of a trainer.
pub(super) struct Buffers {
    pub(super) capacity: usize,
    pub(super) work: Work,
    /// embedding: the stream before every layer, and behind the last one
    pub(super) streams: Vec<Floats>,
    /// Of the layers that keep them, the last ones; and, as the first, of whichever layer is being done.
    pub(super) saved: Vec<Saved>,
    /// embedding: the gradient with respect to the stream
    pub(super) gradient: Floats,
    /// embedding: the gradient with respect to the input of a block
    pub(super) of_input: Floats,
    /// rank: the numbers of the tokens, if the embeddings have an adapter
    pub(super) embedded: Floats,
    /// Rows of logits at a time × rank: the product of A, if the output matrix has an adapter.
    pub(super) output_low: Floats,
    /// Rows of gradients with respect to logits at a time.
    pub(super) gradient_rows: usize,
    /// Rows of logits at a time.
    pub(super) logit_rows: usize,
    /// Whether some products are computed in floats.
    in_floats: bool,
    isa: Isa,
    pub(super) nbytes: usize,
}

/// The largest widths of the layers.
struct Widths {
    embedding: usize,
    query: usize,
    attended: usize,
    key: usize,
    value: usize,
    heads: usize,
    inner: usize,
    /// 0 if there are no norms behind the blocks.
    behind: usize,
    rank: usize,
}

impl Widths {
    fn new(config: &Config, rank: usize) -> Self {
        let layers = || (0..config.layers).map(|index| config.layer(index));
        let most =
            |width: fn(&crate::config::LayerConfig) -> usize| layers().map(|layer| width(&layer)).max().unwrap_or(0);
        Self {
            embedding: config.embedding_length,
            query: most(crate::config::LayerConfig::query_width),
            attended: most(crate::config::LayerConfig::attended_width),
            key: most(crate::config::LayerConfig::key_width),
            value: most(crate::config::LayerConfig::value_width),
            heads: most(|layer| layer.heads),
            inner: most(|layer| layer.feed_forward),
            behind: if config.norms == Norms::Before { 0 } else { config.embedding_length },
            rank,
        }
    }
}

/// Visits every buffer with the number of its elements: to add them up, or to allocate them.
type Visit<'a> = &'a mut dyn FnMut(&mut Floats, Option<usize>) -> Result<(), Error>;

impl Saved {
    fn visit(
        &mut self,
        widths: &Widths,
        adapted: impl Fn(Part) -> bool,
        tokens: usize,
        visit: Visit,
    ) -> Result<(), Error> {
        let Self { query, key, value, attended, logarithms, middle, gate, up, behind: [first, second], low } = self;
        for (buffer, width) in [
            (query, widths.query),
            (key, widths.key),
            (value, widths.value),
            (attended, widths.attended),
            (logarithms, widths.heads),
            (middle, widths.embedding),
            (gate, widths.inner),
            (up, widths.inner),
            (first, widths.behind),
            (second, widths.behind),
        ] {
            visit(buffer, tokens.checked_mul(width))?;
        }
        for (buffer, part) in low.iter_mut().zip(Part::ALL) {
            let width = if adapted(part) { widths.rank } else { 0 };
            visit(buffer, tokens.checked_mul(width))?;
        }
        Ok(())
    }
}

impl Work {
    fn visit(&mut self, widths: &Widths, tokens: usize, visit: Visit) -> Result<(), Error> {
        let Self { normed, branch, query, key, wide: [first, second], of_key, of_value, low, .. } = self;
        let wide = widths.query.max(widths.attended);
        for (buffer, width) in [
            (normed, widths.embedding),
            (branch, widths.embedding),
            (query, widths.query),
            (key, widths.key),
            (first, wide),
            (second, wide),
            (of_key, widths.key),
            (of_value, widths.value),
            (low, widths.rank),
        ] {
            visit(buffer, tokens.checked_mul(width))?;
        }
        Ok(())
    }
}

impl Buffers {
    pub(super) fn new(model: &Model, adapters: &Adapters, shape: &TrainerShape) -> Result<Self, Error> {
        let (config, mut buffers) = (model.config(), Self::empty(model, shape));
        buffers.nbytes = buffers.plan(config, adapters, shape)?;
        buffers.visit(config, adapters, shape, &mut |buffer, len| {
            *buffer = Floats::zeroed(len, PURPOSE)?;
            Ok(())
        })?;
        Ok(buffers)
    }

    pub(super) fn empty(model: &Model, shape: &TrainerShape) -> Self {
        let config = model.config();
        // A row at least; otherwise rows in passes of equal size.
        let most = (LOGITS / size_of::<f32>() / config.vocab_size).max(1);
        let logit_rows = shape.tokens.div_ceil(shape.tokens.div_ceil(most));
        let isa = model.parts(None).0.isa;
        // Whole passes, so that sums over rows have the same parts however large the operands of an instruction set are.
        let passes = OF_LOGITS / PackedBytes::nbytes(isa, logit_rows, config.vocab_size).max(1);
        let gradient_rows = logit_rows * passes.clamp(1, shape.tokens.div_ceil(logit_rows));
        Self {
            capacity: shape.tokens,
            work: Work::default(),
            streams: (0..=config.layers).map(|_| Floats::default()).collect(),
            saved: (0..=shape.kept_layers.min(config.layers)).map(|_| Saved::default()).collect(),
            gradient: Floats::default(),
            of_input: Floats::default(),
            embedded: Floats::default(),
            output_low: Floats::default(),
            gradient_rows,
            logit_rows,
            in_floats: shape.exact || matrices(model).any(|matrix| !matrix.is_quantized()),
            isa,
            nbytes: 0,
        }
    }

    fn visit(&mut self, config: &Config, adapters: &Adapters, shape: &TrainerShape, visit: Visit) -> Result<(), Error> {
        let (tokens, widths) = (shape.tokens, Widths::new(config, shape.rank));
        self.work.visit(&widths, tokens, visit)?;
        let of_stream = tokens.checked_mul(widths.embedding);
        let more = [&mut self.gradient, &mut self.of_input];
        for buffer in self.streams.iter_mut().chain(more) {
            visit(buffer, of_stream)?;
        }
        let rank = |adapted: bool| if adapted { widths.rank } else { 0 };
        visit(&mut self.embedded, tokens.checked_mul(rank(adapters.of_embedding().is_some())))?;
        visit(&mut self.output_low, self.logit_rows.checked_mul(rank(adapters.of_output().is_some())))?;
        let inner = tokens.checked_mul(widths.inner);
        let logits = self.logit_rows.checked_mul(config.vocab_size);
        visit(&mut self.work.shared, inner.zip(logits).map(|(inner, logits)| inner.max(logits)))?;
        let adapted = |part: Part| (0..config.layers).any(|layer| adapters.of(layer, part).is_some());
        // If all layers keep their activations, none needs the first place.
        let first = usize::from(self.saved.len() > config.layers);
        self.saved[first..].iter_mut().try_for_each(|saved| saved.visit(&widths, adapted, tokens, visit))
    }

    /// Bytes of all buffers.
    pub(super) fn plan(&mut self, config: &Config, adapters: &Adapters, shape: &TrainerShape) -> Result<usize, Error> {
        let mut all = OF_A_THREAD;
        self.visit(config, adapters, shape, &mut |_, len| {
            let more = len.and_then(|len| len.checked_mul(size_of::<f32>()));
            all = more.and_then(|more| all.checked_add(more)).unwrap_or(usize::MAX);
            Ok(())
        })?;
        let widths = Widths::new(config, shape.rank);
        let widest = widths.inner.max(widths.query).max(widths.attended).max(widths.embedding);
        let output = if adapters.of_output().is_some() { config.vocab_size } else { 0 };
        let low = Packed::nbytes(shape.tokens, shape.rank)
            .max(Packed::nbytes(shape.rank, shape.tokens.max(widest).max(output)));
        let [mut packed, mut bytes, mut inputs] = [0; 3];
        if self.in_floats {
            packed = Packed::nbytes(shape.tokens, widest).max(Packed::nbytes(self.logit_rows, config.vocab_size));
        }
        if !shape.exact {
            bytes = PackedBytes::nbytes(self.isa, shape.tokens, widest).max(PackedBytes::nbytes(
                self.isa,
                self.gradient_rows,
                config.vocab_size,
            ));
            // A byte, and what scales and sums of blocks of 32 take.
            inputs = shape.tokens.saturating_mul(widest).saturating_mul(2);
        }
        Ok([packed, low, bytes, inputs].into_iter().fold(all, usize::saturating_add))
    }
}

/// The matrices that are multiplied with.
fn matrices(model: &Model) -> impl Iterator<Item = &Matrix> {
    let weights = model.parts(None).2;
    let matrices = weights.layers.iter().flat_map(|layer| layer.matrices());
    matrices.chain(weights.output.iter().map(|output| &*output.matrix))
}

/// Bytes of the model's weights that are in memory during training, at most: those of the file, of which there are `of_file`, and
/// the packed ones. A mapped file gives back what has been packed, and what is read of it again.
pub fn training_weights_nbytes(model: &Model, of_file: usize, exact: bool) -> usize {
    let packed = || matrices(model).filter(|matrix| !exact && matrix.is_quantized() && matrix.is_resident());
    let released: usize = packed().filter(|matrix| matrix.bytes().is_mapped()).map(Matrix::nbytes).sum();
    let stage = released.min(STAGE);
    packed().map(Matrix::resident_bytes).fold(of_file.saturating_sub(released) + stage, usize::saturating_add)
}
