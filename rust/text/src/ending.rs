//! Tokens that end a generation, recognized by their text: files rarely list all of them.

use crate::vocabulary::{Kind, Vocabulary};

/// Texts of such tokens in current model families.
const TEXTS: [&str; 24] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    "<end_of_utterance>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    // Llama 4
    "<|eot|>",
    "<|eom|>",
];

/// Finds the tokens that end a generation and makes them control tokens, so that text cannot contain them by accident.
pub(crate) fn mark(vocabulary: &mut Vocabulary) -> Vec<u32> {
    let mut endings = Vec::new();
    let has = |vocabulary: &Vocabulary, text: &str| vocabulary.token(text).is_some();
    // If other tokens end the answer, <|end|> only ends a message within it; and with <|tool_response>, </s> is plain text.
    let answers_go_on = (has(vocabulary, "<|return|>") && has(vocabulary, "<|call|>"))
        || (has(vocabulary, "<|calls|>") && has(vocabulary, "<|flush|>"));
    let plain_end = has(vocabulary, "<|tool_response>");
    // Where messages have headers of their own (Muse Glimmer), the end of a message is not that of the answer.
    let messages_go_on = has(vocabulary, "<|start|>") && has(vocabulary, "<|message|>") && has(vocabulary, "<|eot|>");
    for text in TEXTS {
        let Some(id) = vocabulary.token(text) else { continue };
        match text {
            "<|eom|>" if messages_go_on => vocabulary.set_kind(id, Kind::Control),
            "<|end|>" if answers_go_on => vocabulary.set_kind(id, Kind::UserDefined),
            "</s>" if plain_end => vocabulary.set_kind(id, Kind::Normal),
            _ => {
                vocabulary.set_kind(id, Kind::Control);
                endings.push(id);
            }
        }
    }
    endings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::tests::array;

    fn endings(texts: &[&str]) -> (Vec<u32>, Vec<Kind>) {
        let (data, index) = array(texts);
        let mut vocabulary = Vocabulary::new(&data, &index, None, true).unwrap();
        let endings = mark(&mut vocabulary);
        let kinds = (0..texts.len() as u32).map(|id| vocabulary.kind(id)).collect();
        (endings, kinds)
    }

    #[test]
    fn ending_tokens_become_control_tokens() {
        let (found, kinds) =
            endings(&["a", "<|eom|>", "<|eot_id|>", "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>"]);
        assert_eq!(found, [2, 3, 1]);
        assert_eq!(kinds, [Kind::Normal, Kind::Control, Kind::Control, Kind::Control]);
    }

    #[test]
    fn end_of_a_message_is_not_the_end_of_an_answer() {
        assert_eq!(endings(&["<|end|>"]).0, [0]);
        let (found, kinds) = endings(&["<|end|>", "<|return|>", "<|call|>"]);
        assert_eq!(found, [1, 2]);
        assert_eq!(kinds[0], Kind::UserDefined);
        assert_eq!(endings(&["</s>", "<|tool_response>"]).0, [1]);
        let (found, kinds) = endings(&["<|eom|>", "<|start|>", "<|message|>", "<|eot|>"]);
        assert_eq!(found, [3]);
        assert_eq!(kinds[0], Kind::Control);
    }
}
