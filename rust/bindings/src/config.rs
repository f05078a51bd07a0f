//! The dict that `llamacpu.families.llama.config_for` returns, as the Rust `Config`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use llamacpu_kernels::rope::{RopeScaling, RopeStyle};
use llamacpu_model::{Config, ExpertGating};

use crate::errors::raise;

/// Reads every key; a missing one, another type or an unknown name is a `ModelError` that names the key.
pub(crate) fn config_from(dict: &Bound<'_, PyDict>) -> PyResult<Config> {
    let fields = Fields(dict);
    Ok(Config {
        architecture: fields.get("architecture")?,
        vocab_size: fields.get("vocab_size")?,
        context_length: fields.get("context_length")?,
        embedding_length: fields.get("embedding_length")?,
        layers: fields.get("layers")?,
        feed_forward: fields.get("feed_forward")?,
        heads: fields.get("heads")?,
        kv_heads: fields.get("kv_heads")?,
        key_size: fields.get("key_size")?,
        value_size: fields.get("value_size")?,
        rms_epsilon: fields.get("rms_epsilon")?,
        rope_size: fields.get("rope_size")?,
        rope_base: fields.get("rope_base")?,
        rope_style: rope_style_from(dict)?,
        rope_scaling: rope_scaling_from(dict)?,
        attention_scale: fields.get("attention_scale")?,
        embedding_scale: fields.get("embedding_scale")?,
        residual_scale: fields.get("residual_scale")?,
        logit_scale: fields.get("logit_scale")?,
        experts: fields.get("experts")?,
        experts_used: fields.get("experts_used")?,
        expert_weights_norm: fields.get("expert_weights_norm")?,
        expert_weights_scale: fields.get("expert_weights_scale")?,
        expert_gating: fields.choice(
            "expert_gating",
            &[
                ("softmax", ExpertGating::Softmax),
                ("sigmoid", ExpertGating::Sigmoid),
                ("softmax_selected", ExpertGating::SoftmaxSelected),
            ],
        )?,
    })
}

/// Reads `rope_style`.
pub(crate) fn rope_style_from(dict: &Bound<'_, PyDict>) -> PyResult<RopeStyle> {
    Fields(dict).choice("rope_style", &[("interleaved", RopeStyle::Interleaved), ("neox", RopeStyle::NeoX)])
}

/// Reads `rope_scaling` and the numbers that belong to it.
pub(crate) fn rope_scaling_from(dict: &Bound<'_, PyDict>) -> PyResult<RopeScaling> {
    let fields = Fields(dict);
    let factor = fields.get("rope_factor")?;
    let yarn = RopeScaling::Yarn {
        factor,
        original_context: fields.get("rope_original_context")?,
        ext_factor: fields.get("yarn_ext_factor")?,
        attn_factor: fields.get("yarn_attn_factor")?,
        beta_fast: fields.get("yarn_beta_fast")?,
        beta_slow: fields.get("yarn_beta_slow")?,
    };
    let names = [("none", RopeScaling::None), ("linear", RopeScaling::Linear { factor }), ("yarn", yarn)];
    fields.choice("rope_scaling", &names)
}

struct Fields<'a, 'py>(&'a Bound<'py, PyDict>);

impl Fields<'_, '_> {
    fn get<T>(&self, key: &str) -> PyResult<T>
    where
        T: for<'a, 'py> FromPyObject<'a, 'py>,
    {
        let py = self.0.py();
        let value = self.0.get_item(key)?;
        let value = value.ok_or_else(|| raise(py, "ModelError", &format!("the configuration lacks {key:?}")))?;
        value.extract::<T>().map_err(|error| {
            let error: PyErr = error.into();
            raise(py, "ModelError", &format!("the configuration's {key:?} cannot be {value}: {}", error.value(py)))
        })
    }

    fn choice<T: Clone>(&self, key: &str, names: &[(&str, T)]) -> PyResult<T> {
        let name: String = self.get(key)?;
        let found = names.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        found.ok_or_else(|| {
            let known: Vec<_> = names.iter().map(|(known, _)| *known).collect();
            let message = format!("the configuration's {key:?} is {name:?}; expected one of {}", known.join(", "));
            raise(self.0.py(), "ModelError", &message)
        })
    }
}
