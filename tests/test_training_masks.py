"""Which tokens of a conversation a training counts, in the forms of several templates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from character_tokenizer import CharacterTokenizer, character_chat, shown
from llamacpu.errors import TrainingError
from llamacpu.tools.train.messages import conversation
from llamacpu.tools.train.records import Record
from llamacpu.tools.train.samples import Encoder

# Qwen 3's, as far as it matters here: the reasoning of turns before the last question is left out.
DROPS_REASONING = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' and "
    "loop.index0 > ns.last %}{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{%- endif %}"
    "{{ m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
# DeepSeek R1's: the prompt opens the reasoning, the history leaves it out.
OPENS_REASONING = (
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ '<|User|>' + m.content }}{%- else %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{%- endif %}"
)
# One that ends no answer.
ENDLESS = (
    "{%- for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}assistant: {% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}]
CALL = [{"type": "function", "id": "abcdefghi", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]

CHATML = CharacterTokenizer(["<|im_start|>"], ["<|im_end|>"])
LLAMA3 = CharacterTokenizer(
    ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"],
    ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"],
    "<|begin_of_text|>",
)
LLAMA2 = CharacterTokenizer([], ["</s>"], "<s>")
R1 = CharacterTokenizer(["<|User|>", "<|Assistant|>", "<think>", "</think>"], ["<|end|>"])
HARMONY = CharacterTokenizer(
    ["<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|end|>"], ["<|return|>", "<|call|>"]
)


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def masked(
    template: str, tokenizer: CharacterTokenizer, messages: list[dict[str, Any]], tools: Any = None, **settings: Any
) -> list[str]:
    """The samples of a conversation as text, with [[ ]] around what is counted."""
    options = {"length": 100_000, "count": "answers", "too_long": "cut", "raw": False} | settings
    encoder = Encoder(character_chat(template, tokenizer), **options)
    record = Record("here", messages=conversation(messages, "here"), tools=tools)
    return [shown(tokenizer, s.tokens, s.targets) for group in encoder.samples([record]) for s in group]


TALK = [
    message("system", "Be brief."),
    message("user", "Hi"),
    message("assistant", "Hello"),
    message("user", "Bye"),
    message("assistant", "So long"),
]


def test_several_turns_of_chatml() -> None:
    assert masked("chatml", CHATML, TALK) == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "[[Hello<|im_end|>]]\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n[[So long<|im_end|>]]"
    ]


def test_several_turns_of_llama_3() -> None:
    def turn(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    assert masked("llama-3", LLAMA3, TALK) == [
        f"<|begin_of_text|>{turn('system')}Be brief.<|eot_id|>{turn('user')}Hi<|eot_id|>{turn('assistant')}"
        f"[[Hello<|eot_id|>]]{turn('user')}Bye<|eot_id|>{turn('assistant')}[[So long<|eot_id|>]]"
    ]


def test_the_answers_of_llama_2_end_with_eos() -> None:
    (text,) = masked("llama-2", LLAMA2, TALK)
    first, second = text.split("[/INST]")[1:]
    assert first.startswith("[[ Hello </s>]]")
    assert second.endswith("So long </s>]]")
    assert text.count("[[") == 2


@pytest.mark.parametrize("untrained", [{"weight": 0}, {"train": False}])
def test_answers_of_no_weight_are_read_and_not_learned(untrained: dict[str, Any]) -> None:
    messages = [*TALK[:2], {**TALK[2], **untrained}, *TALK[3:]]
    (text,) = masked("chatml", CHATML, messages)
    assert "[[Hello" not in text
    assert "Hello" in text
    assert text.count("[[") == 1
    assert text.endswith("[[So long<|im_end|>]]")


def test_what_follows_the_last_answer_is_not_read() -> None:
    assert masked("chatml", CHATML, [*TALK, message("user", "One more")]) == masked("chatml", CHATML, TALK)


def test_calls_of_tools_are_learned_and_their_results_are_not() -> None:
    messages = [
        message("user", "1+2?"),
        message("assistant", "", tool_calls=CALL),
        message("tool", "3", tool_call_id="abcdefghi"),
        message("assistant", "It is 3."),
    ]
    (text,) = masked("llama-3.1", LLAMA3, messages, TOOLS)
    counted = [part.split("]]")[0] for part in text.split("[[")[1:]]
    assert len(counted) == 2
    call = json.loads(counted[0].removesuffix("<|eot_id|>").removesuffix("<|eom_id|>").removeprefix("<|python_tag|>"))
    assert call == {"name": "add", "parameters": {"a": 1, "b": 2}}
    assert counted[1] == "It is 3.<|eot_id|>"


def test_reasoning_that_later_turns_leave_out_makes_a_sample_of_its_own() -> None:
    messages = [
        message("user", "Hi"),
        message("assistant", "Hello", reasoning_content="Greet."),
        message("user", "Bye"),
        message("assistant", "So long", reasoning_content="Part."),
    ]
    assert masked(DROPS_REASONING, CHATML, messages) == [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[<think>\nGreet.\n</think>\n\nHello<|im_end|>]]",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n[[<think>\nPart.\n</think>\n\nSo long<|im_end|>]]",
    ]


def test_reasoning_that_the_prompt_opens_is_closed_before_the_answer() -> None:
    messages = [message("user", "Hi"), message("assistant", "Hello", reasoning_content="Greet.")]
    assert masked(OPENS_REASONING, R1, messages) == [
        "<|User|>Hi<|Assistant|><think>\n[[Greet.\n</think>\n\nHello<|end|>]]"
    ]


def test_the_end_of_the_last_answer_of_harmony_is_not_that_of_earlier_ones() -> None:
    texts = masked("gpt-oss", HARMONY, TALK[1:])
    assert len(texts) == 2
    assert texts[0].endswith("<|start|>assistant[[<|channel|>final<|message|>Hello<|return|>]]")
    assert texts[1].endswith("<|start|>assistant[[<|channel|>final<|message|>So long<|return|>]]")
    assert "Hello<|end|>" in texts[1]


def test_a_template_that_ends_no_answer_gets_the_end_token() -> None:
    tokenizer = CharacterTokenizer([], ["</s>"])
    assert masked(ENDLESS, tokenizer, TALK[1:]) == [
        "user: Hi\nassistant: [[Hello\n</s>]]",
        "user: Hi\nassistant: Hello\nuser: Bye\nassistant: [[So long\n</s>]]",
    ]


def test_a_token_across_the_border_is_divided_as_the_model_meets_it() -> None:
    # The prompt ends with a line break, and the answer begins with one: together they would be one token.
    tokenizer = CharacterTokenizer(["<|im_start|>"], ["<|im_end|>"], pairs=["\n\n"])
    source = "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}" \
        "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"  # fmt: skip
    (text,) = masked(source, tokenizer, [message("user", "Hi"), message("assistant", "\nHello")])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[\nHello<|im_end|>]]"


def test_control_tokens_in_messages_stay_text() -> None:
    messages = [message("user", "<|im_end|>"), message("assistant", "a<|im_end|>b")]
    chat = character_chat("chatml", CHATML)
    encoder = Encoder(chat, 1000, "answers", "cut", False)
    ((sample,),) = encoder.samples([Record("here", messages=messages)])
    end = CHATML.token_to_id("<|im_end|>")
    assert [int(id) for id in sample.tokens].count(end) == 1
    assert sample.counted == len("a<|im_end|>b") + 1
    assert sample.targets[-1] == end


def test_everything_can_be_counted() -> None:
    (text,) = masked("chatml", CHATML, TALK, count="all")
    assert text.startswith("<|im_start|>[[system")
    assert text.count("[[") == 1
    assert text.replace("[[", "").replace("]]", "") == character_chat("chatml", CHATML).render(TALK, None, False)


@pytest.mark.parametrize(
    ("too_long", "expected"),
    [("cut", ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Hel]]"]), ("skip", [])],
)
def test_long_conversations_are_cut_or_left_out(too_long: str, expected: list[str]) -> None:
    length = len(CHATML.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHe", parse_special=True))
    assert masked("chatml", CHATML, TALK[1:3], length=length, too_long=too_long) == expected


def test_a_conversation_whose_answer_would_be_cut_off_is_left_out() -> None:
    encoder = Encoder(character_chat("chatml", CHATML), 10, "answers", "cut", False)
    assert list(encoder.samples([Record("here", messages=TALK)])) == [[]]
    assert (encoder.cut, encoder.skipped) == (0, 1)


def test_prompt_and_completion_are_a_conversation_or_joined_as_they_are() -> None:
    record = Record("here", prompt="2+2=", completion="4")
    chat = character_chat("llama-3", LLAMA3)
    for raw, expected in (
        (False, "<|end_header_id|>\n\n[[4<|eot_id|>]]"),
        (True, "<|begin_of_text|>2+2=[[4<|eot_id|>]]"),
    ):
        ((sample,),) = Encoder(chat, 1000, "answers", "cut", raw).samples([record])
        assert shown(LLAMA3, sample.tokens, sample.targets).endswith(expected)


def test_a_text_is_learned_whole_in_pieces() -> None:
    text = "abcdefghij" * 5
    parts = list(
        Encoder(character_chat("llama-3", LLAMA3), 16, "answers", "cut", False).samples([Record("t", text=text)])
    )
    assert all(len(part) == 1 for part in parts)
    samples = [part[0] for part in parts]
    assert max(len(sample.tokens) for sample in samples) == 16
    assert "".join(LLAMA3.decode(sample.targets) for sample in samples) == text + "<|eot_id|>"
    assert "".join(LLAMA3.decode(sample.tokens) for sample in samples) == "<|begin_of_text|>" + text


def test_an_error_of_the_template_names_the_place() -> None:
    source = "{{ raise_exception('no such role') }}"
    with pytest.raises(TrainingError, match=r"^here: the chat template refuses it: no such role"):
        masked(source, CHATML, TALK)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.text("ab\n <", max_size=6), st.text("ab\n <", min_size=1, max_size=6)), min_size=1, max_size=4
    )
)
def test_what_is_counted_is_what_the_assistant_writes(turns: list[tuple[str, str]]) -> None:
    messages = [m for user, answer in turns for m in (message("user", user), message("assistant", answer))]
    (text,) = masked("chatml", CHATML, messages)
    assert [part.split("]]")[0] for part in text.split("[[")[1:]] == [f"{answer}<|im_end|>" for _, answer in turns]


def test_a_very_long_conversation_is_rendered_as_far_as_a_row_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    chat = character_chat("chatml", CHATML)
    segments = chat.segments

    def counted(messages: Any, *arguments: Any, **variables: Any) -> Any:
        rendered.append(len(messages))
        return segments(messages, *arguments, **variables)

    monkeypatch.setattr(chat, "segments", counted)
    record = Record("here", messages=TALK[1:3] * 500)
    for too_long, count in (("cut", 1), ("skip", 0)):
        encoder = Encoder(chat, 150, "answers", too_long, False)  # type: ignore[arg-type]
        (samples,) = encoder.samples([record])
        assert len(samples) == count
        assert (encoder.cut, encoder.skipped) == (count, 1 - count)
    assert max(rendered) < 20
