//! From tensor names to the weights of a picture encoder: every name, shape, size and format is checked here, once.

use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::memory;

use super::choices::{ClassToken, PositionTable};
use super::config::{CHANNELS, VisionConfig};
use super::norms::{encoder_norm, norm_of};
use super::resampler::Resampler;
use crate::Error;
use crate::config::NormKind;
use crate::error::zeroed;
use crate::tensors::Tensors;
use crate::weights::{Linear, Norm};

/// A layer: attention and a feed-forward network, each after a norm.
pub(super) struct VisionLayer {
    pub(super) attention_norm: Norm,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) feed_forward_norm: Norm,
    pub(super) gate: Option<Linear>,
    pub(super) up: Linear,
    pub(super) down: Linear,
    /// Factors of what attention and the network add.
    pub(super) factors: Option<(f32, f32)>,
    /// The same, one for each element of a row.
    pub(super) scales: Option<(Vec<f32>, Vec<f32>)>,
}

/// A table of which one row is used for a picture, with the factor of its elements.
pub(super) struct GatedTable {
    pub(super) rows: Matrix,
    pub(super) gate: f32,
}

/// The embeddings of the places of joint tiles.
pub(super) struct TileTables {
    /// tiles × width, added to patches.
    pub(super) before: GatedTable,
    /// tiles × rows of a tile × width, added to all rows with the positions.
    pub(super) positions: GatedTable,
    /// tiles × width, added to all rows before the global layers.
    pub(super) after: GatedTable,
    /// Factor of the positions within a tile.
    pub(super) position_gate: f32,
}

/// What makes rows of the states behind a layer in the middle.
pub(super) struct Deepstack {
    pub(super) norm: Norm,
    pub(super) first: Linear,
    pub(super) second: Linear,
}

/// All weights of an encoder.
pub(super) struct VisionWeights {
    /// A patch, channel by channel and row by row, to a state.
    pub(super) patch: Linear,
    pub(super) class: Option<Vec<f32>>,
    /// rows × width; for tables that are resampled, a square of rows.
    pub(super) positions: Option<Vec<f32>>,
    pub(super) tiles: Option<TileTables>,
    pub(super) first_norm: Option<Norm>,
    pub(super) layers: Vec<VisionLayer>,
    pub(super) last_norm: Option<Norm>,
    pub(super) global_layers: Vec<VisionLayer>,
    pub(super) merger: Option<Linear>,
    pub(super) resampler: Option<Resampler>,
    pub(super) projector_norm: Option<Norm>,
    pub(super) projector: Vec<Linear>,
    /// In the order of the layers that have one.
    pub(super) deepstack: Vec<Deepstack>,
}

impl VisionWeights {
    pub(super) fn load(config: &VisionConfig, tensors: &mut Tensors) -> Result<Self, Error> {
        let width = config.embedding_length;
        let class = (config.class_token != ClassToken::None).then(|| tensors.vector("v.class_embd", width));
        let layer = |tensors: &mut Tensors, prefix: &str, count: usize, factors: bool| {
            let layers =
                (0..count).map(|index| VisionLayer::load(config, &format!("{prefix}.{index}"), factors, tensors));
            layers.collect::<Result<Vec<_>, Error>>()
        };
        let norm = |tensors: &mut Tensors, wanted: bool, name: &str| {
            wanted.then(|| encoder_norm(config, tensors, name, width)).transpose()
        };
        let projector_norm = (!config.projector_norm.is_empty()).then(|| {
            let (kind, len, name) = (config.projector_norm_kind, config.merged_length(), &config.projector_norm);
            Ok::<_, Error>(Norm { epsilon: config.projector_norm_epsilon, ..norm_of(kind, tensors, name, len)? })
        });
        let merger = match config.merger.as_str() {
            "" => None,
            name => Some(tensors.linear(name, config.merged_length(), tensors.shape(&format!("{name}.weight"))?[1])?),
        };
        let resampled = (config.queries > 0).then_some(config.output_length);
        let columns = resampled.or(merger.as_ref().map(Linear::rows)).unwrap_or(config.merged_length());
        Ok(Self {
            patch: patch_of(config, tensors)?,
            class: class.transpose()?,
            positions: positions_of(config, tensors)?,
            tiles: (config.joint_tiles > 0).then(|| TileTables::load(config, tensors)).transpose()?,
            first_norm: norm(tensors, config.first_norm, "v.pre_ln")?,
            layers: layer(tensors, "v.blk", config.layers, false)?,
            last_norm: norm(tensors, config.last_norm, &config.last_norm_name)?,
            global_layers: layer(tensors, "v.global.blk", config.global_layers, true)?,
            resampler: (config.queries > 0).then(|| Resampler::load(config, tensors)).transpose()?,
            projector_norm: projector_norm.transpose()?,
            projector: projector_of(config, columns, tensors)?,
            deepstack: config
                .deepstack
                .iter()
                .map(|layer| Deepstack::load(config, &format!("v.deepstack.{layer}"), tensors))
                .collect::<Result<_, _>>()?,
            merger,
        })
    }

    /// Whether no matrix that makes queries, keys and values is F32, so that half precision is enough for the layers: then keys
    /// and values are stored as 16-bit integers, and F16 and BF16 weights are multiplied as such.
    pub(super) fn halves(&self) -> bool {
        let mut layers = self.layers.iter().chain(&self.global_layers);
        layers.all(|layer| {
            [&layer.query, &layer.key, &layer.value].iter().all(|part| part.matrix.format() != Format::F32)
        })
    }

    /// Size in bytes of all matrices.
    pub(super) fn nbytes(&self) -> usize {
        let layers = self.layers.iter().chain(&self.global_layers).flat_map(|layer| {
            let own = [&layer.query, &layer.key, &layer.value, &layer.output, &layer.up, &layer.down];
            own.into_iter().chain(&layer.gate)
        });
        let deep = self.deepstack.iter().flat_map(|own| [&own.first, &own.second]);
        let behind = deep.chain(&self.merger).chain(self.resampler.iter().flat_map(Resampler::linears));
        layers.chain([&self.patch]).chain(behind).chain(&self.projector).map(|linear| linear.matrix.nbytes()).sum()
    }
}

impl Deepstack {
    fn load(config: &VisionConfig, prefix: &str, tensors: &mut Tensors) -> Result<Self, Error> {
        let (merged, first) = (config.merged_length(), format!("{prefix}.fc1"));
        let inner = tensors.shape(&format!("{first}.weight"))?[1];
        let norm = norm_of(NormKind::Layer, tensors, &format!("{prefix}.norm"), merged)?;
        Ok(Self {
            norm: Norm { epsilon: config.norm_epsilon, ..norm },
            first: tensors.linear(&first, merged, inner)?,
            second: tensors.linear(&format!("{prefix}.fc2"), inner, config.output_length)?,
        })
    }
}

impl VisionLayer {
    fn load(config: &VisionConfig, prefix: &str, factors: bool, tensors: &mut Tensors) -> Result<Self, Error> {
        let name = |part: &str| format!("{prefix}.{part}");
        let (width, inner) = (config.embedding_length, config.feed_forward);
        let [query, key, value] = if tensors.has(&name("attn_qkv.weight")) {
            let parts: Result<[Linear; 3], _> = tensors.linears(&name("attn_qkv"), width, &[width; 3])?.try_into();
            parts.map_err(|_| Error::Model("a fused attention matrix must have three parts".to_owned()))?
        } else {
            [
                tensors.linear(&name("attn_q"), width, width)?,
                tensors.linear(&name("attn_k"), width, width)?,
                tensors.linear(&name("attn_v"), width, width)?,
            ]
        };
        let factors = factors.then(|| {
            let mut one = |part: &str| Ok::<_, Error>(tensors.vector(&name(part), 1)?[0]);
            Ok::<_, Error>((one("attn_gate")?, one("ffn_gate")?))
        });
        let scales = config.layer_scale.then(|| {
            let mut one = |part: &str| tensors.vector(&format!("{prefix}.{part}.weight"), width);
            Ok::<_, Error>((one("ls1")?, one("ls2")?))
        });
        Ok(Self {
            factors: factors.transpose()?,
            scales: scales.transpose()?,
            attention_norm: encoder_norm(config, tensors, &name(&config.attention_norm), width)?,
            query,
            key,
            value,
            output: tensors.linear(&name(&config.attention_output), width, width)?,
            feed_forward_norm: encoder_norm(config, tensors, &name(&config.feed_forward_norm), width)?,
            gate: config.gated.then(|| tensors.linear(&name("ffn_gate"), width, inner)).transpose()?,
            up: tensors.linear(&name(&config.feed_forward_up), width, inner)?,
            down: tensors.linear(&name(&config.feed_forward_down), inner, width)?,
        })
    }
}

impl TileTables {
    fn load(config: &VisionConfig, tensors: &mut Tensors) -> Result<Self, Error> {
        let (tiles, width) = (config.joint_tiles, config.embedding_length);
        let rows = config.rows(config.patches().unwrap_or(0));
        let mut table = |name: &str, rows: usize| {
            let columns = tiles.saturating_mul(rows).saturating_mul(width);
            let matrix = tensors.matrix(&format!("v.{name}.weight"), columns, config.arrangements)?;
            Ok::<_, Error>(GatedTable { rows: matrix, gate: tensors.vector(&format!("v.{name}.gate"), 1)?[0] })
        };
        Ok(Self {
            before: table("pre_tile_position_embd", 1)?,
            positions: table("tile_position_embd", rows)?,
            after: table("post_tile_position_embd", 1)?,
            position_gate: tensors.vector("v.position_embd.gate", 1)?[0],
        })
    }
}

/// The matrix of patches. A second one is for the second of two frames, which in a still picture is equal to the first, so
/// that both are added up.
fn patch_of(config: &VisionConfig, tensors: &mut Tensors) -> Result<Linear, Error> {
    let (side, width) = (config.patch_size, config.embedding_length);
    let mut matrix = tensors.kernel("v.patch_embd.weight", [side, side, CHANNELS], width)?;
    if tensors.has("v.patch_embd.weight.1") {
        matrix = sum(&matrix, &tensors.kernel("v.patch_embd.weight.1", [side, side, CHANNELS], width)?)?;
    }
    Ok(Linear { matrix, bias: tensors.optional_vector("v.patch_embd.bias", width)?, slot: usize::MAX })
}

/// The sum of two matrices, in 32-bit floats.
fn sum(first: &Matrix, second: &Matrix) -> Result<Matrix, Error> {
    let (rows, columns) = (first.rows(), first.columns());
    let mut bytes = memory::room(first.rows().saturating_mul(columns).saturating_mul(4), "patches")?;
    let (mut left, mut right) = (zeroed(Some(columns), "patches")?, zeroed(Some(columns), "patches")?);
    for row in 0..rows {
        first.row(row, &mut left)?;
        second.row(row, &mut right)?;
        bytes.extend(left.iter().zip(&right).flat_map(|(left, right)| (left + right).to_le_bytes()));
    }
    Ok(Matrix::new(Format::F32, rows, columns, Bytes::owned(bytes))?)
}

fn positions_of(config: &VisionConfig, tensors: &mut Tensors) -> Result<Option<Vec<f32>>, Error> {
    let name = "v.position_embd.weight";
    let rows = match config.positions {
        PositionTable::None => return Ok(None),
        PositionTable::Fixed => config.rows(config.patches().unwrap_or(0)),
        PositionTable::Transposed | PositionTable::Nearest | PositionTable::Corners => {
            let [_, rows, _] = tensors.shape(name)?;
            if rows.isqrt().pow(2) != rows {
                return Err(Error::Model(format!("the tensor {name:?} has {rows} rows; expected those of a square")));
            }
            rows
        }
    };
    tensors.table(name, config.embedding_length, rows).map(Some)
}

/// The matrices that merged or resampled rows of `columns` elements go through.
fn projector_of(config: &VisionConfig, mut columns: usize, tensors: &mut Tensors) -> Result<Vec<Linear>, Error> {
    let mut linears = Vec::with_capacity(config.projector.len());
    for (index, name) in config.projector.iter().enumerate() {
        let last = index + 1 == config.projector.len();
        let tensor = format!("{name}.weight");
        if last && config.projector_transposed {
            let matrix = tensors.matrix(&tensor, config.output_length, columns)?;
            linears.push(Linear { matrix: crate::weights::transposed(&matrix)?, bias: None, slot: usize::MAX });
            continue;
        }
        let rows = if last { config.output_length } else { tensors.shape(&tensor)?[1] };
        linears.push(tensors.linear(name, columns, rows)?);
        columns = rows;
    }
    Ok(linears)
}
