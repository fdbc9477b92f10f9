"""The only code that looks around: environment, disk, GPUs, data, tokenizer, earlier runs.

Everything found is passed on as plain values, so that checks and plans stay functions of what they are
given. Standard library only; a look at terabytes of data reads a few hundred bytes of each index.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch import blend
from nemolaunch.cluster import Partition, partitions
from nemolaunch.errors import NemolaunchError
from nemolaunch.fingerprint import tokenizer_digest
from nemolaunch.index import IndexFile
from nemolaunch.job import Job
from nemolaunch.rundir import RunDir
from nemolaunch.startpoint import StartPoint, look_at_checkpoint
from nemolaunch.submission import Submission, next_submission


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine this runs on. `gpus` holds one name per visible GPU."""

    name: str = "localhost"
    gpus: tuple[str, ...] = ()
    gpu_memory_bytes: int = 0
    num_cpus: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One `.bin/.idx` pair.

    Attributes:
        prefix: absolute path without `.bin`/`.idx`.
        source: the place of the path that it belongs to among those asked for.
        weight: blend weight of that path as given, or None.
        error: why it cannot be used, or None.
        split_tokens: tokens in the training, validation and test share.
        token_bytes: size of one token id on disk.
        tokenizer: what was recorded beside the data when it was made: `name`, `vocab_size`, …
        max_token_id: the largest id in it, where recorded.
    """

    prefix: str
    source: int = 0
    weight: float | None = None
    error: str | None = None
    num_sequences: int = 0
    num_documents: int = 0
    num_tokens: int = 0
    split_tokens: tuple[int, int, int] = (0, 0, 0)
    token_bytes: int = 0
    tokenizer: dict[str, Any] | None = None
    max_token_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The tokenizer a job names. `folder` is None while it is only an id on a hub.

    Attributes:
        digest: names its files, as `nemolaunch.fingerprint` does; None while there are none.
        model_config: the `config.json` beside it, where it is a whole model's folder.
    """

    source: str
    folder: str | None = None
    vocab_size: int | None = None
    digest: str | None = None
    model_config: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """What the run folder already holds.

    Attributes:
        error: why the folder could not be made or written into, or None.
        last_checkpoint: newest complete checkpoint with training state, or None.
        next_step: optimizer steps done when it was saved.
        finished_step: steps of a run that ended, or None.
        values: the resolved job of the earlier run, as `Job.values()` gave it, or None.
        blend: (weight or None, prefix) of its data, as Megatron got them.
    """

    folder: str
    error: str | None = None
    last_checkpoint: str | None = None
    next_step: int = 0
    finished_step: int | None = None
    values: dict[str, Any] | None = None
    architecture: dict[str, Any] | None = None
    blend: tuple[tuple[float | None, str], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that was seen.

    Attributes:
        split: the job's shares, without those that hold no document of some file.
        secrets: names of the secrets that are there.
        asked: what `--dataset-dir` names, before it was looked at.
        index_cache_error: why the dataset's index cache could not be written, or None.
        weights, resume: the checkpoints that `--nemo-model` and `--resume` name.
        partitions: of the Slurm cluster, where one can be asked and the job goes there.
        wandb_offline: whether W&B is told to keep to this machine.
        submission: what a batch script needs to know of this machine, where the job goes to Slurm.
    """

    host: Host
    data: tuple[DataFile, ...]
    tokenizer: Tokenizer | None
    run: EarlierRun
    split: str | None = None
    secrets: frozenset[str] = field(default=frozenset())
    cwd: str = "."
    asked: blend.Asked = field(default_factory=blend.Asked)
    index_cache_error: str | None = None
    weights: StartPoint | None = None
    resume: StartPoint | None = None
    partitions: tuple[Partition, ...] = ()
    wandb_offline: bool = False
    submission: Submission | None = None


LONGEST_FILE_NAME = 255  # bytes, on every common file system
SECRET_NAMES = ("HF_TOKEN", "WANDB_API_KEY")


def look(job: Job) -> Facts:
    """See what the job needs to know. Never raises for what is missing: the checks report that."""
    asked = blend.read(job.data.dataset_dir)
    data, split = _look_at_data(asked, job.data.split)
    resume = job.checkpoint.resume
    return Facts(
        host=look_at_host(),
        data=data,
        split=split,
        tokenizer=_look_at_tokenizer(job, data),
        run=_look_at_run(job),
        secrets=_secrets(),
        cwd=os.getcwd(),
        asked=asked,
        index_cache_error=_index_cache_error(job, data),
        weights=look_at_checkpoint(job.model.nemo_model) if job.model.nemo_model else None,
        resume=None if resume in ("auto", "never") else look_at_checkpoint(resume),
        partitions=partitions() if job.launch.executor == "slurm" else (),
        wandb_offline=os.environ.get("WANDB_MODE", "").lower() in ("offline", "disabled", "dryrun"),
        submission=_look_at_submission(job, data),
    )


def _look_at_submission(job: Job, data: tuple[DataFile, ...]) -> Submission | None:
    if job.launch.executor != "slurm":
        return None
    return next_submission(run_folder(job), tuple(f.prefix for f in data))


def _secrets() -> frozenset[str]:
    """Names of the secrets there are; W&B also takes its key from ~/.netrc, where `wandb login` leaves it."""
    found = {name for name in SECRET_NAMES if os.environ.get(name)}
    try:
        if "api.wandb.ai" in Path(os.environ.get("NETRC") or "~/.netrc").expanduser().read_text():
            found.add("WANDB_API_KEY")
    except (OSError, ValueError, RuntimeError):
        pass
    return frozenset(found)


def _index_cache_error(job: Job, data: tuple[DataFile, ...]) -> str | None:
    """Megatron writes its sample index to `--index-mapping-dir`, else to `cache/` beside each prefix."""
    folders = [os.path.join(os.path.dirname(f.prefix), "cache") for f in data if not f.error]
    if job.data.index_mapping_dir:
        folders = [os.path.abspath(os.path.expanduser(job.data.index_mapping_dir))]
    return next((fault for folder in folders if (fault := _cannot_write(folder))), None)


def _cannot_write(folder: str) -> str | None:
    """Why a folder could not be made or written into, or None."""
    if max(len(os.fsencode(part)) for part in folder.split(os.sep)) > LONGEST_FILE_NAME:
        return f"{folder[:60]}… has a name longer than {LONGEST_FILE_NAME} bytes"
    existing = folder
    while not os.path.lexists(existing) and os.path.dirname(existing) != existing:
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return f"{existing} is not a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} cannot be written"
    return None


def look_at_host() -> Host:
    """GPUs that this process may use (CUDA_VISIBLE_DEVICES counts), cores and memory."""
    names, memory_bytes = _gpus()
    return Host(
        name=socket.gethostname(),
        gpus=names,
        gpu_memory_bytes=memory_bytes,
        num_cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _gpus() -> tuple[tuple[str, ...], int]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (), 0
    rows = [line.rpartition(",") for line in answer.splitlines() if "," in line]
    if not rows:
        return (), 0
    names = [name.strip() for name, _, _ in rows]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        chosen = [part.strip() for part in visible.split(",")]
        chosen = chosen[: chosen.index("-1")] if "-1" in chosen else [c for c in chosen if c]
        names = [names[int(c)] if c.isdigit() and int(c) < len(names) else names[0] for c in chosen]
    memory = rows[0][2].strip()
    return tuple(names), int(memory) * 2**20 if memory.isdigit() else 0


VERSIONED = (
    "nemolaunch", "torch", "nemo_toolkit", "megatron-core", "nemo_run", "lightning", "transformers", "tokenizers",
    "transformer-engine", "numpy",
)  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Python's version and those of the libraries a run depends on, as far as they are installed here."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _look_at_data(asked: blend.Asked, split: str) -> tuple[tuple[DataFile, ...], str]:
    """The files, and the split without shares that are empty in one of them.

    Megatron looks for the first token of an empty share for ever (`GPTDataset._get_num_epochs`). Leaving
    one out moves the others' bounds, so that a second look may be needed.
    """
    places = [
        (place, weight, prefix)
        for place, (weight, path) in enumerate(asked.sources)
        for prefix in prefixes_of(path) or [os.path.abspath(path)]
    ]
    while True:
        files = tuple(
            dataclasses.replace(_look_at_prefix(prefix, split), source=place, weight=weight)
            for place, weight, prefix in places
        )
        shares = [part.strip() for part in split.split(",")]
        held_out = [i for i in range(1, min(len(shares), 3)) if _as_number(shares[i])]
        read = [f for f in files if not f.error and f.num_tokens]
        empty = {i for i in held_out if any(f.split_tokens[i] == 0 for f in read)}
        if not empty:
            return files, split
        split = ",".join("0" if i in empty else share for i, share in enumerate(shares))


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def prefixes_of(path: str) -> list[str]:
    """Absolute prefixes of all `.bin/.idx` pairs a path stands for: a folder, a prefix, or one of the files.

    A folder without pairs stands for its `preprocessed/` sub-folder, where `preprocess_data.sh` writes.
    """
    absolute = os.path.abspath(path)
    if os.path.isdir(absolute):
        for folder in (Path(absolute), Path(absolute, "preprocessed")):
            found = sorted(
                str(p.with_suffix("")) for p in folder.glob("*.idx") if p.with_suffix(".bin").exists()
            )
            if found:
                return found
        return []
    stem = absolute[:-4] if absolute.endswith((".bin", ".idx")) else absolute
    for candidate in (stem, stem + "_text_document"):
        if os.path.exists(candidate + ".idx"):
            return [candidate]
    return []


def _look_at_prefix(prefix: str, split: str) -> DataFile:
    try:
        with IndexFile(prefix) as index:
            shares = tuple(index.tokens_between(a, b) for a, b in split_bounds(split, index.num_sequences))
            train, validation, test = shares
            record = _record_beside(prefix)
            return DataFile(
                prefix=prefix,
                num_sequences=index.num_sequences,
                num_documents=index.num_documents,
                num_tokens=index.num_tokens,
                split_tokens=(train, validation, test),
                token_bytes=index.token_bytes,
                tokenizer=record.get("tokenizer") if record else None,
                max_token_id=_largest_id(record),
            )
    except NemolaunchError as error:
        return DataFile(prefix=prefix, error=str(error))


def _largest_id(record: dict[str, Any] | None) -> int | None:
    """The largest token id the data can hold: that of the tokenizer that made them."""
    made_by = (record or {}).get("tokenizer")
    largest = made_by.get("max_id") if isinstance(made_by, dict) else None
    return largest if isinstance(largest, int) else None


def _record_beside(prefix: str) -> dict[str, Any] | None:
    """The manifest that tokenising leaves beside the data: which tokenizer made it."""
    try:
        with open(prefix + ".manifest.json", encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def split_bounds(split: str, num_sequences: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last-but-one sequence of the training, validation and test share.

    The same rounding as Megatron's blended dataset builder: normalised cumulative shares times the
    number of sequences, rounded half to even. A malformed split counts as all training.
    """
    try:
        shares = [float(part) for part in split.split(",")]
    except ValueError:
        shares = [1.0]
    shares = [*shares, 0.0, 0.0][:3]
    if not math.isfinite(sum(shares)) or min(shares) < 0:
        shares = [1.0, 0.0, 0.0]
    total = sum(shares) or 1.0
    bounds, start, acc = [], 0, 0.0
    for share in shares:
        acc += share / total
        end = round(acc * float(num_sequences))
        bounds.append((start, end))
        start = end
    return bounds[0], bounds[1], bounds[2]


def _look_at_tokenizer(job: Job, data: tuple[DataFile, ...]) -> Tokenizer | None:
    source = job.model.hf_model_id
    if source is None:
        recorded = {str(f.tokenizer["name"]) for f in data if f.tokenizer and f.tokenizer.get("name")}
        if len(recorded) != 1:
            return None
        source = recorded.pop()
    return look_at_tokenizer(source)


def look_at_tokenizer(source: str) -> Tokenizer:
    """A tokenizer by folder or hub id; a hub id is looked up in the local cache only."""
    folder = os.path.abspath(os.path.expanduser(source))
    if not os.path.isdir(folder):
        cached = _cached_snapshot(source)
        if cached is None:
            if source.startswith((".", "/", "~")) or source.count("/") != 1:
                return Tokenizer(source=source, error=f"there is no folder {source}")
            return Tokenizer(source=source)
        folder = cached
    try:
        return Tokenizer(
            source=source,
            folder=folder,
            vocab_size=_vocab_size(Path(folder)),
            digest=tokenizer_digest(Path(folder)),
            model_config=_read_json(Path(folder, "config.json")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Tokenizer(source=source, folder=folder, error=f"{folder} holds no usable tokenizer: {error}")


def _cached_snapshot(hub_id: str) -> str | None:
    """Folder of the snapshot the Hugging Face cache holds for `main`, if it has a tokenizer."""
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    repository = cache / ("models--" + hub_id.replace("/", "--"))
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = repository / "snapshots" / revision
    return str(snapshot) if any(snapshot.glob("tokenizer*")) else None


def _vocab_size(folder: Path) -> int | None:
    """Number of entries including added tokens, as `len(tokenizer)`; None where only a library could tell."""
    path = folder / "tokenizer.json"
    if not path.exists():
        if not any(folder.glob("tokenizer*")) and not (folder / "vocab.json").exists():
            raise ValueError("no tokenizer.json, tokenizer.model or vocab.json")
        return None
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    vocab = content["model"]["vocab"]
    names = set(vocab) if isinstance(vocab, dict) else {entry[0] for entry in vocab}
    names.update(token["content"] for token in content.get("added_tokens", ()))
    config = folder / "tokenizer_config.json"
    if config.exists():
        with open(config, encoding="utf-8") as file:
            added = json.load(file).get("added_tokens_decoder", {})
        names.update(token["content"] for token in added.values())
    return len(names)


def run_folder(job: Job) -> RunDir:
    """Where the job's run lives: `--output-dir`, else `runs/EXPERIMENT` under the current folder."""
    folder = job.launch.output_dir or os.path.join("runs", job.launch.experiment)
    return RunDir(Path(os.path.abspath(os.path.expanduser(folder))))


def _look_at_run(job: Job) -> EarlierRun:
    from nemolaunch.rundir import step_of

    run = run_folder(job)
    fault = _cannot_write(str(run.root))
    try:
        last = run.last_checkpoint() if run.checkpoints.is_dir() else None
    except OSError as error:
        last, fault = None, f"{run.checkpoints}: {error.strerror}"
    plan = _read_json(run.plan) or {}
    step = (_read_json(run.finished) or {}).get("step")
    values, architecture, pairs = plan.get("values"), plan.get("architecture"), plan.get("blend")
    return EarlierRun(
        folder=str(run.root),
        error=fault,
        last_checkpoint=str(last) if last else None,
        next_step=step_of(last) + 1 if last else 0,
        finished_step=step if isinstance(step, int) else None,
        values=values if isinstance(values, dict) else None,
        architecture=architecture if isinstance(architecture, dict) else None,
        blend=tuple((weight, prefix) for weight, prefix in pairs) if pairs else None,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
