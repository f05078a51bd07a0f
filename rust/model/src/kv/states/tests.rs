use super::*;
use crate::Config;
use crate::config::tests::config;

fn layout() -> StateLayout {
    let config = Config {
        heads: vec![0, 2],
        kv_heads: vec![0, 2],
        recurrent_heads: vec![2, 0],
        recurrent_key_heads: 1,
        recurrent_key_size: 3,
        recurrent_value_size: 5,
        convolution_size: 4,
        ..config()
    };
    config.validate().unwrap();
    StateLayout::new(&config).unwrap()
}

/// The inputs of a token are its position.
fn step(states: &mut States, layout: &StateLayout, step: usize, end: usize) {
    let first = states.position();
    states.begin(layout, (first, end), step).unwrap();
    let LayerState { before, middle, state, log } = states.layer(layout, 0).unwrap();
    assert_eq!(before.map_or(0.0, |before| before[0]), first as f32);
    let start = middle.map_or(first, |(tokens, state)| {
        state.fill((first + tokens) as f32);
        first + tokens
    });
    state.fill(end as f32);
    let count = end - start;
    let (channels, rest) = log.split_at_mut(16 * count);
    let (write, time) = rest.split_at_mut(2 * count);
    for (table, width) in [(channels, 16), (write, 2), (time, 2)] {
        for (token, row) in table.chunks_exact_mut(width).enumerate() {
            row.fill((start + token) as f32);
        }
    }
    states.commit();
}

#[test]
fn states_are_few_and_those_that_matter() {
    let layout = layout();
    let mut states = States::default();
    let mut position = 0;
    let mut number = 1usize;
    for _ in 0..2000 {
        number = number * 48_271 % 2_147_483_647;
        let count = [1, 1, 1, 3, 20, 32, 33, 100, 512][number % 9];
        if number.is_multiple_of(5) {
            position -= count.min(position);
            states.truncate(position);
            assert!(states.nearest(position) <= position);
            if states.nearest(position) == position && states.position() < position {
                let inputs = states.logged(&layout, position).unwrap().unwrap();
                let first = states.position() as f32;
                assert_eq!(inputs[0].1[0], first, "the first input since the last state");
                assert_eq!(*inputs[0].1.last().unwrap(), (position - 1) as f32, "the last one");
                states.begin_replay(&layout, position).unwrap();
                states.layer(&layout, 0).unwrap().state.fill(position as f32);
                states.commit_replay();
            }
            position = states.position();
            states.truncate(position);
        } else {
            step(&mut states, &layout, position, position + count);
            position += count;
        }
        assert_eq!(states.position(), position);
        assert!(states.kept.len() <= 3 + CHECKPOINTS, "{:?}", states.kept);
        assert!(states.kept.is_sorted_by_key(|kept| kept.position));
        assert!(states.kept.iter().all(|kept| kept.numbers[0] == kept.position as f32));
        assert!(states.nbytes() <= layout.bytes_for(position), "{} at {position}", states.nbytes());
        let logged: usize = states.log.iter().map(|logged| logged.tokens).sum();
        assert!(logged <= LOGGED_TOKENS && (position == 0 || logged > 0 || states.log.is_empty()));
    }
}

#[test]
fn a_chunk_that_fails_leaves_nothing() {
    let layout = layout();
    let mut states = States::default();
    step(&mut states, &layout, 0, 40);
    let before = states.nbytes();
    for end in [41, 90] {
        states.begin(&layout, (40, end), 40).unwrap();
        states.truncate(40);
        assert_eq!((states.position(), states.nbytes()), (40, before));
        assert!(states.layer(&layout, 0).is_err());
    }
    assert!(states.begin(&layout, (41, 42), 41).is_err());
}
