//! Relative positions: the terms that they add to scores, compared with the definition in f64.

use super::*;

fn run(
    isa: Isa,
    threads: usize,
    heads: usize,
    size: usize,
    term: &RelativeTerm,
    bias: &mut [f32],
) -> Result<(), Error> {
    let pool = Pool::new(threads).expect("threads start");
    add_relative_bias(&Context::new(isa, &pool), heads, size, term, bias)
}

#[test]
fn both_terms_are_the_definition() {
    let mut random = Random::new(70);
    for (heads, size, tokens, distances) in [(2, 16, 1, 4), (3, 17, 9, 12), (2, 64, 100, 40), (1, 1, 5, 1)] {
        let (rows, table) = (random.units(tokens * heads * size), random.units(distances * heads * size));
        let buckets: Vec<usize> = (0..2 * tokens - 1).map(|_| random.below(distances)).collect();
        let start = random.units(heads * tokens * tokens);
        for of_keys in [false, true] {
            let term = RelativeTerm { rows: &rows, of_keys, table: &table, buckets: &buckets, scale: 0.4 };
            let mut expected: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let mut bias = start.clone();
                    run(*isa, threads, heads, size, &term, &mut bias).expect("fitting shapes");
                    assert_eq!(expected.get_or_insert_with(|| bias.clone()), &bias, "{isa} {threads}");
                }
            }
            for (place, got) in expected.expect("at least the scalar set").iter().enumerate() {
                let (head, query, key) = (place / tokens / tokens, place / tokens % tokens, place % tokens);
                let row = &rows[(if of_keys { key } else { query } * heads + head) * size..][..size];
                let distance = &table[(buckets[query + tokens - 1 - key] * heads + head) * size..][..size];
                let product: f64 = row.iter().zip(distance).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                let exact = f64::from(start[place]) + 0.4 * product;
                assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} {exact}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (rows, table, buckets) = ([0.0; 24], [0.0; 40], [4; 5]);
    let term = RelativeTerm { rows: &rows, of_keys: false, table: &table, buckets: &buckets, scale: 1.0 };
    run(Isa::SCALAR, 1, 2, 4, &term, &mut [0.0; 18]).expect("three tokens, five distances");
    let wrong = |term: RelativeTerm, heads, count| {
        let result = run(Isa::SCALAR, 1, heads, 4, &term, &mut vec![0.0; count]);
        assert!(matches!(result, Err(Error::Shape(_))));
    };
    wrong(term, 2, 17);
    wrong(term, 0, 18);
    wrong(term, usize::MAX, 18);
    wrong(RelativeTerm { rows: &rows[1..], ..term }, 2, 18);
    wrong(RelativeTerm { table: &table[1..], ..term }, 2, 18);
    wrong(RelativeTerm { buckets: &buckets[1..], ..term }, 2, 18);
    wrong(RelativeTerm { buckets: &[0, 1, 2, 3, 5], ..term }, 2, 18);
    let nothing = RelativeTerm { rows: &[], of_keys: true, table: &table, buckets: &[], scale: 1.0 };
    run(Isa::SCALAR, 1, 2, 4, &nothing, &mut []).expect("no tokens are fine");
}
