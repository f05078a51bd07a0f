"""`llamacpu convert`: a checkpoint of transformers to a GGUF file."""

from __future__ import annotations

import click

from llamacpu.cli.download_bar import DownloadBar
from llamacpu.cli.terminal import write


class _ConversionBar(DownloadBar):
    _TEXT = "Converting"


@click.command("convert", short_help="Convert a checkpoint (safetensors) or a LoRA adapter to a GGUF file.")
@click.argument("source", type=str)
@click.option(
    "-o", "--output", type=click.Path(), help="Output file, or a folder for it.  [default: the current folder]"
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["auto", "f32", "f16", "bf16", "q8_0"]),
    help="Type of the matrices; auto: 16 bits as in the checkpoint.  [default: auto; f32 for an adapter]",
)
@click.option("--name", help="Name of the model in the file, instead of that in the model card.")
@click.option("--mmproj", is_flag=True, help="Convert the vision encoder instead of the language model.")
@click.option("--base", help="SOURCE is a LoRA adapter of PEFT, made for this model: a folder, a GGUF file or a name.")
@click.option("--target-model", help="SOURCE is a drafter, made for this model: a folder, a GGUF file or a name.")
def command(
    source: str,
    output: str | None,
    kind: str | None,
    name: str | None,
    mmproj: bool,
    base: str | None,
    target_model: str | None,
) -> None:
    """Convert SOURCE, the folder of a checkpoint (config.json, safetensors or PyTorch files, tokenizer) or its name on
    the Hugging Face Hub (owner/model), to a GGUF file, and print the path.

    The file is what llama.cpp's converter writes. Tensors are converted one at a time. Checkpoints in AWQ, GPTQ and FP8
    are unpacked.

    With --mmproj, the file holds the vision encoder and its projector, for the option of that name: of Llama 4,
    Gemma 3, Idefics 3, SmolVLM, Pixtral, Mistral Small 3.1, InternVL, Qwen 2, 2.5 and 3 VL, Qwen 3.5 and Muse
    Glimmer.

    Drafters for `--draft-model` (DFlash, EAGLE-3) have no tokenizer: their files get that of the model given by
    --target-model, of whose folder config.json and the tokenizer suffice. Gemma 4's assistant has its own.

    A folder with adapter_config.json is a LoRA adapter of PEFT and becomes an adapter for `--lora`; without --base it
    is converted for the base model that it names.
    """
    from llamacpu.tools.convert import convert
    from llamacpu.tools.convert_lora import convert_lora, is_adapter

    if sum((mmproj, base is not None, target_model is not None)) > 1:
        raise click.UsageError(
            "--mmproj is for checkpoints of models, --base for LoRA adapters, --target-model for drafters; give one of "
            "them."
        )
    download, bar = DownloadBar(), _ConversionBar()
    try:
        if base is not None or (not mmproj and target_model is None and is_adapter(source)):
            path = convert_lora(
                source, output, base=base, type=kind or "f32", name=name, on_progress=bar, on_download=download
            )
        else:
            path = convert(
                source,
                output,
                type=kind or "auto",
                name=name,
                mmproj=mmproj,
                target_model=target_model,
                on_progress=bar,
                on_download=download,
            )
    finally:
        download.clear()
        bar.clear()
    write(f"{path}\n")
