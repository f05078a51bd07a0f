//! The sizes and switches of a vision encoder.

use llamacpu_kernels::rope::RopeStyle;

use super::choices::{ClassToken, MergeOrder, PositionTable, VisionActivation, VisionRotation};
use crate::config::NormKind;
use crate::settings::settings;

/// Red, green and blue.
pub(super) const CHANNELS: usize = 3;

settings! {
    /// Everything that encoding a picture needs to know apart from the weights.
    pub struct VisionConfig {
        /// Name of the kind of encoder, for messages only.
        kind: String,
        /// Side in pixels of a tile; 0 if a tile may have any number of patches.
        image_size: usize,
        /// Side of a patch in pixels.
        patch_size: usize,
        /// Width of the states.
        embedding_length: usize,
        /// Number of layers.
        layers: usize,
        /// Heads of attention.
        heads: usize,
        /// Width of the feed-forward networks.
        feed_forward: usize,
        /// Whether feed-forward networks have a gate, `PREFIX.ffn_gate`.
        gated: bool = false,
        /// Elements of a row of the result: the width of the language model.
        output_length: usize,
        /// How vectors are normalized.
        norm: NormKind = NormKind::Layer,
        /// Added to the variance, or to the mean square.
        norm_epsilon: f32,
        /// The function inside the feed-forward networks.
        activation: VisionActivation = VisionActivation::Gelu,
        /// The learned row beside the patches, `v.class_embd`.
        class_token: ClassToken = ClassToken::None,
        /// The learned positions, `v.position_embd.weight`.
        positions: PositionTable = PositionTable::None,
        /// Whether the states are normalized before the first layer, by `v.pre_ln`.
        first_norm: bool = false,
        /// Whether they are normalized after the last layer.
        last_norm: bool = true,
        /// Name in the file of that norm.
        last_norm_name: String = "v.post_ln".to_owned(),
        /// How queries and keys are rotated.
        rotation: VisionRotation = VisionRotation::None,
        /// Which elements of a head form a pair.
        rope_style: RopeStyle = RopeStyle::Interleaved,
        /// Base of the rotation: pair i of a coordinate turns by base^(-4 i / head size) a patch.
        rope_base: f64 = 10_000.0,
        /// Number of the first row and of the first column; the class token is at 0.
        rope_first: usize = 0,
        /// Whether the pairs of the second coordinate turn by base^(-(4 i + 2) / head size), between those of the first.
        rope_between: bool = false,
        /// Side in patches of the squares that patches attend within, per layer; 0 or empty: to all patches.
        window: Vec<usize> = Vec::new(),

        /// Whether what attention and networks add is multiplied by vectors, `PREFIX.ls1` and `PREFIX.ls2`.
        layer_scale: bool = false,
        /// Name in the file of the norm before attention.
        attention_norm: String = "ln1".to_owned(),
        /// Name of the matrix that the result of attention goes through.
        attention_output: String = "attn_out".to_owned(),
        /// Name of the norm before the feed-forward network.
        feed_forward_norm: String = "ln2".to_owned(),
        /// Name of the first matrix of the feed-forward network.
        feed_forward_up: String = "ffn_up".to_owned(),
        /// Name of its last matrix.
        feed_forward_down: String = "ffn_down".to_owned(),

        /// Number of tiles that attend to each other, with places for all of them (Llama 3.2 Vision): embeddings of the
        /// place of a tile are added before the class token, to the positions, and before the global layers. 0: tiles
        /// are encoded separately.
        joint_tiles: usize = 0,
        /// Rows of their tables of arrangements.
        arrangements: usize = 0,
        /// The rows of a joint tile are filled up with zeros to a multiple of this.
        row_multiple: usize = 1,
        /// Layers that follow the last norm, `v.global.blk.N`, with a factor for what attention and network add.
        global_layers: usize = 0,
        /// Layers whose inputs follow the final states in the input of the projector, element by element; their number
        /// stands for the output of the last one.
        kept_inputs: Vec<usize> = Vec::new(),

        /// Side in patches of the squares that become one row.
        merge: usize = 1,
        /// How they do.
        merge_order: MergeOrder = MergeOrder::Patches,
        /// Name in the file of a matrix that the merged rows go through first, with no function after it; empty for
        /// none.
        merger: String = String::new(),
        /// Learned queries, `resampler.query`, of which each becomes a row: attention of them to all patches (MiniCPM-V)
        /// stands before the projector, `resampler.proj` alone. 0 for none.
        queries: usize = 0,
        /// Name in the file of a norm of the merged rows; empty for none.
        projector_norm: String = String::new(),
        /// What that norm divides by.
        projector_norm_kind: NormKind = NormKind::Rms,
        /// Added in it to the mean square, or to the variance.
        projector_norm_epsilon: f32 = 1e-6,
        /// Names of the matrices that the rows go through, in order, with a function between two of them.
        projector: Vec<String> = Vec::new(),
        /// That function.
        projector_activation: VisionActivation = VisionActivation::Gelu,
        /// Whether the last matrix is stored transposed: inputs × outputs.
        projector_transposed: bool = false,
        /// Whether the row of the class token is a row of the result.
        class_output: bool = false,

        /// Layers behind which the merged patches also go through a norm and two matrices of their own, `v.deepstack.N`
        /// (L. Meng et al., "DeepStack", arXiv:2406.04334): what they give follows the elements of the rows, layer by layer.
        deepstack: Vec<usize> = Vec::new(),

        /// Beginnings of the names of the encoder's tensors; they must be used.
        prefixes: Vec<String>,
        /// Beginnings of the names of those that need not be used.
        ignored_tensors: Vec<String> = Vec::new(),
    }
}

impl VisionConfig {
    /// Elements of a row of the result, with those of intermediate layers.
    pub fn row_length(&self) -> usize {
        self.output_length * (1 + self.deepstack.len())
    }

    /// Elements of a head.
    pub(super) fn head_size(&self) -> usize {
        self.embedding_length / self.heads.max(1)
    }

    /// Rows of a tile of that many patches.
    pub(super) fn rows(&self, patches: usize) -> usize {
        patches + usize::from(self.class_token != ClassToken::None)
    }

    /// Number of patches of a tile; `None` if that depends on the tile.
    pub(super) fn patches(&self) -> Option<usize> {
        let side = self.image_size / self.patch_size.max(1);
        (side > 0).then_some(side * side)
    }

    /// Elements of a row of merged patches.
    pub(super) fn merged_length(&self) -> usize {
        let own = self.embedding_length * (1 + self.kept_inputs.len());
        if self.merge_order == MergeOrder::Average { own } else { own * self.merge * self.merge }
    }
}
