"""`llamacpu run`: one answer to a prompt, or a conversation at the terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from llamacpu.cli import adapter_options, options
from llamacpu.cli.drawing.page import new_page, wanted
from llamacpu.cli.group import heed_verbosity
from llamacpu.cli.prompt import prompt_of
from llamacpu.cli.terminal import PictureBar, PromptBar, prepare, summary, write

if TYPE_CHECKING:
    from llamacpu.answers import Question
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.model import Model


@click.command("run", short_help="Chat with a model, or have it answer one prompt.")
@click.argument("model", required=False, type=str, shell_complete=options.complete_files)
@click.argument("words", nargs=-1, metavar="[PROMPT]...", callback=options.utf8)
@click.option(
    "-p", "--prompt", callback=options.utf8, help="Answer this prompt and exit; for prompts that begin with a dash."
)
@click.option(
    "-f",
    "--file",
    "prompt_files",
    multiple=True,
    shell_complete=options.complete_files,
    help="Append the text of this file ('-': stdin) to the prompt; may be repeated.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=options.complete_files,
    help="A picture to show to the model with the prompt; may be given several times.",
)
@click.option("-s", "--system", callback=options.utf8, help="The system prompt: how the model is to behave.")
@click.option(
    "-n", "--max-tokens", type=click.IntRange(min=-1), help="Maximum number of tokens in an answer; -1 means no limit."
)
@click.option(
    "--stop",
    multiple=True,
    callback=options.stop_texts,
    help="Stop generating at this text; may be repeated.",
)
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without a chat template.")
@click.option("--special", is_flag=True, help="With --raw: parse control tokens written in the prompt.")
@click.option(
    "--template",
    callback=options.utf8,
    help="Chat template: a built-in name, a name in the file, modelfile, Jinja source, or a template of Ollama.",
)
@click.option(
    "--reasoning-effort",
    type=click.Choice(["none", "minimal", "low", "medium", "high"]),
    help="How much a reasoning model thinks before it answers, if its chat template can tell it.",
)
@click.option(
    "--json-schema",
    callback=options.utf8,
    help="Constrain the answer to JSON that is valid under this schema: JSON text, or a file.",
)
@click.option("--grammar", "grammar_file", help="Constrain the answer to the GBNF grammar in this file.")
@click.option("--ignore-end", is_flag=True, help="Ignore the end-of-generation tokens of the model.")
@click.option(
    "--overflow",
    type=click.Choice(["error", "truncate", "shift"]),
    default="error",
    show_default=True,
    help="When the context is full: an error (a conversation drops its oldest turns), shorten the prompt, or forget "
    "the oldest half and go on.",
)
@options.sampling_options
@options.context
@options.threads
@options.priority
@options.duty
@options.mmproj
@options.image_tokens
@options.image_crops
@options.load
@options.overrides
@options.kv_type
@adapter_options.adapters
@options.draft_model
@options.no_draft
@options.as_json
@click.option(
    "--history/--no-history",
    "kept",
    default=True,
    help="Keep what is typed in a conversation, for the arrow keys and Ctrl-R in later ones. [default: history]",
)
@click.option("--plain", is_flag=True, help="Print the text as it is generated, without rendering Markdown.")
@click.option("--stats", is_flag=True, help="Show the speed on stderr after every answer.")
@click.option(
    "-v",
    "--verbose",
    count=True,
    is_eager=True,
    callback=heed_verbosity,
    help="Show the log and the speed on stderr; twice: the traceback of an error, too.",
)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Chat with MODEL (a name such as llama3.2, or a .gguf file), or have it answer one prompt.

    With PROMPT, --prompt, --file or text piped to stdin, the answer is printed and the command ends; several texts are
    joined in this order. Otherwise, at a terminal, a conversation starts; /help lists its commands. Without MODEL, the
    small demo model that comes with llamacpu is used; - in place of MODEL or PROMPT reads the prompt from stdin.

    A model that has no chat template and whose name is not that of a chat model continues the prompt as it is.

    --image gives a picture to a model with image input; in a conversation, drag the file into the message.

    The text is streamed. At a terminal, and after the answer of a chat model, the output ends with a newline; with
    --raw into a pipe or file, it is exactly the text of the model.
    """
    _name_default_model(context, given)
    _refuse_a_prompt_for_the_model(given)
    prompt = prompt_of(given)
    if given["raw"] and given["system"] is not None:
        raise click.UsageError("--system needs a chat template; leave out --raw, or write it into the prompt")
    if given["special"] and not given["raw"]:
        raise click.UsageError("--special needs --raw: in a chat the template alone decides about control tokens")
    if given["json_schema"] is not None and given["grammar_file"] is not None:
        raise click.UsageError("--json-schema and --grammar; give one of them")
    if given["images"] and given["raw"]:
        raise click.UsageError("--image needs a chat template, which has a place for pictures; leave out --raw")
    if given["images"] and prompt is None and not sys.stdin.isatty():
        raise click.UsageError("--image needs a prompt: give it after MODEL, with --prompt, --file or on stdin")
    if prompt is None and (given["as_json"] or given["raw"]):
        raise click.UsageError("--json and --raw need a prompt: give it after MODEL, with --prompt, --file or on stdin")
    from llamacpu.model import Model

    with (
        options.model_path(given["model"], given["context"], given["kv_type"]) as path,
        Model(
            path,
            given["threads"],
            load=given["load"],
            overrides=given["overrides"],
            mmproj=given["mmproj"],
            image_tokens=given["image_tokens"],
            image_crops=given["image_crops"],
            priority=given["priority"],
            duty=given["duty"],
            **adapter_options.opened(given["lora"], given["control_vectors"]),
        ) as model,
        options.draft_source(given["draft_model"], given["no_draft"], model, given["threads"], given["load"]) as draft,
    ):
        options.say_what_stays_on_disk(model)
        options.say_what_has_no_effect(model)
        raw = given["raw"] or _without_template(model, given)
        settings = _settings(model, given)
        how = {"overflow": given["overflow"], "draft": draft}
        session = model.session(given["context"], given["kv_type"])
        if prompt is None:
            from llamacpu.chat import Chat
            from llamacpu.cli.chat.conversation import Conversation
            from llamacpu.cli.chat.loop import interact

            drawn = drawing(given["plain"])
            template = None if raw else Chat.of(model, given["template"])
            system = given["system"]
            if template is not None:
                # The conversation handles the system prompt itself: it can show, change and clear it.
                system = template.preset.system if system is None else system
                template.preset = replace(template.preset, system=None)
            conversation = Conversation(
                session, settings, how, system, template, _stats(given), drawn, _variables(given)
            )
            conversation.images = list(given["images"])
            interact(conversation, given["kept"])
        else:
            _answer(session, prompt, settings, how, {**given, "raw": raw})


def drawing(plain: bool) -> bool:
    """Whether Markdown is rendered."""
    return not plain and wanted()


def _name_default_model(context: click.Context, given: dict[str, Any]) -> None:
    if context.get_parameter_source("model") is ParameterSource.DEFAULT_MAP:
        click.echo(f"No model named: using {given['model']}, as the configuration file says.", err=True)


def _refuse_a_prompt_for_the_model(given: dict[str, Any]) -> None:
    """Raise UsageError if the model argument is a sentence, that is, a prompt before which the model was left out."""
    name = given["model"]
    if name is None or len(name.split()) < 3 or given["words"] or Path(name).exists():
        return
    from llamacpu.errors import StoreError
    from llamacpu.store.local import find

    try:
        known = find(name) is not None
    except StoreError:
        known = False
    if not known:
        raise click.UsageError(
            f"{name[:60]!r} is no model; put the model before the prompt, or give the prompt with -p to ask the "
            "default model"
        )


def _without_template(model: Model, given: dict[str, Any]) -> bool:
    """Whether the model continues the prompt as it is for lack of a chat template; if so, one line says so."""
    from llamacpu.chat import is_base_model

    templated = given["template"] is not None or model.preset.template is not None
    if given["raw"] or templated or not is_base_model(model.metadata, Path(model.path).name):
        return False
    if given["system"] is not None:
        raise click.UsageError(
            "the model has no chat template, and so no place for --system; give --template, or write it into the prompt"
        )
    click.echo(
        "The model has no chat template: it continues the text, as with --raw; for a chat model give --template.",
        err=True,
    )
    return True


def _unlimited(model: Model, given: dict[str, Any]) -> int | None:
    """The `max_tokens` that means no limit, also if the settings of the model have one."""
    return None if model.preset.max_tokens is None else given["context"] or model.context_length


def _settings(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    sampling = {name: given[name] for name in options.SAMPLING_NAMES}
    limit = given["max_tokens"]
    return {
        "max_tokens": _unlimited(model, given) if limit == -1 else limit,
        "sampling": options.sampling_of(model.metadata, sampling, model.preset.sampling),
        "stop": given["stop"],
        "ignore_end": given["ignore_end"],
        "grammar": _grammar(given),
    }


def _grammar(given: dict[str, Any]) -> Grammar | None:
    """The grammar that constrains answers, if one was requested."""
    if given["json_schema"] is None and given["grammar_file"] is None:
        return None
    from llamacpu.constraints.grammar import Grammar

    if given["grammar_file"] is not None:
        return Grammar.gbnf(options.read_text(given["grammar_file"]))
    schema = given["json_schema"]
    return Grammar.json_schema(schema if schema.lstrip()[:1] in ("{", "t", "f") else options.read_text(schema))


def _question(session: Any, prompt: str, settings: dict[str, Any], given: dict[str, Any]) -> Question:
    from llamacpu.answers import chat_prompt, chat_question, raw_question

    if given["raw"]:
        return raw_question(session.model, prompt, parse_special=given["special"], **settings)
    from llamacpu.chat import Chat

    chat = Chat.of(session.model, given["template"])
    system = [] if given["system"] is None else [{"role": "system", "content": given["system"]}]
    images = {"images": list(given["images"])} if given["images"] else {}
    messages = [*system, {"role": "user", "content": prompt, **images}]
    context = session.context if given["overflow"] == "error" else None
    asked = chat_prompt(chat, messages, variables=_variables(given), context=context)
    return chat_question(chat, asked, reasoning=False, **settings)


def _variables(given: dict[str, Any]) -> dict[str, Any]:
    """The variables of the chat template."""
    effort = given["reasoning_effort"]
    return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}


def _answer(session: Any, prompt: str, settings: dict[str, Any], how: dict[str, Any], given: dict[str, Any]) -> None:
    from llamacpu.answers import answer

    question = _question(session, prompt, settings, given)
    page = new_page(not (given["raw"] or given["as_json"]) and drawing(given["plain"]))
    prepare(session.model)
    bar, pictures = PromptBar(), PictureBar()
    try:
        running = answer(session, question, on_prompt=bar, on_picture=pictures, **how)
        for piece in running.text():
            if not given["as_json"]:
                page.push(piece)
    finally:
        pictures.clear()
        bar.clear()
        if sys.stdout.isatty() or not given["raw"]:
            page.flush()
    result = running.result
    if given["as_json"]:
        document = {"model": Path(session.model.path).name, **result.as_dict()}
        write(json.dumps(document, ensure_ascii=False) + "\n")
    if _stats(given):
        click.echo(summary(result), err=True)
    if settings["grammar"] is not None and result.ended_by in ("max_tokens", "context"):
        _tell_cut(given, result.ended_by)


def _tell_cut(given: dict[str, Any], ended_by: str) -> None:
    """Raise ClickException for an answer that was cut before it satisfied its schema or grammar."""
    kept = "JSON" if given["json_schema"] is not None else "text of the grammar"
    cause, remedy = "the end of the context", "give a larger --context"
    if ended_by == "max_tokens":
        cause, remedy = f"--max-tokens {given['max_tokens']}", "give more"
    raise click.ClickException(f"the answer was cut by {cause} before the {kept} was complete; {remedy}")


def _stats(given: dict[str, Any]) -> bool:
    return bool(given["stats"] or given["verbose"])
