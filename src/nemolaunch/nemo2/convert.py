"""Convert checkpoints between Hugging Face and NeMo 2, whole or not at all.

NeMo's own importers and exporters do the work, in a process of their own: it keeps what they print out of
the way, gives all memory back, and leaves this process free of NeMo. On a machine without a GPU the CPU's
layers stand in for Transformer Engine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemolaunch import facts
from nemolaunch.checkpoint import families, hf
from nemolaunch.checkpoint.publish import check_apart, check_free, explain_os_error, publishing
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.startpoint import look_at_checkpoint

Say = Callable[[str], None]

# A launcher's variables would have Lightning wait for other ranks of a job that is not this one.
LAUNCHER_PREFIXES = ("SLURM_", "PMI_", "PMIX_", "OMPI_", "TORCHELASTIC_")
LAUNCHER_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
SETTINGS = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}

# Measured on 254M parameters: peak memory over the size of the bf16 weights.
MEMORY_FACTOR = {"import": 1.4, "export": 2.5}


def _silent(text: str) -> None:
    pass


def convert_hf_to_nemo2(
    source: Path,
    output: Path,
    *,
    model_class: str | None = None,
    config_class: str | None = None,
    overwrite: bool = False,
    say: Say = _silent,
    log: Path | None = None,
) -> None:
    """Write the Hugging Face model folder `source` as the NeMo 2 checkpoint `output`.

    Args:
        model_class: NeMo's class, "LlamaModel". The source tells it by itself; if given, it is checked.
        config_class: NeMo's configuration, "Llama32Config1B"; likewise.
        overwrite: replace `output` if it is a checkpoint already.
        say: is called with one line per step.
        log: where to keep what NeMo prints; else it is kept, in a temporary file, only after a failure.

    Raises:
        UsageError: the source is no model, the output exists, or a named class does not fit.
        NemolaunchError: a damaged source, a family NeMo cannot convert here, a failed conversion. Nothing is
            left at `output`.
    """
    source = source.expanduser().absolute()
    output = output.expanduser().absolute()
    check_free(output, overwrite=overwrite)
    check_apart(source, output)
    model = hf.read_folder(source)
    model_class = families.model_class(model.model_type, model_class, gpu=_has_gpu())
    say(f"{model.model_type} → {model_class}, {_size(model.weights)} of weights")
    dtype = model.dtype
    if dtype is None or dtype not in hf.DTYPES.values():
        raise NemolaunchError(
            f"{source / 'config.json'}: the type of the weights ({dtype or 'not stated'}) is none of "
            f"{', '.join(hf.DTYPES.values())}"
        )
    with _writing(output, overwrite) as (new, work):
        _stage(model, dtype, work)
        arguments = {
            "source": str(work / "source"),
            "tokenizer": str(work / "tokenizer"),
            "output": str(new),
            "model_class": model_class,
            "config_class": config_class,
        }
        _run({"kind": "import", "arguments": arguments}, model.weights, say, log)
    say(f"{output} is written")


def convert_nemo2_to_hf(
    source: Path, output: Path, *, overwrite: bool = False, say: Say = _silent, log: Path | None = None
) -> None:
    """Write the NeMo 2 checkpoint `source` as the Hugging Face model folder `output`.

    Arguments and errors as of `convert_hf_to_nemo2`. The weights keep the type and the rows of the
    embedding that the checkpoint has; training state is not part of the result.
    """
    source = source.expanduser().absolute()
    output = output.expanduser().absolute()
    if source.name == "weights" and (source.parent / "context").is_dir():
        source = source.parent
    check_free(output, overwrite=overwrite)
    check_apart(source, output)
    found = look_at_checkpoint(str(source))
    if found.error:
        raise UsageError(f"{source}: {found.error}")
    _check_whole(source)
    if found.model_class:
        families.check_device(found.model_class, gpu=_has_gpu())
    weights = tuple((source / "weights").glob("*.distcp"))
    say(f"{found.model_class or 'NeMo 2 checkpoint'} → Hugging Face, {_size(weights)} on disk")
    with _writing(output, overwrite) as (new, _):
        _run({"kind": "export", "arguments": {"source": str(source), "output": str(new)}}, weights, say, log)
    say(f"{output} is written")


def _check_whole(checkpoint: Path) -> None:
    """Refuse what is a NeMo 2 checkpoint but not a model of its own."""
    weights = checkpoint / "weights"
    if (weights / "adapter_metadata.json").is_file():
        raise UsageError(
            f"{checkpoint} holds a LoRA adapter; merge it into its base model first (llm.peft.merge_lora)"
        )
    if (weights / "modelopt_state").exists():
        raise UsageError(f"{checkpoint} is quantised by ModelOpt; export it with NeMo's own llm.export_ckpt")


@contextlib.contextmanager
def _writing(output: Path, overwrite: bool) -> Any:
    """The new folder's name, and a folder for what is needed meanwhile; disk errors become one line."""
    try:
        with publishing(output, overwrite=overwrite) as new:
            yield new, new.parent
    except OSError as error:
        raise explain_os_error(error, f"writing {output}") from error


def _stage(model: hf.HfFolder, dtype: str, work: Path) -> None:
    """A view of the source that NeMo's importers can take.

    Links to the weights, only the tokenizer's own files (NeMo copies the folder and stumbles over
    sub-folders), and a config.json that states the type of the weights.
    """
    hf.copy_tokenizer(model.path, work / "tokenizer")
    shutil.copytree(work / "tokenizer", work / "source")
    for weights in model.weights:
        (work / "source" / weights.name).symlink_to(weights.resolve())
    for name in (*hf.WEIGHT_INDEXES, "generation_config.json"):
        if (model.path / name).is_file():
            shutil.copyfile(model.path / name, work / "source" / name)
    config = {**model.config, "torch_dtype": dtype}
    config.pop("dtype", None)
    (work / "source" / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _run(job: dict[str, Any], weights: tuple[Path, ...], say: Say, log: Path | None) -> None:
    """Do the job in a process of its own; its output goes to the log. Raises `NemolaunchError` if it
    fails."""
    if log is None:
        handle, name = tempfile.mkstemp(prefix="nemolaunch-convert-", suffix=".log")
        os.close(handle)
    path = Path(name) if log is None else log
    with open(path, "wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "nemolaunch.nemo2.convert_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            env=_environment(),
            start_new_session=True,
        )
    try:
        report = _listen(process, job, say)
    finally:
        with contextlib.suppress(ProcessLookupError):  # with it goes what the checkpoint writer has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if "done" in report:
        if log is None:
            path.unlink()
        return
    raise _failure(report, process.returncode, job["kind"], weights, path)


def _listen(process: subprocess.Popen[str], job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Pass on what the worker says until it has ended; returns its last word."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(job))
        process.stdin.close()
    report: dict[str, Any] = {}
    for line in process.stdout:
        report = json.loads(line)
        if "say" in report:
            say(report["say"])
        else:
            break
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    return report


def _failure(
    report: dict[str, Any], code: int | None, kind: str, weights: tuple[Path, ...], log: Path
) -> NemolaunchError:
    if "error" in report:
        error = UsageError if report.get("usage") else NemolaunchError
        prefix = "the conversion failed: " if report.get("internal") else ""
        return error(f"{prefix}{report['error']}\nThe log is {log}")
    needed = sum(file.stat().st_size for file in weights) * MEMORY_FACTOR[kind] / 2**30
    how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
    return NemolaunchError(
        f"the conversion {how}. If memory ran out: it holds both models at once, here about {needed:.1f} GiB."
        f"\nThe log is {log}"
    )


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(LAUNCHER_PREFIXES) and name not in LAUNCHER_NAMES
    }
    return {**kept, **SETTINGS}


def _has_gpu() -> bool:
    return bool(facts.look_at_host().gpus)


def _size(files: tuple[Path, ...]) -> str:
    total = sum(file.stat().st_size for file in files)
    return f"{total / 2**30:.1f} GiB" if total >= 2**30 else f"{total / 2**20:.1f} MiB"
