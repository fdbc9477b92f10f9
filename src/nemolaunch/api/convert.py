"""Convert a checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.errors import UsageError

log = logging.getLogger("nemolaunch")

VERIFY = ("full", "bits", "none")
Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]


@contextmanager
def _no_progress(what: str, total: int) -> Iterator[Advance]:
    yield lambda num_bytes: None


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: str | None = None,
    verify: str = "full",
    overwrite: bool = False,
    weights_only: bool = False,
    tokenizer: str | Path | None = None,
    config_from: str | Path | None = None,
    model_name: str | None = None,
    model_config_name: str | None = None,
    trust_remote_code: bool = False,
    tell: Callable[[str], None] = log.info,
    progress: Progress = _no_progress,
) -> dict[str, Any]:
    """Convert a checkpoint to another format, and verify the result against the source. Return the report.

    Args:
        source: a checkpoint, a run folder (for its newest checkpoint), or a Hugging Face id to download.
        output: the folder or file to write; it is written atomically.
        to: `hf`, `nemo2`, `bridge`, `megatron-lm`, `torch`, `meta`, `safetensors` or `dcp`; by default
            `nemo2` from hf, else `hf`.
        verify: `full` compares every bit, the configuration, the tokenizer and, if both models fit in memory, their
            logits; `bits` does not compare logits; `none` compares nothing.
        weights_only: drop the optimizer and other training state.
        tokenizer: folder of the tokenizer, if the checkpoint has none.
        config_from: folder with the model's configuration, for a source that contains only tensors.
        model_name: the NeMo class that the source's model must have.
        model_config_name: the NeMo configuration class whose sizes the source must have.
        trust_remote_code: run code in the tokenizer's folder, if it has any.
        tell: called with messages; they are logged at level INFO by default.
        progress: creates a progress display, given a label and the number of bytes to process.

    Raises:
        UsageError: the source cannot be converted to that format, or an option does not apply.
        NemolaunchError: the result differs from the source, or cannot be written.
    """
    from nemolaunch.checkpoint.convert.convert import convert as run
    from nemolaunch.checkpoint.convert.options import Options
    from nemolaunch.checkpoint.hf import hub
    from nemolaunch.checkpoint.storage.formats import detect, newest_of_run
    from nemolaunch.checkpoint.storage.publish import check_free

    # Read by torch at its first allocation. With huge pages, first access takes a fifth of the time
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if verify not in VERIFY:
        raise UsageError(f"verify must be one of {', '.join(VERIFY)}, not {verify!r}")
    if model_config_name and not model_name:
        raise UsageError("--model-config-name needs --model-name; use both or neither")
    if model_name and model_config_name:
        catalogue.conversion_classes(model_name, model_config_name)
    target_path = Path(output)
    check_free(target_path, overwrite=overwrite)  # before a download of many gigabytes
    folder = newest_of_run(hub.local_folder(str(source)))
    target = to or ("nemo2" if detect(folder) == "hf" else "hf")
    options = Options(
        overwrite=overwrite,
        verify=verify != "none",
        compare=partial(_compare, trust_remote_code) if verify == "full" else None,
        trust_remote_code=trust_remote_code,
        weights_only=weights_only,
        tokenizer=_path(tokenizer),
        config_from=_path(config_from),
        model_class=model_name,
        config_class=model_config_name,
    )
    return run(folder, target_path, target, options, say=tell, progress=progress)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _compare(trust_remote_code: bool, conversion: Any, source: Path, result: Path) -> Any:
    """Compare the logits of both models, if the conversion is between Hugging Face and a checkpoint of Megatron."""
    from nemolaunch.checkpoint.convert.conversion import ModelConversion
    from nemolaunch.checkpoint.storage.formats import detect, newest_of_run
    from nemolaunch.facts.interpreter import bridge_interpreter
    from nemolaunch.nemo2 import compare

    if not isinstance(conversion, ModelConversion):
        return None
    formats = {detect(source), detect(result)}
    if "hf" not in formats or not formats & {"nemo2", "bridge"}:
        return None
    hf, megatron = (result, source) if conversion.to == "hf" else (source, result)
    runner = compare.nemo() if "nemo2" in formats else compare.bridge(bridge_interpreter())
    numel = sum(info.numel for info in conversion.mapped.nemo.values())
    return compare.compare(
        hf,
        newest_of_run(megatron),
        conversion.config,
        numel,
        conversion.tokenizer,
        runner,
        trust_remote_code=trust_remote_code,
    )
