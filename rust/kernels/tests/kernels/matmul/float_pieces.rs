//! The division of tokens into tiles of plain weights.

use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::internals::matmul::{even_spans, float_tiles};

#[test]
fn tiles_cover_all_tokens_with_widths_that_exist() {
    for isa in Isa::available() {
        let (direct, least, most) = float_tiles(*isa);
        for more in 1..200 {
            let Some(tokens) = direct.checked_add(more) else { break };
            let spans = even_spans(tokens, least, most).unwrap();
            let mut first = 0;
            for span in &spans {
                assert_eq!(span.first, first);
                assert!((least..=most).contains(&span.count), "{tokens}: {}", span.count);
                assert_eq!(span.index, span.count - least);
                first += span.count;
            }
            assert_eq!(first, tokens);
        }
    }
}
