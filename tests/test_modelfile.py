"""Modelfiles: read, stored over a file that stays where it is, and what they say applies wherever the name is used."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
from llamacpu.answers import chat_prompt
from llamacpu.chat import Chat
from llamacpu.cli.group import command_line
from llamacpu.errors import StoreError, TemplateError
from llamacpu.store.create import create, text_of
from llamacpu.store.local import find
from llamacpu.store.manifests import Preset
from llamacpu.store.modelfile import Modelfile, parse_modelfile, written
from test_store_local import put_ollama

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
FULL = '''\
# A comment
from ./demo.gguf
PARAMETER temperature 0
  parameter Top_K 3
Parameter stop "<x>"
PARAMETER stop <y> z
PARAMETER num_ctx 300
PARAMETER num_predict 6
PARAMETER num_gpu 1

SYSTEM """
You are "brief".
# no comment
"""
TEMPLATE "{{ .System }} Q: {{ .Prompt }}
A: {{ .Response }}"
MESSAGE user Hi
MESSAGE assistant "Hello."
LICENSE one
LICENSE """two
lines"""
REQUIRES 0.14.0
'''
SYSTEM = '\nYou are "brief".\n# no comment\n'
PARAMETERS = {
    "temperature": 0.0, "top_k": 3, "stop": ["<x>", "<y> z"], "num_ctx": 300, "num_predict": 6, "num_gpu": 1,
}  # fmt: skip


def test_everything_that_a_modelfile_can_say() -> None:
    for text in (FULL, FULL.replace("\n", "\r\n"), "\ufeff" + FULL):
        found = parse_modelfile(text)
        assert found == Modelfile(
            "./demo.gguf", PARAMETERS, SYSTEM, "{{ .System }} Q: {{ .Prompt }}\nA: {{ .Response }}",
            (("user", "Hi"), ("assistant", "Hello.")), ("one", "two\nlines"), (), "0.14.0",
        )  # fmt: skip
    assert parse_modelfile('FROM a\nSYSTEM """say "hi""""').system == 'say "hi"'


WRONG = {
    "": "names no model; expected a line such as FROM",
    "FROM a\n\nSYSTM x": "line 3: 'SYSTM' is no instruction; expected one of FROM, PARAMETER",
    "FROM": "line 1: what follows FROM is missing",
    "FROM a\nFROM b": "line 2: a second FROM",
    "FROM a\nPARAMETER": "line 2: the name of the parameter is missing",
    "FROM a\nPARAMETER top_k": "line 2: the value of top_k is missing",
    "FROM a\nPARAMETER top_k many": "line 2: top_k is 'many'; expected a whole number",
    "FROM a\nPARAMETER top_p 2": "line 2: top_p is 2.0; expected 0 to 1",
    "FROM a\nPARAMETER temperature nan": "line 2: temperature is 'nan'; expected a number",
    "FROM a\nPARAMETER temprature 1": "line 2: there is no parameter 'temprature'; expected one of temperature,",
    "FROM a\nPARAMETER num_ctx 0": "line 2: num_ctx is 0; expected 1 to",
    "FROM a\nMESSAGE narrator x": "line 2: the role of a message is 'narrator'; expected system, user, assistant",
    "FROM a\nMESSAGE user": "line 2: the text of the message is missing",
    'FROM a\nSYSTEM """x\ny': 'line 2: the text that begins with """ does not end',
    'FROM a\nSYSTEM "x': 'line 2: the text that begins with " does not end',
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        parse_modelfile(text)
    assert message in str(caught.value)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40).filter(
    lambda text: '"""' not in text and text.strip() == text
)


@given(system=TEXTS, template=TEXTS, content=TEXTS, stop=st.lists(TEXTS.filter(bool), max_size=2))
def test_a_written_modelfile_says_the_same(system: str, template: str, content: str, stop: list[str]) -> None:
    parameters: dict[str, Any] = {"temperature": 0.5, "top_k": 7, "use_mmap": True, **({"stop": stop} if stop else {})}
    model = Modelfile("x", parameters, system, template, (("user", content),), (content,))
    assert parse_modelfile(written(model, "said\nso")) == model


@given(
    st.text(max_size=80) | st.lists(st.sampled_from(["FROM ", "a", "\n", '"', '"""', "SYSTEM ", "#", " "])).map("".join)
)
def test_any_text_is_a_modelfile_or_an_error(text: str) -> None:
    with contextlib.suppress(StoreError):
        assert parse_modelfile(text).source


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the demo model, the Modelfile over it, and a store of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("LLAMACPU_OFFLINE", "1")
    monkeypatch.delenv("LLAMACPU_FOLDERS", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "demo.gguf").write_bytes(DEMO.read_bytes())
    (folder / "Modelfile").write_text(FULL, encoding="utf-8")
    return folder


def call(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command_line, list(arguments), input=stdin)


def test_create_list_show_copy_remove(store: Path) -> None:
    made = call("create", "mine", "-f", str(store / "Modelfile"))
    assert made.exit_code == 0, made.output
    assert "created mine" in made.stderr
    assert "have no effect here: num_gpu" in made.stderr
    assert "The file has a chat template, which is used" in made.stderr
    # The weights stay where they are; what is stored is small.
    assert sum(file.stat().st_size for file in (store.parent / "own").rglob("*") if file.is_file()) < 5000
    assert [row["name"] for row in json.loads(call("list", "--json").stdout)] == ["mine"]
    shown = json.loads(call("show", "mine", "--json").stdout)
    assert shown["path"] == str(store / "demo.gguf")
    assert shown["settings"] == PARAMETERS
    assert shown["system"] == SYSTEM
    assert shown["template_used"] == "the file's own (that of the Modelfile: --template modelfile)"
    assert shown["messages"] == [["user", "Hi"], ["assistant", "Hello."]]
    text = call("show", "mine", "--modelfile").stdout
    again = parse_modelfile(text)
    assert (again.parameters, again.system, again.source) == (PARAMETERS, SYSTEM, str(store / "demo.gguf"))
    assert call("show", "mine", "--system").stdout == SYSTEM
    assert '"<y> z"' in call("show", "mine", "--parameters").stdout
    assert call("show", "mine", "--license").stdout == "one\n\ntwo\nlines\n"
    # The Modelfile that is shown makes the model again, from stdin as well.
    assert call("create", "again", "-f", "-", stdin=text).exit_code == 0
    assert find("again").preset == find("mine").preset  # type: ignore[union-attr]
    assert call("cp", "mine", "other:v2").exit_code == 0
    assert call("rm", "mine", "again").exit_code == 0
    other = find("other:v2")
    assert other is not None
    assert other.preset.system == SYSTEM
    assert call("rm", "other:v2").exit_code == 0
    assert not any(file.is_file() for file in (store.parent / "own").rglob("*"))


def test_create_over_another_model(store: Path) -> None:
    put_ollama(
        store.parent / "ollama", "base", "latest", DEMO.read_bytes(), system=b"Old.", template=b"{{ .Prompt }}",
        params=json.dumps({"temperature": 0.5, "stop": ["a"]}).encode(), license=b"licence",
    )  # fmt: skip
    made = create("mine", parse_modelfile("FROM base\nPARAMETER top_k 5\nPARAMETER stop b\nSYSTEM New."), store)
    preset = made.preset
    assert preset.parameters == {"temperature": 0.5, "stop": ["b"], "top_k": 5}
    assert (preset.system, preset.template, preset.licenses) == ("New.", "{{ .Prompt }}", ("licence",))
    third = create("third", parse_modelfile("FROM mine\nMESSAGE user x"), store)
    assert third.preset.parameters == preset.parameters
    assert third.preset.messages == (("user", "x"),)
    assert parse_modelfile(text_of(third)).system == "New."


def test_what_cannot_be_created_changes_nothing(store: Path) -> None:
    (store / "weights").mkdir()
    (store / "weights" / "model.safetensors").write_bytes(b"x")
    (store / "bad.gguf").write_bytes(b"no")
    for text, message in {
        "FROM ./demo.gguf\nADAPTER ./lora.gguf": "there is no such file; expected a LoRA adapter",
        "FROM ./nosuch.gguf": "nosuch.gguf",
        "FROM nosuch": "nosuch is not on this machine",
        "FROM ./bad.gguf": "bad.gguf",
        "FROM ./weights": "safetensors have to be converted",
        'FROM ./demo.gguf\nTEMPLATE "{{ .Prompt | nosuch }}"': "column 14: the function nosuch is not supported",
    }.items():
        file = store / "Modelfile"
        file.write_text(text, encoding="utf-8")
        result = call("create", "mine", "-f", str(file))
        assert result.exit_code == 1, text
        assert message in result.stderr
        assert "Traceback" not in result.output
    assert call("create", "mine", "-f", str(store / "nosuch")).exit_code == 1
    assert call("create", "../mine", "-f", str(store / "Modelfile")).exit_code == 1
    assert not any(file.is_file() for file in (store.parent / "own").rglob("*"))


def created(folder: Path, text: str) -> str:
    create("mine", parse_modelfile(text), folder)
    return "mine"


def test_settings_apply_in_python(store: Path) -> None:
    name = created(store, "FROM ./demo.gguf\nPARAMETER temperature 0\nPARAMETER num_predict 4\nPARAMETER num_ctx 200")
    greedy = llamacpu.Sampling(temperature=0)
    with llamacpu.Model(str(DEMO)) as plain, llamacpu.Model(name) as model:
        assert model.session().context == 200
        expected = plain.generate("Hello", max_tokens=4, sampling=greedy).read().text
        assert model.generate("Hello").read().text == expected
        assert len(model.generate("Hello", max_tokens=9).read().tokens) == 9
        said = plain.chat([{"role": "user", "content": "Hi"}], max_tokens=4, sampling=greedy).content
        assert model.chat([{"role": "user", "content": "Hi"}]).content == said
        assert plain.preset == Preset()
    llm, other = llamacpu.Llama(name), llamacpu.Llama(str(DEMO))
    messages = [{"role": "user", "content": "Hi"}]
    assert llm.n_ctx() == 200
    assert llamacpu.Llama(name, n_ctx=100).n_ctx() == 100
    wanted = other.create_chat_completion(messages, temperature=0, max_tokens=4)
    found = llm.create_chat_completion(messages)
    assert found["choices"] == wanted["choices"]
    longer = llm.create_chat_completion(messages, max_tokens=8)
    assert longer["usage"]["completion_tokens"] > 4
    assert llm("Hello")["choices"] == other("Hello", temperature=0, max_tokens=4)["choices"]


def test_stops_apply_unless_the_call_has_its_own(store: Path) -> None:
    with llamacpu.Model(str(DEMO)) as model:
        text = model.chat([{"role": "user", "content": "Hi"}], sampling=llamacpu.Sampling(temperature=0)).content
    word = text.split()[1]
    name = created(store, f"FROM ./demo.gguf\nPARAMETER temperature 0\nPARAMETER stop {word}")
    with llamacpu.Model(name) as model:
        messages: Any = [{"role": "user", "content": "Hi"}]
        assert model.chat(messages).content == text.partition(word)[0].rstrip() + " "
        assert model.chat(messages, stop="\x00").content == text


def test_system_prompt_and_messages_stand_before(store: Path) -> None:
    name = created(store, "FROM ./demo.gguf\nSYSTEM Sys.\nMESSAGE user Old\nMESSAGE assistant Answer")
    with llamacpu.Model(name) as model:
        chat = Chat.of(model)
        bare = Chat(model.metadata, model.tokenizer)
        before = [{"role": "user", "content": "Old"}, {"role": "assistant", "content": "Answer"}]
        new = {"role": "user", "content": "New"}
        system = {"role": "system", "content": "Sys."}
        assert chat.render([new]) == bare.render([system, *before, new])
        other = {"role": "system", "content": "Other."}
        assert chat.render([other, new]) == bare.render([other, *before, new])
        # An answer that was begun goes on.
        begun = {"role": "assistant", "content": "We"}
        found = chat_prompt(chat, [new, begun], continue_last=True)
        assert found.ids == chat_prompt(bare, [system, *before, new, begun], continue_last=True).ids


def test_which_template_is_used(store: Path) -> None:
    name = created(store, 'FROM ./demo.gguf\nSYSTEM Sys.\nTEMPLATE "{{ .System }}|{{ .Prompt }}|{{ .Response }}"')
    messages = [{"role": "user", "content": "Hi"}]
    with llamacpu.Model(name) as model:
        assert Chat.of(model).name == "default"
        assert Chat.of(model, "modelfile").render(messages) == "Sys.|Hi|"
        metadata = {key: value for key, value in model.metadata.items() if "chat_template" not in key}
        alone = Chat(metadata, model.tokenizer, preset=model.preset)
        assert (alone.name, alone.render(messages)) == ("modelfile", "Sys.|Hi|")
    with (
        llamacpu.Model(str(DEMO)) as model,
        pytest.raises(TemplateError, match="there is no chat template 'modelfile'"),
    ):
        Chat.of(model, "modelfile")


def test_settings_apply_in_run(store: Path) -> None:
    text = "FROM ./demo.gguf\nPARAMETER temperature 0\nPARAMETER num_predict 5\nPARAMETER num_gpu 9\nSYSTEM Be kind."
    name = created(store, text)
    said = call("run", name, "Hi")
    expected = call("run", str(DEMO), "Hi", "-s", "Be kind.", "-n", "5", "--temperature", "0")
    assert (said.stdout, said.exit_code) == (expected.stdout, 0)
    assert said.stderr.count("have no effect here: num_gpu") == 1
    longer = json.loads(call("run", name, "Hi", "-n", "-1", "--json").stdout)
    assert longer["generated_tokens"] > 5
    # An empty system prompt takes the place of the one that came with the name.
    counts = [json.loads(call("run", name, "Hi", *more, "--json").stdout)["prompt_tokens"] for more in ((), ("-s", ""))]
    assert counts[1] < counts[0]


def test_settings_of_a_pulled_model_apply(store: Path) -> None:
    params = json.dumps({"temperature": 0, "num_predict": 3, "stop": [], "mirostat": "x", "nosuch": 1}).encode()
    put_ollama(store.parent / "ollama", "base", "latest", DEMO.read_bytes(), params=params, system=b"Be kind.")
    with llamacpu.Model("base") as model, llamacpu.Model(str(DEMO)) as plain:
        sampling = llamacpu.Sampling(temperature=0)
        wanted = plain.chat([{"role": "user", "content": "Hi"}], system="Be kind.", max_tokens=3, sampling=sampling)
        assert model.chat([{"role": "user", "content": "Hi"}]).content == wanted.content
        assert model.preset.without_effect == ["mirostat", "nosuch"]


def test_settings_apply_in_serve(store: Path) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("uvicorn")
    text = (
        'FROM ./demo.gguf\nPARAMETER temperature 0\nPARAMETER num_predict 5\nSYSTEM Be kind.\nTEMPLATE "{{ .Prompt }}"'
    )
    name = created(store, text)
    messages = [{"role": "user", "content": "Hi"}]
    with llamacpu.Model(str(DEMO)) as model:
        sampling = llamacpu.Sampling(temperature=0)
        wanted = model.chat(messages, system="Be kind.", max_tokens=5, sampling=sampling).content
        longer = model.chat(messages, system="Be kind.", max_tokens=9, sampling=sampling).content
    with llamacpu.serve(name) as url:

        def post(path: str, **body: Any) -> Any:
            return httpx.post(url + path, json={"model": name, "messages": messages, **body}, timeout=60).json()

        assert post("/api/chat", stream=False)["message"]["content"] == wanted
        assert post("/api/chat", stream=False, options={"num_predict": 9})["message"]["content"] == longer
        assert post("/v1/chat/completions")["choices"][0]["message"]["content"] == wanted
        assert post("/v1/chat/completions", max_tokens=9)["choices"][0]["message"]["content"] == longer
        shown = post("/api/show")
        assert shown["system"] == "Be kind."
        assert shown["template"] == "{{ .Prompt }}"
        assert shown["parameters"].split() == ["temperature", "0", "num_predict", "5"]
        assert parse_modelfile(shown["modelfile"]).system == "Be kind."
