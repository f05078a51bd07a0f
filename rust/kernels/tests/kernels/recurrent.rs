use llamacpu_kernels::Error;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::recurrent::*;
use llamacpu_kernels::threads::Pool;

/// Numbers without a pattern.
fn numbers(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|index| ((index + 1) as f32 * step).sin()).collect()
}

/// A network with inputs for some tokens.
struct Case {
    net: DeltaNet,
    convolution: Vec<f32>,
    decay: Vec<f32>,
    time: Vec<f32>,
    norm: Vec<f32>,
    channels: Vec<f32>,
    write: Vec<f32>,
    passed: Vec<f32>,
    gate: Vec<f32>,
}

impl Case {
    fn new(net: DeltaNet, tokens: usize) -> Self {
        Self {
            net,
            convolution: numbers(net.taps * net.channels(), 0.7),
            decay: numbers(net.value_heads, 1.3).iter().map(|x| -x.abs()).collect(),
            time: numbers(net.value_heads, 2.1),
            norm: numbers(net.value_size, 0.4),
            channels: numbers(tokens * net.channels(), 1.7),
            write: numbers(tokens * net.value_heads, 0.9),
            passed: numbers(tokens * net.value_heads, 0.35),
            gate: numbers(tokens * net.value_width(), 0.63),
        }
    }

    fn weights(&self) -> DeltaWeights<'_> {
        let Self { convolution, decay, time, norm, .. } = self;
        DeltaWeights { convolution, decay, time, norm, epsilon: 1e-6 }
    }

    /// The outputs and the last state, with the tokens divided into calls of these sizes.
    fn run(&self, isa: Isa, threads: usize, calls: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let net = &self.net;
        let pool = Pool::new(threads).unwrap();
        let context = Context::new(isa, &pool);
        let mut outputs = Vec::new();
        let mut before: Option<Vec<f32>> = None;
        let mut first = 0;
        for &tokens in calls {
            let end = first + tokens;
            let mut state = vec![f32::NAN; net.state_numbers().unwrap()];
            let mut output = vec![f32::NAN; tokens * net.value_width()];
            let part = |values: &'_ [f32], width: usize| first * width..(end * width).min(values.len());
            let mut items = [DeltaItem {
                channels: &self.channels[part(&self.channels, net.channels())],
                write: &self.write[part(&self.write, net.value_heads)],
                time: &self.passed[part(&self.passed, net.value_heads)],
                gate: Some(&self.gate[part(&self.gate, net.value_width())]),
                before: before.as_deref(),
                state: &mut state,
                output: &mut output,
            }];
            let mut scratch = vec![f32::NAN; tokens * net.scratch()];
            delta_net(&context, net, &self.weights(), &mut items, &mut scratch).unwrap();
            outputs.extend(output);
            before = Some(state);
            first = end;
        }
        (outputs, before.unwrap())
    }

    /// The outputs by the formulas, in f64.
    fn expected(&self) -> Vec<f64> {
        let net = &self.net;
        let (width, heads) = (net.channels(), net.value_heads);
        let tokens = self.channels.len() / width;
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let mut matrices = vec![vec![vec![0.0f64; net.value_size]; net.key_size]; heads];
        let mut outputs = Vec::new();
        for token in 0..tokens {
            let mixed: Vec<f64> = (0..width)
                .map(|channel| {
                    let terms = (0..net.taps).filter_map(|tap| {
                        let row = (token + tap).checked_sub(net.taps - 1)?;
                        let x = f64::from(self.channels[row * width + channel]);
                        Some(x * f64::from(self.convolution[tap * width + channel]))
                    });
                    silu(terms.sum())
                })
                .collect();
            let unit = |start: usize, scale: f64| -> Vec<f64> {
                let x = &mixed[start..start + net.key_size];
                let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                x.iter().map(|x| x / length * scale).collect()
            };
            for (head, matrix) in matrices.iter_mut().enumerate() {
                let key_head = if net.grouped { head * net.key_heads / heads } else { head % net.key_heads };
                let query = unit(key_head * net.key_size, 1.0 / (net.key_size as f64).sqrt());
                let key = unit((net.key_heads + key_head) * net.key_size, 1.0);
                let value = &mixed[2 * net.key_heads * net.key_size + head * net.value_size..][..net.value_size];
                let at = token * heads + head;
                let passed = (f64::from(self.passed[at] + self.time[head]).exp() + 1.0).ln();
                let decay = (f64::from(self.decay[head]) * passed).exp();
                let write = 1.0 / (1.0 + (-f64::from(self.write[at])).exp());
                matrix.iter_mut().flatten().for_each(|x| *x *= decay);
                let read = |matrix: &[Vec<f64>], by: &[f64], column: usize| -> f64 {
                    matrix.iter().zip(by).map(|(row, x)| row[column] * x).sum()
                };
                let lacks: Vec<f64> =
                    (0..net.value_size).map(|column| write * (value[column] - read(matrix, &key, column))).collect();
                for (row, key) in matrix.iter_mut().zip(&key) {
                    row.iter_mut().zip(&lacks).for_each(|(x, lack)| *x += key * lack);
                }
                let found: Vec<f64> = (0..net.value_size).map(|column| read(matrix, &query, column)).collect();
                let square = found.iter().map(|x| x * x).sum::<f64>() / net.value_size as f64;
                for (column, x) in found.iter().enumerate() {
                    let gate = f64::from(self.gate[at * net.value_size + column]);
                    outputs.push(x / (square + 1e-6).sqrt() * f64::from(self.norm[column]) * silu(gate));
                }
            }
        }
        outputs
    }
}

fn nets() -> Vec<DeltaNet> {
    let net = |key_heads, value_heads, key_size, value_size, taps, grouped| DeltaNet {
        key_heads,
        value_heads,
        key_size,
        value_size,
        taps,
        grouped,
    };
    vec![
        net(2, 4, 16, 16, 4, true),
        net(2, 6, 32, 32, 4, false),
        // Nothing is a whole number of vectors.
        net(1, 3, 7, 19, 1, true),
        net(3, 3, 10, 5, 2, false),
    ]
}

#[test]
fn outputs_are_those_of_the_formulas() {
    for net in nets() {
        let case = Case::new(net, 40);
        let (found, _) = case.run(Isa::SCALAR, 1, &[40]);
        let expected = case.expected();
        let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-5 * largest, "{net:?}: {found} {expected}");
        }
    }
}

#[test]
fn bits_depend_neither_on_calls_nor_on_threads_nor_on_instruction_sets() {
    for net in nets() {
        let case = Case::new(net, 40);
        let (outputs, state) = case.run(Isa::SCALAR, 1, &[40]);
        for isa in Isa::all() {
            for (threads, calls) in [(1, &[40][..]), (3, &[1, 2, 37]), (2, &[33, 1, 1, 5])] {
                let found = case.run(isa, threads, calls);
                assert_eq!(found.0, outputs, "{net:?} {isa} {threads} {calls:?}");
                assert_eq!(found.1, state, "{net:?} {isa} {threads} {calls:?}");
            }
        }
    }
}

#[test]
fn sequences_of_a_call_do_not_see_each_other() {
    let net = nets()[0];
    let (first, second) = (Case::new(net, 3), Case::new(net, 11));
    let pool = Pool::new(2).unwrap();
    let mut states = vec![vec![0.0; net.state_numbers().unwrap()]; 2];
    let mut outputs = [vec![0.0; 3 * net.value_width()], vec![0.0; 11 * net.value_width()]];
    let cases = [&first, &second].into_iter().zip(&mut states).zip(&mut outputs);
    let mut items: Vec<_> = cases
        .map(|((case, state), output)| DeltaItem {
            channels: &case.channels,
            write: &case.write,
            time: &case.passed,
            gate: Some(&case.gate),
            before: None,
            state,
            output,
        })
        .collect();
    let mut scratch = vec![0.0; 14 * net.scratch()];
    delta_net(&Context::new(Isa::SCALAR, &pool), &net, &first.weights(), &mut items, &mut scratch).unwrap();
    for (case, (state, output)) in [(&first, (&states[0], &outputs[0])), (&second, (&states[1], &outputs[1]))] {
        let tokens = case.channels.len() / net.channels();
        assert_eq!(case.run(Isa::SCALAR, 1, &[tokens]), (output.clone(), state.clone()));
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let case = Case::new(nets()[0], 2);
    let pool = Pool::new(1).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    let mut scratch = vec![0.0; 2 * case.net.scratch()];
    let mut attempt = |net: &DeltaNet, state: usize, output: usize, room: usize| {
        let (mut state, mut output) = (vec![0.0; state], vec![0.0; output]);
        let mut items = [DeltaItem {
            channels: &case.channels,
            write: &case.write,
            time: &case.passed,
            gate: Some(&case.gate),
            before: None,
            state: &mut state,
            output: &mut output,
        }];
        delta_net(&context, net, &case.weights(), &mut items, &mut scratch[..room])
    };
    let net = case.net;
    let (state, output, room) = (net.state_numbers().unwrap(), 2 * net.value_width(), 2 * net.scratch());
    attempt(&net, state, output, room).unwrap();
    for (net, state, output, room) in [
        (net, state - 1, output, room),
        (net, state, output + 1, room),
        (net, state, output, room - 1),
        (DeltaNet { value_heads: 5, ..net }, state, output, room),
        (DeltaNet { taps: 0, ..net }, state, output, room),
        (DeltaNet { taps: 3, ..net }, state, output, room),
    ] {
        assert!(matches!(attempt(&net, state, output, room), Err(Error::Shape(_))), "{net:?}");
    }
}
