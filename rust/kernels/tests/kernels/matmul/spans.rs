//! The division of few tokens into tiles of quantized weights.

use llamacpu_kernels::internals::matmul::direct_spans;

fn counts(tokens: usize, widths: &[usize]) -> Vec<usize> {
    direct_spans(tokens, widths).unwrap().iter().map(|span| span.count).collect()
}

#[test]
fn tiles_cover_few_tokens_with_widths_that_exist() {
    for widths in [&[1][..], &[1, 2, 4], &[1, 2, 3, 4], &[1, 2, 4, 8]] {
        for tokens in 1..40 {
            let spans = direct_spans(tokens, widths).unwrap();
            let mut first = 0;
            for span in &spans {
                assert_eq!((span.first, widths[span.index]), (first, span.count), "{tokens} in {widths:?}");
                first += span.count;
            }
            assert_eq!(first, tokens);
        }
    }
}

#[test]
fn tiles_are_even_where_every_width_exists() {
    assert_eq!(counts(4, &[1, 2, 3, 4]), [4]);
    assert_eq!(counts(5, &[1, 2, 3, 4]), [3, 2]);
    assert_eq!(counts(9, &[1, 2, 3, 4]), [3, 3, 3]);
    assert_eq!(counts(5, &[1, 2, 4]), [4, 1]);
}
