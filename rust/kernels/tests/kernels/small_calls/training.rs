//! Small calls of the kernels of adapters and of training, and of the conversion of weights.

use llamacpu_kernels::activation::Activation;
use llamacpu_kernels::attention::Visible;
use llamacpu_kernels::backward::{
    AdamW, AttentionGradients, AttentionShape, Packed, PackedBytes, Right, Sum, View, activate_backward, add_bias,
    attention_backward, attention_forward, clamped_swiglu_backward, cross_entropy, cross_entropy_in_bytes,
    euclidean_norm, gated_backward, multiply, multiply_bytes, multiply_narrow, multiply_turned, soft_cap_backward,
};
use llamacpu_kernels::conversion::{Conversion, Stored};
use llamacpu_kernels::low_rank::{LowRankJob, LowRankTerm, UpMatrix, add_low_rank};
use llamacpu_kernels::norm::{Norm, NormKind};

use super::{Context, Format, Isa, Pool, Table, matrix, numbers};

/// The same numbers on every instruction set, by one thread and by two.
fn everywhere(compute: impl Fn(&Context) -> Vec<f32>) {
    let mut found: Vec<Vec<u32>> = Vec::new();
    for isa in Isa::all() {
        for threads in [1, 2] {
            let pool = Pool::new(threads).unwrap();
            found.push(compute(&Context::new(isa, &pool)).into_iter().map(f32::to_bits).collect());
        }
    }
    assert!(found.iter().all(|result| *result == found[0]));
}

#[test]
fn adapters() {
    // Not a whole number of vectors; B in F32 and in F16; as many tokens as both kinds of tiles take, and one more.
    let (rows, ranks, tokens) = (19, [3, 2], 9);
    let ups = [numbers(rows * ranks[0], 0.7), (0..rows * ranks[1]).map(|index| index as f32 / 8.0).collect()];
    let matrices = [0, 1].map(|index| UpMatrix::new(rows, ranks[index], &ups[index]).unwrap());
    let low = numbers(tokens * 3, 0.3);
    everywhere(|context| {
        let terms = matrices.iter().map(|up| LowRankTerm { up, low: &low, stride: 3 }).collect();
        let job = LowRankJob { terms, tokens, output: 0, place: (0, 0) };
        let mut output = numbers(tokens * rows, 0.9);
        add_low_rank(context, &mut [Table { numbers: &mut output[..], width: rows }], &[job]).unwrap();
        output
    });
}

#[test]
fn products_of_training() {
    let (rows, tokens) = (33, 7);
    for (format, columns) in [(Format::Q4_0, 64), (Format::F16, 21)] {
        let weights = matrix(format, rows, columns);
        let (input, gradient) = (numbers(tokens * columns, 0.7), numbers(tokens * rows, 0.3));
        let gradient_columns = numbers(rows * tokens, 0.5);
        everywhere(|context| {
            let mut packed = Packed::default();
            packed.set(context, View::new(&input, tokens, columns).unwrap()).unwrap();
            let mut forward = vec![f32::NAN; tokens * rows];
            multiply(context, &packed, Right::Rows(&weights), Sum::SET, &mut forward).unwrap();
            let gradient = View::new(&gradient, tokens, rows).unwrap();
            packed.set(context, gradient).unwrap();
            let mut back = vec![0.5; tokens * columns];
            multiply(context, &packed, Right::Columns(&weights), Sum::ADD, &mut back).unwrap();
            packed.set(context, gradient.transposed()).unwrap();
            let mut of_weights = vec![f32::NAN; rows * columns];
            let input = Right::Numbers(View::new(&input, tokens, columns).unwrap());
            multiply(context, &packed, input, Sum { scale: 2.0, add: false }, &mut of_weights).unwrap();
            multiply_turned(context, &packed, input, Sum::ADD, &mut of_weights).unwrap();
            packed.set_columns(context, gradient.transposed()).unwrap();
            let mut squares = vec![f32::NAN; rows * rows];
            let left = View::new(&gradient_columns, rows, tokens).unwrap();
            multiply_narrow(context, left, &packed, Sum::SET, &mut squares).unwrap();
            if format == Format::Q4_0 {
                let mut bytes = PackedBytes::default();
                bytes.set(context, gradient).unwrap();
                multiply_bytes(context, &bytes, &weights, Sum::ADD, &mut back).unwrap();
                let (logits, targets) = (numbers(tokens * rows, 0.3), [0, 3, 5, 32, 7, 9, 11]);
                let mut losses = [0.0; 7];
                cross_entropy_in_bytes(context, &logits, &targets, &mut losses, (&mut bytes, 0)).unwrap();
                multiply_bytes(context, &bytes, &weights, Sum::ADD, &mut back).unwrap();
            }
            [forward, back, of_weights, squares].concat()
        });
    }
}

#[test]
fn attention_of_training() {
    let shape = AttentionShape {
        segments: &[0, 3, 7],
        heads: 2,
        kv_heads: 1,
        key_size: 18,
        value_size: 17,
        scale: 0.3,
        soft_cap: Some(2.0),
        sinks: Some(&[0.25, -0.5]),
        visible: Visible::Causal,
    };
    let (query, key, value) = (numbers(7 * 36, 0.7), numbers(7 * 18, 0.3), numbers(7 * 17, 0.9));
    let gradient = numbers(7 * 34, 0.5);
    everywhere(|context| {
        let (mut output, mut logarithms) = (vec![f32::NAN; 7 * 34], vec![f32::NAN; 14]);
        let inputs = (&query[..], &key[..], &value[..]);
        attention_forward(context, &shape, inputs, &mut output, &mut logarithms).unwrap();
        let mut found = [vec![f32::NAN; 7 * 36], vec![f32::NAN; 7 * 18], vec![f32::NAN; 7 * 17]];
        let [query, key, value] = &mut found;
        let targets = AttentionGradients { query, key, value };
        attention_backward(context, &shape, inputs, (&output, &logarithms, &gradient), targets).unwrap();
        found.concat()
    });
}

#[test]
fn derivatives_of_rows_and_the_optimizer() {
    let (x, y) = (numbers(45, 0.7), numbers(45, 0.3));
    everywhere(|context| {
        let (mut gate, mut up) = (x.clone(), y.clone());
        let mut inner = y.clone();
        gated_backward(context, Activation::Silu, &mut gate, &mut up, &mut inner).unwrap();
        activate_backward(context, Activation::Gelu, &mut gate, &mut inner).unwrap();
        clamped_swiglu_backward(context, &mut gate, &mut up, &mut inner, (1.702, 7.0)).unwrap();
        soft_cap_backward(context, &x, &mut up, 3.0).unwrap();
        add_bias(context, &mut up, &y[..15]).unwrap();
        for kind in [NormKind::RootMeanSquare, NormKind::MeanAndVariance] {
            let norm = Norm { kind, size: 15, weight: Some(&y[..15]), bias: None, epsilon: 1e-3 };
            norm.backward(context, &x, &mut up).unwrap();
        }
        let mut logits = x.clone();
        let mut losses = [0.0; 3];
        cross_entropy(context, &mut logits, &[0, 7, 14], &mut losses, true).unwrap();
        let adam =
            AdamW { gradient_scale: 0.5, betas: (0.9, 0.99), rate: 0.1, correction: 0.3, epsilon: 1e-8, decay: 0.98 };
        let (mut first, mut second) = (x.clone(), vec![0.25; 45]);
        adam.update(context, &mut gate, &mut logits.clone(), (&mut first, &mut second)).unwrap();
        let ends = [losses.iter().sum::<f64>() as f32, euclidean_norm(context, &x).unwrap() as f32];
        [gate, up, inner, logits, first, second, ends.to_vec()].concat()
    });
}

#[test]
fn conversions_of_weights() {
    let formats = Format::all().iter().filter(|format| format.info().block_elements < 256);
    for to in formats.copied() {
        // More blocks than fit into the lanes, in two rows.
        let columns = 9 * to.info().block_elements.max(32);
        let input: Vec<u8> = numbers(2 * columns, 0.7).into_iter().flat_map(f32::to_le_bytes).collect();
        everywhere(|context| {
            let mut output = vec![0; 2 * to.row_bytes(columns).unwrap()];
            let conversion = Conversion { from: Format::F32, to, columns, importance: None };
            conversion.run(context, Stored::Bytes(&input), &mut output).unwrap();
            output.into_iter().map(f32::from).collect()
        });
    }
}
