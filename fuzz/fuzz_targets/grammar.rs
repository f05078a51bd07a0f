#![no_main]
//! Grammars in GBNF: any text is an error or a grammar, and under a grammar every token that is allowed can be taken, and
//! no other.
//!
//!     RUSTC_BOOTSTRAP=1 cargo fuzz run grammar -- -max_total_time=60

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use llamacpu_text::grammar::{Matcher, Rules, Trie};

/// Tokens: all bytes, some words with half characters, one without a text that has a name, one that ends the text.
fn vocabulary() -> Trie {
    let mut texts: Vec<Box<[u8]>> = (0..=255_u8).map(|byte| [byte].into()).collect();
    texts.extend(
        [&b"ab"[..], b"ba", b" a", b"\n\n", "\u{e9}a".as_bytes(), b"\xf0\x9f", b"a\xc3", b"", b""].map(Into::into),
    );
    Trie::new(texts, &[263], &[264]).expect("a sound vocabulary")
}

fuzz_target!(|input: (&str, &[u8])| {
    let (text, choices) = input;
    let Ok(rules) = Rules::parse(text, "root") else { return };
    let references = vec![263; rules.references().len()];
    let never = || false;
    let Ok(mut matcher) = Matcher::new(Arc::new(rules), Arc::new(vocabulary()), &references, &never) else { return };
    for choice in choices.iter().take(16) {
        let Ok(bits) = matcher.allowed(&never) else { return };
        let (allowed, other): (Vec<u32>, Vec<u32>) =
            (0..265).partition(|id| bits[*id as usize / 64] >> (id % 64) & 1 != 0);
        for id in other.iter().step_by(37) {
            assert!(matcher.consume(*id, &never).is_err(), "token {id} is not allowed");
        }
        let id = allowed[*choice as usize % allowed.len()];
        if matcher.consume(id, &never).is_err() {
            // Only a limit may stop it.
            return;
        }
    }
});
