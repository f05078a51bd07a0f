use super::*;
use crate::settings::{Value, Values};

/// A sound configuration of small sizes.
pub(crate) fn config() -> Config {
    Config {
        architecture: "llama".to_owned(),
        vocab_size: 8,
        context_length: 100,
        embedding_length: 8,
        layers: 2,
        feed_forward: vec![16, 12],
        heads: vec![4, 2],
        kv_heads: vec![1, 2],
        key_size: 4,
        value_size: 6,
        norm_epsilon: 1e-5,
        rope: RopeConfig { size: 4, original_context: 100.0, ..RopeConfig::default() },
        ..Config::default()
    }
}

#[test]
fn buffers_fit_the_widest_layer() {
    assert!(config().validate().is_ok());
    assert_eq!(config().widths(), [24, 8, 12, 16]);
}

#[test]
fn the_score_scale_defaults_to_the_root_of_the_head_size() {
    assert_eq!(config().score_scale(&config().layer(0)), 0.5);
    let other = Config { key_sizes: vec![4, 16], ..config() };
    assert_eq!([0, 1].map(|layer| other.score_scale(&other.layer(layer))), [0.5, 0.25]);
    assert_eq!(Config { attention_scale: 0.3, ..config() }.score_scale(&config().layer(0)), 0.3);
}

fn values(settings: &[(&str, Value)]) -> Values {
    Values::new(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn numbers(numbers: &[i64]) -> Value {
    Value::List(numbers.iter().copied().map(Value::Integer).collect())
}

/// The settings without defaults.
fn least() -> Vec<(&'static str, Value)> {
    let mut settings = vec![
        ("architecture", Value::Text("llama".to_owned())),
        ("feed_forward", numbers(&[16, 12])),
        ("heads", numbers(&[4, 2])),
        ("kv_heads", numbers(&[1, 2])),
        ("norm_epsilon", Value::Number(1e-5)),
    ];
    let sizes = [
        ("vocab_size", 8),
        ("context_length", 100),
        ("embedding_length", 8),
        ("layers", 2),
        ("rope_original_context", 100),
    ];
    settings.extend(sizes.map(|(name, size)| (name, Value::Integer(size))));
    settings.extend([("key_size", 4), ("value_size", 6), ("rope_size", 4)].map(|(n, size)| (n, Value::Integer(size))));
    settings
}

#[test]
fn settings_have_defaults_and_what_has_none_is_asked_for() {
    let mut given = values(&least());
    assert_eq!(format!("{:?}", Config::take(&mut given).unwrap()), format!("{:?}", config()));
    given.finish().unwrap();
    for left_out in 0..least().len() {
        let mut settings = least();
        let (name, _) = settings.remove(left_out);
        let error = Config::take(&mut values(&settings)).unwrap_err().to_string();
        assert_eq!(error, format!("the configuration lacks {name:?}"));
    }
}

#[test]
fn names_and_types_are_checked() {
    let wrong = [
        ("heads", Value::Integer(4), "the configuration's \"heads\" cannot be 4: expected a list"),
        ("heads", numbers(&[4, -2]), "cannot be a list of 2"),
        ("layers", Value::Number(2.0), "cannot be 2.0: expected a whole number"),
        ("layers", Value::Flag(true), "cannot be true"),
        ("rope_base", Value::Text("10000".to_owned()), "cannot be \"10000\": expected a number"),
        ("rope_style", Value::Text("norm".to_owned()), "expected one of \"interleaved\", \"neox\""),
        ("expert_weights_norm", Value::Integer(1), "expected true or false"),
    ];
    for (name, value, message) in wrong {
        let mut settings = least();
        settings.retain(|(known, _)| *known != name);
        settings.push((name, value));
        let error = Config::take(&mut values(&settings)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let mut settings = least();
    settings.push(("rope_bass", Value::Number(1.0)));
    let mut given = values(&settings);
    Config::take(&mut given).unwrap();
    let error = given.finish().unwrap_err().to_string();
    assert!(error.contains("no setting \"rope_bass\"") && error.contains("rope_base"), "{error}");
}
