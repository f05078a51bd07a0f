//! Steps of whole models: the same bits whatever the way, and nothing lost when a step is stopped.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::tiny_model::{TinyModel, dense, routed};
use llamacpu_kernels::attention::KvType;
use llamacpu_model::{Error, Model, Session, StepItem, Wanted};

fn step(model: &Model, session: &Session, tokens: &[u32], wanted: Wanted) -> Result<Vec<f32>, Error> {
    model.step(&[StepItem { session, tokens, pictures: &[], wanted }], None)
}

fn prompt(count: u32) -> Vec<u32> {
    (0..count).map(|index| index * index % 37).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn pieces_threads_and_batches_change_no_bit() {
    for config in [dense(), routed()] {
        let tiny = TinyModel::new(config);
        let tokens = prompt(150);
        let one = tiny.open(1).unwrap();
        let whole = one.session(None, KvType::F16).unwrap();
        let expected = step(&one, &whole, &tokens, Wanted::All).unwrap();
        let two = tiny.open(2).unwrap();
        let sessions: Vec<_> = (0..3).map(|_| two.session(None, KvType::F16).unwrap()).collect();
        let vocabulary = two.config().vocab_size;
        let mut got = vec![Vec::new(); sessions.len()];
        // Three conversations go through the same prompt at different speeds, as long as all have tokens left.
        for round in 0..50 {
            let items: Vec<_> = sessions
                .iter()
                .enumerate()
                .map(|(index, session)| {
                    let start = round * (index + 1);
                    StepItem { session, tokens: &tokens[start..=start + index], pictures: &[], wanted: Wanted::All }
                })
                .collect();
            let rows = two.step(&items, None).unwrap();
            let mut start = 0;
            for (item, got) in items.iter().zip(&mut got) {
                let end = start + item.tokens.len() * vocabulary;
                got.extend_from_slice(&rows[start..end]);
                start = end;
            }
        }
        for got in got {
            assert_eq!(bits(&got), bits(&expected[..got.len()]));
        }
    }
}

#[test]
fn a_step_stopped_anywhere_leaves_the_session_as_it_was() {
    let tiny = TinyModel::new(routed());
    let model = tiny.open(2).unwrap();
    let tokens = prompt(200);
    let session = model.session(None, KvType::F32).unwrap();
    step(&model, &session, &tokens[..70], Wanted::None).unwrap();
    let fork = session.fork().unwrap();
    let expected = step(&model, &fork, &tokens[70..], Wanted::Last).unwrap();
    let mut stops = 0;
    for limit in 0.. {
        let polls = AtomicUsize::new(0);
        let interrupted = || polls.fetch_add(1, Ordering::Relaxed) >= limit;
        let item = StepItem { session: &session, tokens: &tokens[70..], pictures: &[], wanted: Wanted::Last };
        match model.step(&[item], Some(&interrupted)) {
            Ok(logits) => {
                assert_eq!(bits(&logits), bits(&expected));
                break;
            }
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
        assert_eq!(session.tokens().unwrap(), &tokens[..70]);
        stops += 1;
    }
    assert!(stops > 3, "the step was asked only {stops} times");
    assert_eq!(session.position().unwrap(), 200);
}

#[test]
fn a_rewound_conversation_forgets() {
    let tiny = TinyModel::new(dense());
    let model = tiny.open(1).unwrap();
    let session = model.session(None, KvType::Q8_0).unwrap();
    // Numbers that would show if they were still seen.
    step(&model, &session, &[39; 130], Wanted::None).unwrap();
    session.truncate(0).unwrap();
    assert_eq!(session.nbytes().unwrap(), 0);
    let tokens = prompt(90);
    let got = step(&model, &session, &tokens, Wanted::All).unwrap();
    let fresh = model.session(None, KvType::Q8_0).unwrap();
    assert_eq!(bits(&got), bits(&step(&model, &fresh, &tokens, Wanted::All).unwrap()));
    assert!(matches!(session.truncate(91), Err(Error::Argument(_))));
}

#[test]
fn wrong_steps_are_refused() {
    let tiny = TinyModel::new(dense());
    let (model, other) = (tiny.open(1).unwrap(), tiny.open(1).unwrap());
    let session = model.session(Some(4), KvType::F16).unwrap();
    let full = step(&model, &session, &[0; 5], Wanted::Last).unwrap_err();
    assert!(matches!(full, Error::ContextOverflow { position: 0, added: 5, context: 4 }));
    assert!(matches!(step(&model, &session, &[], Wanted::Last), Err(Error::Argument(_))));
    assert!(matches!(step(&model, &session, &[40], Wanted::Last), Err(Error::Argument(_))));
    assert!(matches!(step(&other, &session, &[1], Wanted::Last), Err(Error::Argument(_))));
    let item = StepItem { session: &session, tokens: &[1], pictures: &[], wanted: Wanted::Last };
    assert!(matches!(model.step(&[item, item], None), Err(Error::Argument(_))));
    assert!(matches!(model.session(Some(0), KvType::F16), Err(Error::Argument(_))));
    assert_eq!(session.position().unwrap(), 0);
    assert_eq!(model.step(&[], None).unwrap(), []);
}
