"""A conversation with a model: its messages, the session that has read them, and the display of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.cli.chat.interrupts import stopping, unechoed
from llamacpu.cli.chat.preparing import Preparation
from llamacpu.cli.drawing.page import Page, new_page
from llamacpu.cli.terminal import PictureBar, PromptBar, one_line, summary, tell
from llamacpu.errors import Cancelled, LlamaCpuError, PictureError
from llamacpu.multimodal.sequences import followed_by

if TYPE_CHECKING:
    from llamacpu.answers import Question
    from llamacpu.chat import Chat
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation.result import GenerationResult

Message = dict[str, Any]
"""role and content, and the paths of the `images` that belong to it"""


class Conversation:
    """The messages so far, and the session that has read them."""

    def __init__(
        self,
        session: SessionLike,
        settings: dict[str, Any],
        how: dict[str, Any],
        system: str | None,
        chat: Chat | None,
        stats: bool,
        drawn: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a conversation. In a `with` block the model is read ahead.

        settings: keyword arguments of `chat_question`. how: keyword arguments of `answer`.
        chat: the chat format of the model; None if it only continues the text so far.
        drawn: whether Markdown is rendered. variables: variables of the chat template.
        """
        self.session: SessionLike = session
        self.settings = settings
        self.how = how
        self.system = system
        self.stats = stats
        self.drawn = drawn
        self.messages: list[Message] = []
        self.images: list[Path] = []
        """pictures that go with the next message"""
        self.result: GenerationResult | None = None
        self._chat = chat
        self._variables = variables
        self._preparation: Preparation | None = None

    def __enter__(self) -> Conversation:
        """Start reading the model and importing the modules that draw the answers."""
        self._preparation = Preparation(self.session.model, lambda: new_page(self.drawn))
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop reading the model."""
        if self._preparation is not None:
            self._preparation.close()

    def awaits_message(self) -> None:
        """Note that the user is typing: there is time to prepare what the first answer needs."""
        if self._preparation is not None:
            self._preparation.prompt_is_shown()

    def answer(self, text: str) -> None:
        """Answer a message; if the answer fails or Ctrl-C stops it before its first word, the message is forgotten."""
        text, dragged = self._pictures(text)
        images = [*self.images, *dragged]
        self.images = []
        if images and not self.sees:
            names = ", ".join(path.name for path in images)
            tell(f"The model sees no pictures and reads the text alone ({names}); --mmproj FILE gives it an encoder.")
            images = []
        self.messages.append({"role": "user", "content": text, **({"images": images} if images else {})})
        if images:
            names = ", ".join(path.name for path in images)
            tell(f"Shown to the model: {names}.")
        try:
            with unechoed():
                said = self._generate()
        except (Cancelled, KeyboardInterrupt):
            said = ""
        except (LlamaCpuError, ValueError, OverflowError, RuntimeError, MemoryError, ImportError) as error:
            self.messages.pop()
            tell(f"Error: {one_line(error)}")
            return
        if said:
            self.messages.append({"role": "assistant", "content": said})
        else:
            self.messages.pop()

    @property
    def sees(self) -> bool:
        """Whether the model sees pictures."""
        return self._chat is not None and self._chat.vision is not None

    def attach(self, typed: str) -> None:
        """Let pictures go with the next message: paths as a terminal writes them, or one path as it is.

        Raises PictureError for a file that is not a picture, ImportError without Pillow.
        """
        from llamacpu.cli.chat.dragged import dragged_pictures
        from llamacpu.pictures import read_picture

        if not self.sees:
            raise PictureError("the model sees no pictures; --mmproj FILE gives it a vision encoder")
        rest, found = dragged_pictures(typed)
        if rest:
            found = [Path(typed.strip("\"'")).expanduser().absolute()]
        for path in found:
            read_picture(path)
        self.images += found

    def resize(self, context: int) -> None:
        """Continue in a context of another size; the conversation so far is read again with the next message."""
        self.session = self.session.model.session(context, self.session.kv_type)

    def _pictures(self, text: str) -> tuple[str, list[Path]]:
        """The text without the paths of pictures in it, and these paths; the whole text for a model that sees none."""
        from llamacpu.cli.chat.dragged import dragged_pictures

        rest, found = dragged_pictures(text)
        return (rest if self.sees else text), found

    def _question(self, first: int = 0) -> Question:
        """The question for the model, without the messages before index `first`."""
        from llamacpu.answers import chat_prompt, chat_question, raw_question

        messages = self.messages[first:]
        if self._chat is None:
            text = "".join(message["content"] for message in messages)
            return raw_question(self.session.model, text, **self.settings)
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        prompt = chat_prompt(self._chat, [*system, *messages], variables=self._variables)
        return chat_question(self._chat, prompt, reasoning=False, **self.settings)

    def _fitting_question(self) -> Question:
        """The question for the model, without the oldest turns if the context has no room for all and an answer."""
        question = self._question()
        context = self.session.context
        limit = self.settings["max_tokens"]
        room = context // 4 if limit is None else min(limit, context // 4)
        if len(question.prompt) + room <= context or not self._drops_turns:
            return question
        shorter, dropped = self._without_oldest(0)
        if shorter is None:
            return question  # if the last message alone is too long, that is an error, and no turns must be lost
        tell(f"The context is full: {dropped} dropped.")
        return shorter

    @property
    def _drops_turns(self) -> bool:
        return bool(self.how.get("overflow", "error") == "error")

    def _without_oldest(self, said: int) -> tuple[Question | None, str]:
        """Forget the oldest turns until half of the context is free or only the last turn is left.

        Half, so that not every turn has to read the whole conversation again. said: number of tokens in the answer so
        far. Returns the shorter question and a phrase that says which turns were dropped; the question is None, and
        nothing is forgotten, if there is no turn to drop or dropping turns is not enough.
        """
        context = self.session.context
        starts = [place for place, message in enumerate(self.messages) if place and message["role"] == "user"]
        if not starts:
            return None, ""
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            if len(self._question(starts[middle]).prompt) + said <= context // 2:
                high = middle
            else:
                low = middle + 1
        shorter = self._question(starts[low])
        if len(shorter.prompt) + said >= context:
            return None, ""
        del self.messages[: starts[low]]
        return shorter, "the oldest turn is" if low == 0 else f"the oldest {low + 1} turns are"

    def _generate(self) -> str:
        if self._preparation is not None:
            with stopping(self._preparation.stop):
                self._preparation.wait()
        question = self._fitting_question()
        limit = self.settings["max_tokens"]
        page = new_page(self.drawn)
        told = []
        said = ""
        tokens: list[int] = []
        try:
            while True:
                said += self._part(question, page)
                assert self.result is not None
                tokens += self.result.tokens
                # A grammar cannot resume in the middle of its text.
                if self.result.ended_by != "context" or not self._drops_turns or self.settings["grammar"] is not None:
                    break
                shorter, dropped = self._without_oldest(len(tokens))
                if shorter is None:
                    break
                told.append(f"The context was full: {dropped} dropped, and the answer went on.")
                left = None if limit is None else limit - len(tokens)
                question = replace(shorter, prompt=followed_by(shorter.prompt, tokens), max_tokens=left)
        finally:
            page.flush()
        for line in told:
            tell(line)
        if self.result.ended_by == "context":
            tell("The context is full: the answer ends here; /set context N makes room.")
        if self.stats:
            tell(summary(self.result))
        return said

    def _part(self, question: Question, page: Page) -> str:
        """Generate and show the answer until it is complete or the context is full; returns its text."""
        from llamacpu.answers import answer

        bar, pictures = PromptBar(), PictureBar()
        said = ""
        running = answer(self.session, question, on_prompt=bar, on_picture=pictures, **self.how)
        with stopping(running.close):
            try:
                for piece in running.text():
                    page.push(piece)
                    said += piece
            finally:
                pictures.clear()
                bar.clear()
        self.result = running.result
        return said
