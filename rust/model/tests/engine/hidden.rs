//! Hidden states: the same bits whatever the way, and no change to what else a step returns.

use crate::tiny_model::{TinyModel, dense, routed};
use llamacpu_kernels::attention::KvType;
use llamacpu_model::{Error, StepItem, Wanted};

fn prompt(count: u32) -> Vec<u32> {
    (0..count).map(|index| index * index % 37).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn pieces_and_batches_change_no_bit() {
    for config in [dense(), routed()] {
        let tiny = TinyModel::new(config);
        let model = tiny.open(2).unwrap();
        let (layers, width) = (model.config().layers, model.config().embedding_length);
        let places: Vec<_> = (0..=layers).collect();
        let tokens = prompt(90);
        let session = model.session(None, KvType::F16).unwrap();
        let item = StepItem { session: &session, tokens: &tokens, pictures: &[], wanted: Wanted::Last };
        let whole = model.step_hidden(&[item], &places, None).unwrap();
        assert_eq!(whole.hidden.len(), places.len() * tokens.len() * width);
        let plain = model.session(None, KvType::F16).unwrap();
        let logits = model.step(&[StepItem { session: &plain, ..item }], None).unwrap();
        assert_eq!(bits(&whole.logits), bits(&logits));

        // Two conversations go through the same prompt in pieces of 1 and 2 tokens; every place alone and in any order.
        for order in [vec![layers], vec![layers - 1], vec![0], places.iter().rev().copied().collect()] {
            let sessions = [(); 2].map(|()| model.session(None, KvType::F16).unwrap());
            for round in 0..45 {
                let pieces = [round..=round, 2 * round..=2 * round + 1];
                let items: Vec<_> = sessions
                    .iter()
                    .zip(&pieces)
                    .map(|(session, piece)| StepItem {
                        session,
                        tokens: &tokens[piece.clone()],
                        pictures: &[],
                        wanted: Wanted::None,
                    })
                    .collect();
                let got = model.step_hidden(&items, &order, None).unwrap();
                assert!(got.logits.is_empty());
                let mut rows = got.hidden.chunks_exact(width);
                for &place in &order {
                    for token in pieces.iter().cloned().flatten() {
                        let start = (place * tokens.len() + token) * width;
                        assert_eq!(bits(rows.next().unwrap()), bits(&whole.hidden[start..start + width]));
                    }
                }
            }
        }
    }
}

#[test]
fn places_that_do_not_exist_are_refused() {
    let tiny = TinyModel::new(dense());
    let model = tiny.open(1).unwrap();
    let session = model.session(None, KvType::F16).unwrap();
    let item = StepItem { session: &session, tokens: &[1, 2], pictures: &[], wanted: Wanted::None };
    assert!(matches!(model.step_hidden(&[item], &[0, 3], None), Err(Error::Argument(_))));
    assert_eq!(session.position().unwrap(), 0);
}
