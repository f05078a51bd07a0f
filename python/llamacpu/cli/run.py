"""`llamacpu run`: one answer to a prompt, or a conversation at the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import markdown, options
from llamacpu.cli.terminal import PromptBar, prepare, summary, write

if TYPE_CHECKING:
    from llamacpu.answers import Question
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.model import Model


@click.command("run", short_help="Talk to a model, or let it answer one prompt.")
@click.argument("model", required=False, type=str)
@click.option("-p", "--prompt", callback=options.utf8, help="Answer this and exit.")
@click.option("-f", "--file", "prompt_file", help="Answer the text of this file ('-': stdin); after --prompt if both.")
@click.option("-s", "--system", callback=options.utf8, help="The system prompt: how the model is to behave.")
@click.option("-n", "--max-tokens", type=click.IntRange(min=-1), help="Most tokens of an answer; -1 is no limit.")
@click.option(
    "--stop",
    multiple=True,
    callback=options.stop_texts,
    help="End an answer at this text; may be given more than once.",
)
@click.option("--raw", is_flag=True, help="Continue the prompt as it is: no chat template.")
@click.option("--special", is_flag=True, help="With --raw: control tokens written in the prompt are meant as such.")
@click.option(
    "--template", callback=options.utf8, help="Chat template: a built-in name, a name in the file, or Jinja source."
)
@click.option(
    "--json-schema", callback=options.utf8, help="Answer with JSON valid under this schema: JSON text, or a file."
)
@click.option("--grammar", "grammar_file", help="Answer with a text of the GBNF grammar in this file.")
@click.option("--ignore-end", is_flag=True, help="Go on when the model wants to end.")
@click.option(
    "--overflow",
    type=click.Choice(["error", "truncate", "shift"]),
    default="error",
    show_default=True,
    help="When the context is full: an error, shorten the prompt, or forget the oldest half and go on.",
)
@options.sampling_options
@options.context
@options.threads
@options.load
@options.overrides
@options.kv_type
@options.draft_model
@options.no_draft
@options.as_json
@click.option("--plain", is_flag=True, help="Show the text as it comes, without drawing its Markdown.")
@click.option("--stats", is_flag=True, help="Show the speed on stderr after every answer.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log and the speed on stderr.")
def command(**given: Any) -> None:
    """Talk to MODEL (a .gguf file), or let it answer one prompt.

    With --prompt, --file or text piped to stdin the answer is printed and the command ends; at a terminal a
    conversation begins otherwise. Without MODEL the small demo model that comes with llamacpu is used.

    The text is printed as it comes. On a terminal, and after the answer of a chat model, the output ends with a
    line end; with --raw into a pipe or file it is the text of the model and nothing else.
    """
    prompt = _prompt(given)
    if given["raw"] and given["system"] is not None:
        raise click.UsageError("--system needs a chat template; leave out --raw, or write it into the prompt")
    if given["special"] and not given["raw"]:
        raise click.UsageError("--special needs --raw: in a chat the template alone decides about control tokens")
    if given["json_schema"] is not None and given["grammar_file"] is not None:
        raise click.UsageError("--json-schema and --grammar; give one of them")
    if prompt is None and (given["as_json"] or given["raw"]):
        raise click.UsageError("--json and --raw need a prompt: give --prompt, --file or text on stdin")
    if given["verbose"]:
        _show_log()
    from llamacpu.model import Model

    with (
        options.model_path(given["model"]) as path,
        Model(path, given["threads"], load=given["load"], overrides=given["overrides"]) as model,
        options.draft_source(given["draft_model"], given["no_draft"], model, given["threads"], given["load"]) as draft,
    ):
        settings = _settings(model, given)
        how = {"overflow": given["overflow"], "draft": draft}
        session = model.session(given["context"], given["kv_type"])
        if prompt is None:
            from llamacpu.cli.chat import interact
            from llamacpu.cli.conversation import Conversation

            drawn = not given["plain"] and markdown.wanted()
            interact(Conversation(session, settings, how, given["system"], given["template"], _stats(given), drawn))
        else:
            _answer(session, prompt, settings, how, given)


def _prompt(given: dict[str, Any]) -> str | None:
    """The text to answer; None for a conversation."""
    parts = []
    if given["prompt"] is not None:
        parts.append(given["prompt"])
    if given["prompt_file"] is not None:
        parts.append(options.read_text(given["prompt_file"]))
    if not parts and not sys.stdin.isatty():
        parts.append(options.read_text("-"))
        if not parts[0].strip() and not given["raw"]:
            raise click.UsageError("nothing on stdin; give --prompt, --file, or text on stdin")
    return "\n\n".join(parts) if parts else None


def _settings(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    sampling = {name: given[name] for name in options.SAMPLING_NAMES}
    limit = given["max_tokens"]
    return {
        "max_tokens": None if limit == -1 else limit,
        "sampling": options.sampling_of(model.metadata, sampling),
        "stop": given["stop"],
        "ignore_end": given["ignore_end"],
        "grammar": _grammar(given),
    }


def _grammar(given: dict[str, Any]) -> Grammar | None:
    """The grammar that answers keep to, if one was asked for."""
    if given["json_schema"] is None and given["grammar_file"] is None:
        return None
    from llamacpu.constraints.grammar import Grammar

    if given["grammar_file"] is not None:
        return Grammar.gbnf(options.read_text(given["grammar_file"]))
    schema = given["json_schema"]
    return Grammar.json_schema(schema if schema.lstrip()[:1] in ("{", "t", "f") else options.read_text(schema))


def _question(session: Any, prompt: str, settings: dict[str, Any], given: dict[str, Any]) -> Question:
    from llamacpu.answers import Question, chat_prompt, chat_question, text_prompt

    if given["raw"]:
        grammar, model = settings.pop("grammar"), session.model
        if grammar is not None:
            settings["logits_processors"] = (grammar.constraint(model.tokenizer, model.vocab_size),)
        ids = text_prompt(model.tokenizer, prompt, parse_special=given["special"]).ids
        return Question(prompt=ids, **settings)
    from llamacpu.chat import Chat

    chat = Chat.of(session.model, given["template"])
    system = [] if given["system"] is None else [{"role": "system", "content": given["system"]}]
    messages = [*system, {"role": "user", "content": prompt}]
    return chat_question(chat, chat_prompt(chat, messages), reasoning=False, **settings)


def _answer(session: Any, prompt: str, settings: dict[str, Any], how: dict[str, Any], given: dict[str, Any]) -> None:
    from llamacpu.answers import answer

    question = _question(session, prompt, settings, given)
    drawn = not (given["raw"] or given["plain"] or given["as_json"]) and markdown.wanted()
    page = markdown.Markdown(write) if drawn else None
    prepare(session.model)
    bar = PromptBar()
    try:
        running = answer(session, question, on_prompt=bar, **how)
        for piece in running.text():
            if page is not None:
                page.push(piece)
            elif not given["as_json"]:
                write(piece)
    finally:
        bar.clear()
        if page is not None:
            page.flush()
    result = running.result
    if given["as_json"]:
        document = {"model": Path(session.model.path).name, **result.as_dict()}
        write(json.dumps(document, ensure_ascii=False) + "\n")
    elif not result.text.endswith("\n") and (sys.stdout.isatty() or not given["raw"]):
        write("\n")
    if _stats(given):
        click.echo(summary(result), err=True)


def _stats(given: dict[str, Any]) -> bool:
    return bool(given["stats"] or given["verbose"])


def _show_log() -> None:
    import logging

    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    logging.getLogger("llamacpu").setLevel(logging.DEBUG)
