"""The process in which NeMo converts: `python -m nemolaunch.nemo2.convert_worker`, started by `convert`.

It reads a job as JSON from stdin and writes JSON lines to stdout: `{"say": …}`, at last `{"error": …}` or
`{"done": …}`. Everything that NeMo, torch and transformers print goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint import agreement, families, hf
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.nemo2.megatron_import import skip_inference_allocator

Say = Callable[[str], None]
PR_SET_PDEATHSIG = 1


def import_hf(
    source: str,
    tokenizer: str,
    output: str,
    model_class: str,
    config_class: str | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Write the Hugging Face model in `source` as a NeMo 2 checkpoint.

    Args:
        source: folder with the model's files; its config.json states the type of the weights.
        tokenizer: folder with the tokenizer's files and no sub-folders.
        model_class: NeMo's class, "LlamaModel".
        config_class: NeMo's configuration that the source is said to have; checked, not used.

    Raises:
        NemolaunchError: NeMo's converter does not fit the model.
        UsageError: the source does not have the shape of `config_class`.
    """
    say("loading NeMo")
    _prepare()
    from nemo.collections import llm
    from nemo.lightning import io
    from transformers import AutoConfig

    from nemolaunch.nemo2 import connectors

    model = getattr(llm, model_class)
    importer = model.importer(f"hf://{source}")
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    with (
        connectors.tokenizer_from(Path(tokenizer)),
        connectors.whole_config_imported(type(importer), config),
        connectors.announced(say),
    ):
        if config_class:
            _check_shape(config_class, importer.config)
        say("reading the Hugging Face model")
        with connectors.every_tensor_mapped():
            importer.apply(Path(output))
    say("checking")
    _check_nemo2(Path(output))
    exporter = io.load_context(Path(output), subpath="model").exporter("hf", output)
    with connectors.embedding_rows_kept(type(exporter)), connectors.whole_config_exported(type(exporter)):
        returned = exporter.config.to_dict()
    if model_class in families.UNTIED:
        returned.pop("tie_word_embeddings", None)
    _check_agreement(config.to_dict(), returned)
    return {}


def export_hf(source: str, output: str, say: Say = print) -> dict[str, Any]:
    """Write the NeMo 2 checkpoint in `source` as a Hugging Face model folder.

    Raises `NemolaunchError` when NeMo has no exporter for it, or the exporter does not fit.
    """
    say("loading NeMo")
    _prepare()
    from nemo.lightning import io

    from nemolaunch.nemo2 import connectors

    model = io.load_context(Path(source), subpath="model")
    exporter = model.exporter("hf", source)
    with (
        connectors.embedding_rows_kept(type(exporter)),
        connectors.whole_config_exported(type(exporter)),
        connectors.output_layer_tied(if_equal=type(model).__name__ in families.UNTIED),
        connectors.contexts_fit_the_cpu(),
        connectors.announced(say),
        connectors.every_tensor_mapped(),
    ):
        exporter.apply(Path(output))
    say("writing the tokenizer")
    _write_tokenizer(model.tokenizer, Path(output))
    if getattr(model.config, "generation_config", None) is not None:
        model.config.generation_config.save_pretrained(output)
    hf.read_folder(Path(output))
    return {}


def _prepare() -> None:
    """Import NeMo so that it converts on this machine: with the CPU's layers where there is no GPU."""
    import importlib.util

    import torch

    skip_inference_allocator()
    if not torch.cuda.is_available():
        from nemolaunch.nemo2 import cpu

        cpu.install()
    elif importlib.util.find_spec("transformer_engine") is None:
        raise NemolaunchError(
            "on a GPU machine NeMo converts only with Transformer Engine, which is not installed. Convert in "
            "NVIDIA's container, or on the CPU with CUDA_VISIBLE_DEVICES=''."
        )


def _check_shape(config_class: str, found: Any) -> None:
    """Compare the sizes of a named configuration with those of the source."""
    from nemo.collections import llm

    named = getattr(llm, config_class, None)
    if named is None:  # a few are not re-exported
        import nemo.collections.llm.gpt.model as models

        named = getattr(models, config_class)
    sizes = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups")
    wrong = []
    for size in sizes:
        said, has = getattr(named, size), getattr(found, size)
        if size == "num_query_groups":  # not stated means as many as heads
            said, has = said or named.num_attention_heads, has or found.num_attention_heads
        if said != has:
            wrong.append(f"{size} {has} instead of {said}")
    if wrong:
        raise UsageError(
            f"--model-config-name {config_class} does not fit the source, which has {', '.join(wrong)}. "
            "Leave it out to have the configuration read from the source."
        )


def _check_agreement(expected: dict[str, Any], got: dict[str, Any]) -> None:
    if "text_config" in expected:  # only the language part of the model was converted
        expected = expected["text_config"]
    changed = agreement.disagreements(expected, got)
    if changed:
        raise NemolaunchError(
            "NeMo's configuration of this family cannot hold this model:\n"
            + "\n".join(f"  {line}" for line in changed)
        )


def _check_nemo2(folder: Path) -> None:
    from nemolaunch.startpoint import look_at_checkpoint

    error = look_at_checkpoint(str(folder)).error
    if error:
        raise NemolaunchError(f"NeMo wrote an unusable checkpoint: {error}")


def _write_tokenizer(tokenizer: Any, output: Path) -> None:
    """Put the checkpoint's own tokenizer files in the place of those transformers has rewritten."""
    origin = Path(str(getattr(getattr(tokenizer, "tokenizer", None), "name_or_path", "")))
    if origin.is_dir() and hf.tokenizer_files(origin):
        for file in hf.tokenizer_files(output):
            file.unlink()
        for file in hf.tokenizer_files(origin):
            shutil.copyfile(file, output / file.name)
    elif not hf.tokenizer_files(output):
        raise NemolaunchError(
            "the checkpoint's tokenizer could not be written; its context names no folder with it"
        )


def main() -> int:
    """Do the job on stdin."""
    if sys.platform == "linux":  # never outlive the command that removes what is half written
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)

    def say(text: str) -> None:
        print(json.dumps({"say": text}), file=replies)

    try:
        convert: Any = {"import": import_hf, "export": export_hf}[job["kind"]]
        result = convert(**job["arguments"], say=say)
        print(json.dumps({"done": result}), file=replies)
    except NemolaunchError as error:
        traceback.print_exc()
        print(json.dumps({"error": str(error), "usage": isinstance(error, UsageError)}), file=replies)
        return 1
    except Exception as error:
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())
        print(json.dumps({"error": message[:500], "internal": True}), file=replies)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
