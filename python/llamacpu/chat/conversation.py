"""`Chat`: the chat format of one model, from messages to token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llamacpu import log
from llamacpu.chat.builtin import builtin, guess, is_builtin, source_of, speaks_of_chat
from llamacpu.chat.forms import Form, forms, missing
from llamacpu.chat.limits import Limits, TemplateLimit
from llamacpu.chat.ollama_template import OllamaTemplate, is_go_template
from llamacpu.chat.pictures import Marks, styles
from llamacpu.chat.segments import Segment
from llamacpu.chat.template import ChatTemplate
from llamacpu.chat.variables import completed, with_other_names
from llamacpu.engine.interfaces import preset_of
from llamacpu.errors import TemplateError
from llamacpu.locks import cached_property
from llamacpu.store.manifests import Preset

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.multimodal.vision import Vision
    from llamacpu.text.tokenizer import Tokenizer


_KEY = "tokenizer.chat_template"
_CONTROL, _UNKNOWN = 3, 2
_LEFT_OUT = {
    "calls": "calls of tools",
    "results": "results of tools",
    "system": "system messages",
    "text": "the text of messages that call tools",
    "tools": "tools on offer",
    "user": "messages of the user",
}


def templates_in(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates in a GGUF file by name; the main one is called "default". Empty templates are ignored."""
    found = {}
    if isinstance(metadata.get(_KEY), str) and metadata[_KEY]:
        found["default"] = metadata[_KEY]
    for key in metadata:
        if key.startswith(f"{_KEY}.") and isinstance(metadata[key], str) and metadata[key]:
            found.setdefault(key[len(_KEY) + 1 :], metadata[key])
    return found


def is_base_model(metadata: Mapping[str, Any], file_name: str = "") -> bool:
    """Whether nothing suggests that a model was trained to answer: no chat template, and no chat model's name."""
    return not templates_in(metadata) and not speaks_of_chat(metadata, file_name)


class Chat:
    """The chat format of a model: its chat templates, and the conversion of messages to token ids.

    `template` overrides the file's choice: the name of a built-in template, the name of a template in the file, Jinja
    source, or an Ollama template in Go's notation. By default the file's own template is used (or "tool_use" when
    tools are given and the file has one); for a file without a template, the built-in one that its tokens or its name
    indicate.

    `preset`: the settings that came with the name of the model. Its system prompt and messages precede every
    conversation; its template is used if the file has none, or if `template` is "modelfile".

    Raises TemplateError if `template` names nothing that exists.

    name    the template in use: "default", another name in the file, a built-in name, "modelfile" or "custom"
    stop    texts that end an answer, if the template is a built-in one
    vision  the vision encoder for pictures in messages; None for a model without one
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        tokenizer: Tokenizer,
        template: str | None = None,
        limits: Limits | None = None,
        preset: Preset | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.preset: Preset = preset or Preset()
        self.stop: tuple[str, ...] = ()
        self.vision: Vision | None = None
        self._metadata = metadata
        self._told: set[str] = set()
        sources = templates_in(metadata)
        # Where a checkpoint has none, llama.cpp's converter writes the name of a template of its own.
        sources = {name: source_of(builtin(text)) if is_builtin(text) else text for name, text in sources.items()}
        own = self.preset.template
        if own and (template == "modelfile" or (template is None and not sources)):
            self.name: str = "modelfile"
            sources = {"modelfile": own}
        elif template is None:
            if "default" not in sources and sources:
                sources["default"] = next(iter(sources.values()))
            self.name = "default" if sources else self._guess()
            if not sources:
                log.info("the file has no chat template; the built-in template %s is used", self.name)
        elif template in sources or is_builtin(template):
            self.name = template
        elif "{" in template:
            self.name, sources = "custom", {"custom": template}
        else:
            names = ", ".join(sorted(sources)) or "none"
            raise TemplateError(
                f"there is no chat template {template!r}: the file has {names}; expected one of these, the name of a "
                "built-in template, Jinja source or a template of Ollama"
            )
        if self.name not in sources:
            known = builtin(self.name)
            self.stop = known.stop
            sources = {self.name: source_of(known)}
        special = {"bos_token": self._text(tokenizer.bos), "eos_token": self._text(tokenizer.eos)}
        self.template: ChatTemplate | OllamaTemplate
        if self.name in ("custom", "modelfile") and is_go_template(sources[self.name]):
            self.template = OllamaTemplate(sources[self.name], name=self.name, limits=limits)
        else:
            self.template = ChatTemplate(sources[self.name], name=self.name, limits=limits, **special)
        self.tool_template: ChatTemplate | OllamaTemplate = self.template
        if self.name == "default" and "tool_use" in sources:
            self.tool_template = ChatTemplate(sources["tool_use"], name="tool_use", limits=limits, **special)

    def _guess(self) -> str:
        name, architecture = (str(self._metadata.get(f"general.{key}", "")) for key in ("name", "architecture"))
        return guess(name, self._has_token, architecture)

    @classmethod
    def of(cls, model: ModelLike, template: str | None = None) -> Chat:
        """The chat format of `model`."""
        chat = cls(model.metadata, model.tokenizer, template, preset=preset_of(model))
        chat.vision = getattr(model, "vision", None)
        return chat

    def __repr__(self) -> str:
        return f"<Chat {self.name!r} of {self.tokenizer!r}>"

    def _text(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.id_to_piece(token)

    def _has_token(self, text: str) -> bool:
        return self.tokenizer.token_to_id(text) is not None

    @cached_property
    def control_tokens(self) -> frozenset[str]:
        """The texts that the tokenizer recognizes as control tokens when it parses special tokens."""
        types = self._metadata.get("tokenizer.ggml.token_type")
        ids = set(self.tokenizer.eog)
        if types is not None:
            ids.update(int(i) for kind in (_CONTROL, _UNKNOWN) for i in (types == kind).nonzero()[0])
        special = (self.tokenizer.bos, self.tokenizer.eos, self.tokenizer.eot, self.tokenizer.unk)
        ids.update(token for token in special if token is not None)
        return frozenset(text for text in map(self.tokenizer.id_to_piece, sorted(ids)) if text)

    def template_for(self, tools: Sequence[Any] | None) -> ChatTemplate | OllamaTemplate:
        """The template used with these tools."""
        return self.tool_template if tools else self.template

    def render(
        self,
        messages: Iterable[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt as text; see `ChatTemplate.render`. Messages are adapted to the form that the template accepts."""
        return "".join(s.text for s in self.segments(messages, tools, add_generation_prompt, **variables))

    def segments(
        self,
        messages: Iterable[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        *,
        marks: Marks | None = None,
        **variables: Any,
    ) -> list[Segment]:
        """The prompt as segments for the tokenizer; see `ChatTemplate.segments`.

        marks: stand for pictures in the messages; each becomes a segment of its own, in the place that the template
        gives to the picture.

        Raises TemplateError if the template renders the conversation in none of its forms, or exceeds a limit.
        """
        template = self.template_for(tools)
        template.check()
        variables = with_other_names(variables, template)

        def run(form: Form, complete: bool = True) -> list[Segment]:
            return self._with_pictures(marks, template, partial(rendered, form), form.messages, complete)

        def rendered(form: Form, messages: Sequence[Any], control_tokens: Collection[str]) -> list[Segment]:
            return template.segments(
                messages,
                form.tools if "tools" in form.changes else form.tools or None,
                add_generation_prompt,
                control_tokens=control_tokens,
                **variables,
            )

        def text_of(found: Sequence[Segment]) -> str:
            return "".join(text for text, _ in found)

        error: TemplateError | None = None
        best: tuple[int, list[Segment], Form, set[str]] | None = None
        for form in forms(self.preset.before(list(messages)), tools or (), template.reads):
            if "words" in form.changes and best is not None:
                continue
            try:
                found = run(form)
            except TemplateLimit:
                raise
            except TemplateError as failed:
                error = error or failed
                continue
            lost = missing(form, text_of(found), lambda marked: text_of(run(marked, False)))
            if best is None or len(lost) < best[0]:
                best = len(lost), found, form, lost
            # If a template leaves out the text next to a call, no other form brings it back.
            if lost <= {"text"}:
                break
        if best is None:
            assert error is not None
            raise error
        self._tell(best[2], best[3])
        return completed(best[1]) if add_generation_prompt else best[1]

    def _with_pictures(
        self,
        marks: Marks | None,
        template: ChatTemplate | OllamaTemplate,
        render: Callable[[Sequence[Any], Collection[str]], list[Segment]],
        messages: Sequence[Any],
        complete: bool,
    ) -> list[Segment]:
        """Render messages whose pictures are marks, in the style in which the template shows most.

        complete: whether all pictures must be there
        """
        if marks is None:
            return render(messages, self.control_tokens)
        error: TemplateError | None = None
        best: list[Segment] | None = None
        for style in styles(marks, template.source):
            try:
                segments = render(style(messages), marks.control_tokens(self.control_tokens))
                segments = marks.marked(segments) if complete else segments
            except TemplateLimit:
                raise
            except TemplateError as failed:
                error = failed
                continue
            if marks.texts_shown(messages, segments):
                return segments
            best = best or segments
        if best is None:
            assert error is not None
            raise error
        return best

    def _tell(self, form: Form, lost: set[str]) -> None:
        """Warn once about everything that the template does not show as written."""
        told = []
        if "system" in form.changes:
            told.append("has no place for system messages; they are put before the user's")
        told += [f"leaves out {_LEFT_OUT[kind]}" for kind in sorted(lost)]
        for what in told:
            if what not in self._told:
                self._told.add(what)
                log.warning("the chat template %s", what)

    def encode(
        self,
        messages: Iterable[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[int]:
        """The prompt as token ids, with exactly one begin-of-text token if the model uses one.

        Control tokens are parsed only in the template's own text: text from messages, tools and variables stays text.
        """
        return self.encode_segments(self.segments(messages, tools, add_generation_prompt, **variables))

    def encode_segments(self, segments: Sequence[Segment], begun: bool = False) -> list[int]:
        """The token ids of a prompt given as segments. begun: they continue a prompt, and no start token is due."""
        tokenizer = self.tokenizer
        bos = tokenizer.bos
        ids: list[int] = []
        for text, special in segments:
            start = self._text(bos)
            if not ids and bos is not None and not begun:
                wanted = tokenizer.add_bos
                while special and start and text.startswith(start):
                    text, wanted = text[len(start) :], True
                if wanted:
                    ids.append(bos)
            if text:
                ids += tokenizer.encode(text, add_special=False, parse_special=special)
        return ids
