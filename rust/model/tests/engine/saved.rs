//! Sessions taken apart into tokens and pages, and put together again.

use crate::tiny_model::{TinyModel, dense, routed};
use llamacpu_kernels::attention::KvType;
use llamacpu_model::{Error, Model, Session, StepItem, Wanted};

fn step(model: &Model, session: &Session, tokens: &[u32]) -> Vec<u32> {
    let logits = model.step(&[StepItem { session, tokens, pictures: &[], wanted: Wanted::Last }], None).unwrap();
    logits.iter().map(|value| value.to_bits()).collect()
}

fn restored(model: &Model, session: &Session) -> Session {
    let tokens = session.tokens().unwrap();
    let pages = tokens.len().div_ceil(64);
    let mut restoration = model.restore(Some(session.context()), session.kv_type(), tokens, &[]).unwrap();
    assert_eq!(restoration.missing(), pages);
    for index in 0..pages {
        restoration.push(&session.page(index).unwrap()).unwrap();
    }
    restoration.finish().unwrap()
}

#[test]
fn a_restored_session_goes_on_to_the_last_bit() {
    for (config, kv_type) in [(dense(), KvType::F32), (routed(), KvType::F16), (dense(), KvType::Q8_0)] {
        let tiny = TinyModel::new(config);
        let model = tiny.open(2).unwrap();
        for count in [0, 1, 63, 64, 65, 130] {
            let session = model.session(Some(200), kv_type).unwrap();
            let tokens: Vec<_> = (0..count).map(|index| index * index % 37).collect();
            if count > 0 {
                step(&model, &session, &tokens);
            }
            let again = restored(&model, &session);
            assert_eq!(
                (again.tokens().unwrap(), again.context(), again.nbytes().unwrap()),
                (tokens, 200, session.nbytes().unwrap())
            );
            assert_eq!(step(&model, &again, &[5, 6, 7]), step(&model, &session, &[5, 6, 7]));
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let tiny = TinyModel::new(dense());
    let model = tiny.open(1).unwrap();
    let session = model.session(None, KvType::F16).unwrap();
    step(&model, &session, &[1; 70]);
    let page = session.page(0).unwrap();
    assert!(matches!(session.page(2), Err(Error::Argument(_))));
    assert!(matches!(model.restore(Some(3), KvType::F16, vec![0; 4], &[]), Err(Error::ContextOverflow { .. })));
    assert!(matches!(model.restore(None, KvType::F16, vec![40], &[]), Err(Error::Argument(_))));
    let mut restoration = model.restore(None, KvType::F16, vec![1; 3], &[]).unwrap();
    assert!(matches!(restoration.push(&page[1..]), Err(Error::Argument(_))));
    restoration.push(&page).unwrap();
    assert!(matches!(restoration.push(&page), Err(Error::Argument(_))));
    let incomplete = model.restore(None, KvType::F16, vec![1; 3], &[]).unwrap();
    assert!(matches!(incomplete.finish(), Err(Error::Argument(_))));
}
