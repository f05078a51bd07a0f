"""Pictures of a conversation: found in the messages of a request, and put into the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.arguments import described
from llamacpu.chat.segments import Segment
from llamacpu.errors import ContextOverflow, PictureError

if TYPE_CHECKING:
    from llamacpu.chat import Chat
    from llamacpu.chat.pictures import Marks
    from llamacpu.engine.pictures import MixedTokens
    from llamacpu.multimodal.vision import Vision
    from llamacpu.pictures import Picture, PictureAccess, PictureLimits

__all__ = [
    "MEDIA_MARK",
    "PICTURES",
    "has_pictures",
    "marked_text",
    "prompt_ids",
    "prompt_with_pictures",
    "text_with_media",
    "text_with_pictures",
    "with_marks",
]

MEDIA_MARK = "<__media__>"
"""What stands for a picture in texts that clients of llama-server send and receive."""
_PLACE = re.compile(r"\[img-(\d{1,4})\]")
PICTURES = ("image_url", "input_image", "image")
"""The types of parts of messages that are pictures."""


def has_pictures(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a message has a part that is a picture, or a list of `images`."""
    return any(isinstance(one, Mapping) and (one.get("images") or any(_pictures_in(one))) for one in messages)


def _pictures_in(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    content = message.get("content")
    if isinstance(content, Mapping):
        content = [content]
    for part in content if isinstance(content, (list, tuple)) else ():
        if isinstance(part, Mapping) and part.get("type") in PICTURES:
            yield part


def with_marks(
    chat: Chat, messages: Sequence[Mapping[str, Any]], access: PictureAccess | None = None
) -> tuple[list[Mapping[str, Any]], list[Picture], Marks]:
    """The messages with a mark in place of each picture, the pictures in their order, and the marks.

    Parts of the type "image_url" and "input_image" (OpenAI) and "image" (Anthropic, transformers) are pictures, as are
    the `images` of a message (Ollama), which come before its text. access: which texts may name files and addresses.

    Raises PictureError for a model without image input, and for a picture that cannot be read; TypeError and
    ValueError for parts in another form.
    """
    from llamacpu.chat.pictures import Marks

    vision = _vision_of(chat)
    count = sum(len(one.get("images") or ()) + sum(1 for _ in _pictures_in(one)) for one in messages)
    vision.limits.check_count(count)
    marks = Marks(count, vision.placeholders, vision.separator)
    pictures: list[Picture] = []

    def mark(source: Any, where: str) -> str:
        pictures.append(_opened(source, where, access, vision.limits))
        return marks.mark(len(pictures) - 1)

    found: list[Mapping[str, Any]] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        images = message.get("images") or ()
        if isinstance(images, (str, bytes, Mapping)) or not isinstance(images, Sequence):
            raise TypeError(f"{where} has the images {described(images)}; expected a list")
        plain = {key: value for key, value in message.items() if key != "images"}
        if images or any(_pictures_in(message)):
            before = "".join(mark({"base64": one}, where) for one in images)
            plain["content"] = before + _text(message.get("content"), lambda part, at=where: mark(part, at))
        found.append(plain)
    return found, pictures, marks


def text_with_pictures(
    chat: Chat, segments: Sequence[Segment], images: Sequence[Any], context: int | None = None
) -> MixedTokens:
    """The ids of texts without messages, and pictures: each in place of its [img-0], [img-1], ..., or before all text.

    images: as those of a message (Ollama). Raises what `with_marks` and `prompt_with_pictures` raise.
    """
    from llamacpu.chat.pictures import Marks

    vision = _vision_of(chat)
    vision.limits.check_count(len(images))
    opened = [_opened({"base64": one}, "the request", None, vision.limits) for one in images]
    marks = Marks(len(images), vision.placeholders, vision.separator)
    placed: list[int] = []
    found: list[Segment] = []
    for segment in segments:
        pieces = _PLACE.split(segment.text)
        for place, piece in enumerate(pieces):
            number = int(piece) if place % 2 else -1
            if 0 <= number < len(images) and number not in placed:
                placed.append(number)
                found.append(Segment(marks.mark(number), False))
            elif piece:
                found.append(Segment(f"[img-{piece}]" if place % 2 else piece, segment.special))
    first = [Segment(marks.mark(number), False) for number in range(len(images)) if number not in placed]
    return prompt_with_pictures(chat, [*first, *found], opened, marks, context)


def text_with_media(chat: Chat, text: str, images: Sequence[Any], context: int | None = None) -> MixedTokens:
    """The ids of a text without messages, and pictures: one for each `MEDIA_MARK` of the text, in their order.

    images: as those of a message (Ollama). Raises ValueError unless there are as many marks, and what `with_marks` and
    `prompt_with_pictures` raise.
    """
    from llamacpu.chat.pictures import Marks

    vision = _vision_of(chat)
    vision.limits.check_count(len(images))
    texts = text.split(MEDIA_MARK)
    if len(texts) - 1 != len(images):
        raise ValueError(
            f"the prompt has {len(texts) - 1} times {MEDIA_MARK} for {len(images)} pictures; expected one for each"
        )
    opened = [_opened({"base64": one}, "the request", None, vision.limits) for one in images]
    marks = Marks(len(images), vision.placeholders, vision.separator)
    found: list[Segment] = []
    for number, piece in enumerate(texts):
        if piece:
            found.append(Segment(piece, True))
        if number < len(images):
            found.append(Segment(marks.mark(number), False))
    return prompt_with_pictures(chat, found, opened, marks, context)


def marked_text(
    chat: Chat,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    access: PictureAccess | None = None,
) -> str:
    """The prompt for messages as text, with `MEDIA_MARK` where the template puts a picture.

    Raises what `with_marks` and `Chat.segments` raise.
    """
    if not has_pictures(messages):
        return chat.render(messages, tools, **(variables or {}))
    messages, _, marks = with_marks(chat, messages, access)
    segments = chat.segments(messages, tools, marks=marks, **(variables or {}))
    return "".join(MEDIA_MARK if marks.number(one) is not None else one.text for one in segments)


def prompt_ids(
    chat: Chat,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    access: PictureAccess | None = None,
    **variables: Any,
) -> Sequence[int]:
    """The ids of the prompt for messages, as `Chat.encode`; a `MixedTokens` if there are pictures in them.

    Raises what `with_marks` and `prompt_with_pictures` raise.
    """
    if not has_pictures(messages):
        return chat.encode(messages, tools, **variables)
    messages, pictures, marks = with_marks(chat, messages, access)
    segments = chat.segments(messages, tools, marks=marks, **variables)
    return prompt_with_pictures(chat, segments, pictures, marks)


def _vision_of(chat: Chat) -> Vision:
    if chat.vision is None:
        raise PictureError(
            "there is a picture in the messages, and the model sees none; if it can, give the mmproj file that belongs "
            "to it (mmproj=..., --mmproj)"
        )
    return chat.vision


def _text(content: Any, mark: Any) -> str:
    """Content as a text with marks; texts that follow each other are on lines of their own, as in `history`."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = ""
    line = False
    for part in [content] if isinstance(content, Mapping) else content:
        if isinstance(part, Mapping) and part.get("type") in PICTURES:
            texts += mark(part)
            line = False
            continue
        text = part if isinstance(part, str) else None
        if isinstance(part, Mapping):
            text = part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise PictureError(f"a message has a part of the type {kind!r}; this model reads text and pictures only")
        texts += ("\n" if line else "") + text
        line = True
    return texts


def _opened(part: Any, where: str, access: PictureAccess | None, limits: PictureLimits) -> Picture:
    from llamacpu.pictures import read_picture
    from llamacpu.pictures.source import check_media_type, from_base64

    if isinstance(part.get("source"), Mapping) and isinstance(part["source"].get("media_type"), str):
        check_media_type(part["source"]["media_type"])
    source = part.get("image_url", part.get("source", part.get("image", part.get("url", part.get("path")))))
    text = part.get("base64")
    if isinstance(source, Mapping):  # {"url": ...}, or Anthropic's {"type": "base64", "data": ...}
        text = source.get("data", text)
        source = source.get("url")
    if isinstance(text, str) and source is None:
        named = text[:5].lower() == "data:"
        return read_picture(text, access, limits) if named else from_base64(text, limits)
    source = text if source is None else source  # bytes and paths among the `images`
    if source is None:
        raise ValueError(
            f"{where} has a picture without its data; expected "
            "{'type': 'image_url', 'image_url': {'url': 'data:image/jpeg;base64,...'}}"
        )
    return read_picture(source, access, limits)


def prompt_with_pictures(
    chat: Chat, segments: Sequence[Segment], pictures: Sequence[Picture], marks: Marks, context: int | None = None
) -> MixedTokens:
    """The ids of a prompt whose marks are replaced by the pictures' parts; no picture is encoded yet.

    Raises ContextOverflow for more tokens than `context`, PictureError and ModelError as `Vision.parts`.
    """
    from llamacpu.engine.pictures import MixedTokens

    vision = chat.vision
    assert vision is not None
    pieces: list[Any] = []
    for segment in segments:
        number = marks.number(segment)
        if number is None:
            parts: list[Any] = [segment]
        else:
            found = vision.parts(pictures[number], chat.tokenizer, number)
            parts = [Segment(part, True) if isinstance(part, str) else part for part in found]
        for part in parts:
            # What tokenizers see as one text is one text, as if the template had written all of it.
            last = pieces[-1] if pieces else None
            if isinstance(part, Segment) and isinstance(last, Segment) and part.special and last.special:
                pieces[-1] = Segment(last.text + part.text, True)
            else:
                pieces.append(part)
    ids: list[Any] = []
    texts: list[Segment] = []
    begun = False
    for piece in [*pieces, None]:
        if isinstance(piece, Segment):
            texts.append(piece)
            continue
        if texts:
            ids.append(chat.encode_segments(texts, begun=begun))
            texts, begun = [], True
        if piece is not None:
            ids.append(piece)
            begun = True
    prompt = MixedTokens(ids)
    if context is not None and len(prompt) > context:
        shown = sum(len(piece) for _, piece in prompt.pieces)
        raise ContextOverflow(
            f"the prompt has {len(prompt)} tokens, {shown} of them for {len(pictures)} pictures, and the context holds "
            f"{context}; use a larger context, fewer or smaller pictures (image_tokens=..., --image-tokens)"
        )
    return prompt
