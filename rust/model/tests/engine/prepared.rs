//! Weights that were prepared ahead give the same bits as those that the first step prepares.

use crate::tiny_model::{TinyModel, dense, routed};
use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::attention::KvType;
use llamacpu_model::{Error, StepItem, Wanted};

#[test]
fn preparing_changes_no_bit_and_accounts_for_every_matrix() {
    for config in [dense(), routed()] {
        let tiny = TinyModel::new(config);
        let results = [false, true].map(|prepared| {
            let model = tiny.open(2).unwrap();
            let parts = model.part_bytes();
            assert_eq!(parts.len(), model.config().layers + 1);
            assert_eq!(parts.iter().sum::<usize>(), model.weight_bytes(), "the router of a layer counts too");
            for part in (0..parts.len()).filter(|_| prepared) {
                model.prepare(part, None).unwrap();
                model.prepare(part, None).unwrap();
            }
            let session = model.session(None, KvType::F16).unwrap();
            let item = StepItem { session: &session, tokens: &[1, 2, 3], pictures: &[], wanted: Wanted::All };
            let logits = model.step(&[item], None).unwrap();
            logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn preparing_can_be_stopped_and_knows_its_parts() {
    let tiny = TinyModel::new(dense());
    let model = tiny.open(1).unwrap();
    let stopped = model.prepare(0, Some(&|| true)).unwrap_err();
    assert!(matches!(stopped, Error::Kernel(KernelError::Cancelled)), "{stopped:?}");
    let parts = model.part_bytes().len();
    assert!(matches!(model.prepare(parts, None), Err(Error::Argument(_))));
    model.prepare(0, None).unwrap();
}
