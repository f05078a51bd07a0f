//! Configurations and tensor tables that make no model: an error that names the culprit, never a panic.

use crate::tiny_model::{TinyModel, dense, routed};
use llamacpu_model::{Config, Error, TensorInfo};

type Change = fn(&mut Config, &mut Vec<TensorInfo>);

fn find<'a>(tensors: &'a mut [TensorInfo], name: &str) -> &'a mut TensorInfo {
    tensors.iter_mut().find(|tensor| tensor.name == name).expect("the tiny model has this tensor")
}

#[test]
fn what_does_not_fit_is_named() {
    let cases: &[(&str, Change)] = &[
        ("vocab_size is 0", |config, _| config.vocab_size = 0),
        ("vocab_size is", |config, _| config.vocab_size = usize::MAX),
        ("context_length is 0", |config, _| config.context_length = 0),
        ("layers is 0", |config, _| config.layers = 0),
        ("layers is", |config, _| config.layers = usize::MAX),
        ("feed_forward has 2 entries for 1 layers", |config, _| config.layers = 1),
        ("no use for the tensors blk.1.ffn_down.weight", |config, _| config.feed_forward[1] = 0),
        ("layer 0 has 0 query heads", |config, _| config.heads[0] = 0),
        ("4 query heads for 3", |config, _| config.kv_heads[1] = 3),
        ("heads times head size", |config, _| config.heads[0] = 1 << 28),
        ("key_size is 7", |config, _| {
            config.key_size = 7;
            config.rope.size = 6;
        }),
        ("rope_size is 10", |config, _| config.rope.size = 10),
        ("rope_size is 5", |config, _| config.rope.size = 5),
        ("norm_epsilon is 0", |config, _| config.norm_epsilon = 0.0),
        ("norm_epsilon is NaN", |config, _| config.norm_epsilon = f32::NAN),
        ("rotary", |config, _| config.rope.base = f64::NAN),
        ("logit_scale is inf", |config, _| config.logit_scale = f32::INFINITY),
        ("residual_scale is -1", |config, _| config.residual_scale = -1.0),
        ("experts_used is 1", |config, _| config.experts_used = 1),
        ("experts is 2000", |config, _| config.experts = 2000),
        ("\"output_norm.weight\" is missing", |_, tensors| {
            tensors.retain(|tensor| tensor.name != "output_norm.weight");
        }),
        ("\"blk.1.attn_q.weight\" has the shape [32, 31]", |_, tensors| {
            find(tensors, "blk.1.attn_q.weight").shape = vec![32, 31];
        }),
        ("\"blk.0.ffn_up.weight\" has the shape [48, 32]", |_, tensors| {
            find(tensors, "blk.0.ffn_up.weight").shape.reverse();
        }),
        ("has the shape []", |_, tensors| find(tensors, "output_norm.weight").shape.clear()),
        ("has the shape [18446744073709551615]", |_, tensors| {
            find(tensors, "output_norm.weight").shape = vec![u64::MAX];
        }),
        ("stored as type 99", |_, tensors| find(tensors, "output_norm.weight").ggml_type = 99),
        ("Q8_0 stores blocks of 32", |config, tensors| {
            config.feed_forward[0] = 47;
            let down = find(tensors, "blk.0.ffn_down.weight");
            (down.shape, down.ggml_type) = (vec![47, 32], 8);
            find(tensors, "blk.0.ffn_up.weight").shape = vec![32, 47];
            find(tensors, "blk.0.ffn_up.weight").nbytes = 32 * 47 * 4;
            find(tensors, "blk.0.ffn_gate.weight").shape = vec![32, 47];
            find(tensors, "blk.0.ffn_gate.weight").nbytes = 32 * 47 * 4;
        }),
        ("has 100 bytes", |_, tensors| find(tensors, "output_norm.weight").nbytes = 100),
        ("is in file 3", |_, tensors| find(tensors, "output_norm.weight").file = 3),
        ("occurs twice", |_, tensors| {
            let copy = tensors[0].clone();
            tensors.push(copy);
        }),
        ("has no use for the tensors blk.1.attn_q_norm.weight", |_, tensors| {
            let mut extra = find(tensors, "output_norm.weight").clone();
            extra.name = "blk.1.attn_q_norm.weight".to_owned();
            tensors.push(extra);
        }),
    ];
    let tiny = TinyModel::new(dense());
    for (expected, change) in cases {
        let error = tiny.open_with(change).err().unwrap_or_else(|| panic!("{expected}: the model opened"));
        assert!(matches!(error, Error::Model(_)), "{expected}: {error:?}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn bytes_outside_the_file_are_refused() {
    let tiny = TinyModel::new(dense());
    for offset in [u64::MAX, u64::MAX / 2, 1 << 40] {
        let error = tiny.open_with(|_, tensors| tensors[3].offset = offset).err().expect("the bytes are not there");
        assert!(matches!(error, Error::Model(_)), "{error:?}");
    }
}

#[test]
fn a_layer_without_a_router_is_dense() {
    let tiny = TinyModel::new(dense());
    assert!(tiny.open_with(|config, _| (config.experts, config.experts_used) = (4, 2)).is_ok());
}

#[test]
fn spare_tensors_are_refused_unless_the_configuration_names_them() {
    let tiny = TinyModel::new(routed());
    let open = |ignored: &[&str]| {
        tiny.open_with(|config, tensors| {
            config.ignored_tensors = ignored.iter().map(|&start| start.to_owned()).collect();
            for name in ["spare.weight", "blk.7.attn_q.weight", "blk.0.rope_freqs.weight"] {
                let mut extra = find(tensors, "output_norm.weight").clone();
                extra.name = name.to_owned();
                tensors.push(extra);
            }
        })
    };
    let error = open(&["blk.7"]).err().expect("a tensor without use").to_string();
    assert!(error.contains("no use for the tensors spare.weight:"), "{error}");
    let model = open(&["blk.7.", "spare."]).expect("both are named");
    assert_eq!(model.unread(), ["blk.0.rope_freqs.weight"]);
}
