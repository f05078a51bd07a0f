//! Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1) in its absorbed form: for each token, only
//! one latent vector and one rotated key are stored for all heads. Queries are projected into latent space, attention
//! runs there as if there were a single key and value head whose value is the latent part of its key, and one matrix
//! per head projects the result back.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{Addition, GroupedJob, Table, grouped_matmul_with};

use crate::adapters::changes;
use crate::attention::{Adjustments, AttentionBuffers, attend, keep_rows, warm, write_pages};
use crate::error::{Error, sized};
use crate::feed_forward::project;
use crate::indexer::{self, IndexerBuffers};
use crate::kv::Kept;
use crate::norms::{normalize, normalize_in_place};
use crate::pass::{Pass, Segment};
use crate::rows::for_rows;
use crate::scratch::Scratch;
use crate::weights::{HeadMatrices, LatentAttention, LatentQuery};

/// Latent attention buffers; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct LatentBuffers {
    /// latent size of queries
    between: Vec<f32>,
    /// the same, normalized
    normed: Vec<f32>,
    /// latent size of keys and values
    latent: Vec<f32>,
    /// heads × value size
    values: Vec<f32>,
    /// What the last indexer chose.
    indexer: IndexerBuffers,
}

/// Same as [`crate::attention::run`], for latent attention.
pub(crate) fn run(
    pass: &Pass,
    weights: &LatentAttention,
    input: &[f32],
    segments: &mut [Segment],
    ((buffers, scratch), own): ((&mut AttentionBuffers, &mut Scratch), &mut LatentBuffers),
    output: &mut [f32],
) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = pass;
    let rows = pass.places.len();
    let (latent_size, turned) = (sizes.latent_size, config.rope.size);
    let still = sizes.key_size - turned;
    let (query_row, key_row) = (sizes.query_width(), latent_size + turned);
    let absorbed_row = sizes.heads * key_row;
    let AttentionBuffers { query, key, value, attended, .. } = buffers;

    // value: the queries before they are projected into latent space.
    let plain = sized(value, rows.checked_mul(query_row), "queries")?;
    match &weights.query {
        LatentQuery::Direct(query) => project(context, input, rows, scratch, &mut [(query, plain)])?,
        LatentQuery::Through { down, norm, up } => {
            let size = rows.checked_mul(config.query_latent_size);
            let between = sized(&mut own.between, size, "queries")?;
            let normed = sized(&mut own.normed, size, "queries")?;
            project(context, input, rows, scratch, &mut [(&**down, between)])?;
            normalize(context, config, norm, between, normed)?;
            project(context, normed, rows, scratch, &mut [(&**up, plain)])?;
        }
    }
    let plain = &mut value[..rows * query_row];
    pass.rotations.turn(context, pass.angles, sizes.rotation, (plain, query_row), (sizes.key_size, still))?;
    warm(pass, plain, query_row)?;

    let key = sized(key, rows.checked_mul(key_row), "keys")?;
    project(context, input, rows, scratch, &mut [(&weights.latent, key)])?;
    let latent = sized(&mut own.latent, rows.checked_mul(latent_size), "keys")?;
    copy_columns(key, (key_row, 0), latent, (latent_size, 0), latent_size);
    normalize_in_place(context, config, Some(&weights.latent_norm), latent)?;
    copy_columns(latent, (latent_size, 0), key, (key_row, 0), latent_size);
    pass.rotations.turn(context, pass.angles, sizes.rotation, (key, key_row), (key_row, latent_size))?;
    // The latent part doubles as the value: nothing else is stored.
    write_pages(pass, Kept::Layer(pass.layer), segments, (key, key_row), (&[], 0))?;
    let states = (input, &own.normed[..]);
    indexer::run(pass, weights.indexer.as_ref(), states, segments, (&mut own.indexer, scratch))?;
    if pass.kept == 0 {
        return Ok(());
    }

    keep_rows(pass, segments, plain, query_row);
    let rows = pass.kept;
    let absorbed = sized(query, rows.checked_mul(absorbed_row), "queries")?;
    let from = Table { numbers: &*plain, width: query_row };
    let to = Table { numbers: &mut *absorbed, width: absorbed_row };
    each_head(context, &weights.key, rows, (from, sizes.key_size), (to, key_row), scratch)?;
    let plain = &*plain;
    for_rows(context, absorbed, absorbed_row, &|row, absorbed| {
        let plain = &plain[row * query_row..(row + 1) * query_row];
        copy_columns(plain, (sizes.key_size, still), absorbed, (key_row, latent_size), turned);
        Ok(())
    })?;
    let attended_row = sizes.heads * latent_size;
    let attended = sized(attended, rows.checked_mul(attended_row), "attention")?;
    attend(pass, segments, Adjustments::of(own.indexer.selection()), absorbed, attended)?;
    let values_row = sizes.attended_width();
    let values = sized(&mut own.values, rows.checked_mul(values_row), "attention")?;
    let from = Table { numbers: &*attended, width: attended_row };
    let to = Table { numbers: &mut *values, width: values_row };
    each_head(context, &weights.value, rows, (from, latent_size), (to, sizes.value_size), scratch)?;
    project(context, values, rows, scratch, &mut [(&weights.output, output)])
}

/// Multiplies each head's part of all rows by that head's matrix, in one parallel region. `from` and `to` are the
/// strides between the heads' parts in a row; each matrix uses the beginning of its head's part.
pub(crate) fn each_head(
    context: &Context,
    weights: &HeadMatrices,
    rows: usize,
    (input, from): (Table<&[f32]>, usize),
    (output, to): (Table<&mut [f32]>, usize),
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let heads = weights.matrices.iter().enumerate();
    let jobs = heads.map(|(head, weights)| GroupedJob {
        weights,
        tokens: rows,
        input: (0, head * from),
        output: (0, head * to),
    });
    let Scratch { input: buffers, adapted, .. } = scratch;
    let slots = weights.slots.iter();
    let additions = slots.map(|&slot| Addition { bias: None, changes: changes(adapted, rows, slot) });
    let additions: Vec<_> = additions.collect();
    Ok(grouped_matmul_with(context, input, output, buffers, &jobs.collect::<Vec<_>>(), &additions)?)
}

/// Copies `count` columns of every row; each side is given by its row length and first column.
fn copy_columns(
    source: &[f32],
    (source_row, source_start): (usize, usize),
    target: &mut [f32],
    (target_row, target_start): (usize, usize),
    count: usize,
) {
    for (source, target) in source.chunks_exact(source_row).zip(target.chunks_exact_mut(target_row)) {
        target[target_start..target_start + count].copy_from_slice(&source[source_start..source_start + count]);
    }
}
