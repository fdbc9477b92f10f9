"""The only code that inspects the outside world: environment, disk, GPUs, data, tokenizer, earlier runs.

The results are passed on as plain values, so that checks and plans are functions of their arguments. Uses the
standard library only; even for terabytes of data, a few hundred bytes of each index are read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemolaunch.data import index_cache
from nemolaunch.data.blend import BlendSpec
from nemolaunch.data.old_index_caches import OldCache, old_caches
from nemolaunch.data.stream_spec import StreamSpec
from nemolaunch.data.validation_sets import HOLD_OUT, TRAIN_ON_ALL, named_path
from nemolaunch.facts.accounting import Accounting
from nemolaunch.facts.checkpoint import StartPoint, look_at_checkpoint
from nemolaunch.facts.cluster import Cluster, look_at_cluster
from nemolaunch.facts.container_engine import ContainerHost, Engine, container_host, look_at_engine
from nemolaunch.facts.data_files import DataFile, look_at_data
from nemolaunch.facts.dataset_words import read_blend, read_stream
from nemolaunch.facts.host import Host, look_at_host
from nemolaunch.facts.interpreter import Interpreter, look_at_interpreter
from nemolaunch.facts.partitions import Partition
from nemolaunch.facts.saved_values import SavedRun, saved_run
from nemolaunch.facts.setup_file import SetupFile, look_at_setup
from nemolaunch.facts.slurm_variables import submits_differently
from nemolaunch.facts.stream_sources import SourceFacts, look_at_stream
from nemolaunch.facts.submission import Submission, links_of, next_submission
from nemolaunch.facts.unfinished_data import UnfinishedData, look_at_unfinished
from nemolaunch.facts.upload_target import UploadTarget, look_at_upload
from nemolaunch.facts.validation_files import ValidationFiles, compared, look_at_validation
from nemolaunch.job import Job, Launch
from nemolaunch.job.env_presets import passed_names
from nemolaunch.job.images import is_file
from nemolaunch.run.folder import RunDir, read_json, step_of
from nemolaunch.system import webhook
from nemolaunch.system.path_hints import nearest
from nemolaunch.tokenizer.inspection import Tokenizer, look_at_tokenizer


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """What the run folder already contains.

    Attributes:
        error: why the folder cannot be created or written to, or None.
        free_bytes: free space on its file system; None if not known.
        last_checkpoint: newest complete checkpoint with training state, or None.
        next_step: optimizer steps done when it was saved.
        finished_step: steps of a run that has finished, or None.
        saved: what its plan says it was trained with.
    """

    folder: str
    error: str | None = None
    free_bytes: int | None = None
    last_checkpoint: str | None = None
    next_step: int = 0
    finished_step: int | None = None
    saved: SavedRun = field(default_factory=SavedRun)


@dataclass(frozen=True, kw_only=True)
class Image:
    """A container image in a file, and why it cannot be used. `instead`: the file that was probably meant."""

    path: str
    error: str | None = None
    instead: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All facts about the outside world.

    Attributes:
        validation: the validation sets, named or found beside the training data.
        split: the job's split or the default, with shares set to 0 that contain no document of some file.
        secrets: names of the secrets that are available.
        asked: the value of `--dataset-dir`, parsed.
        stream, sources: the same for a stream, and facts about each of its sources.
        index_dir: `--index-mapping-dir`, absolute.
        index_cache_dir: folder of the dataset's index caches: `index_dir`, or `cache/` next to the first file.
        index_cache_error: why the dataset's index cache cannot be written, or None.
        old_caches: index caches of these data that are not read any more.
        unfinished: runs of `nemolaunch tokenize` that are still filling the paths of the data.
        weights, resume: the checkpoints given by `--nemo-model` and `--resume`.
        partitions, accounting: of the Slurm cluster, if the job is for Slurm and the cluster can be queried.
        slurm_variables: environment variables that sbatch must not see, if the job is for Slurm.
        image: the container image if it is a file; None if it comes from a registry.
        setup: path of `--setup`, and why it cannot be used on this machine, or None.
        mounts_missing: sources of `--container-mounts` that do not exist on this machine.
        wandb_offline: whether W&B is set not to use the network.
        passed: variables of the shell that the job passes on by name (`--env NAME`) and that are set.
        exported: environment variables that affect how GPUs are used and that a job inherits.
        submission: what a batch script needs to know about this machine, if the job is for Slurm.
        interpreter: what would train with Megatron-Bridge, if the job runs in no container.
        container: what a container's command line needs to know about it, if the job runs in one here.
        engine: what runs that container.
        upload: whether the place that checkpoints are uploaded to can be used; None without `--upload`.
    """

    host: Host
    data: tuple[DataFile, ...]
    tokenizer: Tokenizer | None
    run: EarlierRun
    validation: tuple[ValidationFiles, ...] = ()
    split: str | None = None
    secrets: frozenset[str] = field(default=frozenset())
    asked: BlendSpec = field(default_factory=BlendSpec)
    stream: StreamSpec | None = None
    sources: tuple[SourceFacts, ...] = ()
    index_dir: str | None = None
    index_cache_dir: str | None = None
    index_cache_error: str | None = None
    old_caches: tuple[OldCache, ...] = ()
    unfinished: tuple[UnfinishedData, ...] = ()
    weights: StartPoint | None = None
    resume: StartPoint | None = None
    partitions: tuple[Partition, ...] = ()
    accounting: Accounting = field(default_factory=Accounting)
    slurm_variables: Mapping[str, str] = field(default_factory=dict)
    image: Image | None = None
    setup: SetupFile | None = None
    mounts_missing: tuple[str, ...] = ()
    wandb_offline: bool = False
    passed: frozenset[str] = field(default=frozenset())
    exported: Mapping[str, str] = field(default_factory=dict)
    submission: Submission | None = None
    interpreter: Interpreter | None = None
    container: ContainerHost | None = None
    engine: Engine | None = None
    upload: UploadTarget | None = None

    @property
    def data_files(self) -> tuple[DataFile, ...]:
        """All indexed files that the job reads: for training, then for validation sets."""
        return self.data + tuple(file for each in self.validation for file in each.files)


LONGEST_FILE_NAME = 255  # bytes, on every common file system
EXPORTED = (
    "NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
)  # fmt: skip
SECRET_NAMES = ("HF_TOKEN", "WANDB_API_KEY", webhook.VARIABLE)


def look(job: Job) -> Facts:
    """Gather the facts for a job. Never raises if something is missing: the checks report that."""
    streams = job.data.data_mode == "stream"
    stream = read_stream(job.data.dataset_dir) if streams else None
    sources = look_at_stream(stream, job.stream.text_key) if stream else ()
    asked = BlendSpec() if streams else read_blend(job.data.dataset_dir)
    sets = look_at_validation(job.data.validation_data, asked)
    data, split = look_at_data(asked, job.data.split or (TRAIN_ON_ALL if sets else HOLD_OUT))
    validation = compared(sets, data)
    held_out = tuple(file for each in validation for file in each.files)
    cache_dir = _index_cache_dir(job, data + held_out)
    resume, trusted = job.checkpoint.resume, job.model.trust_remote_code
    on_slurm, engine = job.launch.executor == "slurm", job.launch.engine
    cluster = look_at_cluster() if on_slurm else Cluster()
    return Facts(
        host=look_at_host(),
        data=data,
        validation=validation,
        split=split,
        tokenizer=_look_at_tokenizer(job, data),
        run=_look_at_run(job),
        secrets=secrets_here(netrc=engine is None),
        asked=asked,
        stream=stream,
        sources=sources,
        unfinished=look_at_unfinished(
            [*(path for _, path in asked.sources), *(named_path(w)[1] for w in job.data.validation_data)]
        ),
        index_dir=_index_dir(job),
        index_cache_dir=cache_dir,
        index_cache_error=_cannot_write(cache_dir) if cache_dir else None,
        old_caches=_old_caches(cache_dir, data + held_out) if cache_dir else (),
        upload=look_at_upload(job.checkpoint.upload) if job.checkpoint.upload else None,
        weights=look_at_checkpoint(job.model.nemo_model, trusted=trusted) if job.model.nemo_model else None,
        resume=None if resume in ("auto", "never") else look_at_checkpoint(resume, trusted=trusted),
        partitions=cluster.partitions,
        accounting=cluster.accounting,
        slurm_variables=submits_differently(os.environ) if on_slurm else {},
        image=_image(job.launch.container_image) if on_slurm or engine else None,
        setup=look_at_setup(job.launch.setup) if on_slurm and job.launch.setup else None,
        mounts_missing=_mounts_missing(job.launch) if on_slurm or engine else (),
        wandb_offline=_wandb_mode(job) in ("offline", "disabled", "dryrun"),
        passed=passed_here(job),
        exported={name: os.environ[name] for name in EXPORTED if name in os.environ},
        submission=_look_at_submission(job, data + held_out, sources),
        interpreter=look_at_interpreter(job) if job.launch.runtime is None else None,
        container=_look_at_container(job, data + held_out, sources),
        engine=look_at_engine(engine, job.launch.container_image) if engine else None,
    )


def _look_at_submission(
    job: Job, data: tuple[DataFile, ...], sources: tuple[SourceFacts, ...]
) -> Submission | None:
    if job.launch.executor != "slurm":
        return None
    return next_submission(run_folder(job), tuple(f.prefix for f in data), _stream_folders(sources))


def _look_at_container(
    job: Job, data: tuple[DataFile, ...], sources: tuple[SourceFacts, ...]
) -> ContainerHost | None:
    engine, image = job.launch.engine, job.launch.container_image
    if engine is None:
        return None
    return container_host(engine, image, links_of(tuple(f.prefix for f in data)), _stream_folders(sources))


def _stream_folders(sources: tuple[SourceFacts, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(folder for source in sources for folder in source.folders))


def _image(word: str) -> Image | None:
    """Return the container image if it is a file. Pyxis treats a name without a slash as a registry image."""
    if not is_file(word):
        return None
    path = os.path.abspath(os.path.expanduser(word))
    if not os.path.exists(path):
        instead = nearest(word)
        return Image(path=path, error="the file does not exist", instead=instead and os.path.abspath(instead))
    if not os.access(path, os.R_OK):
        return Image(path=path, error="it cannot be read")
    return Image(path=path)


def _mounts_missing(launch: Launch) -> tuple[str, ...]:
    sources = [mount.split(":")[0] for mount in launch.container_mounts]
    return tuple(s for s in sources if s.startswith("/") and "," not in s and not os.path.exists(s))


def _wandb_mode(job: Job) -> str:
    """Return W&B's mode as set by `--env`, else as exported."""
    given = [word.partition("=")[2] for word in job.launch.env if word.startswith("WANDB_MODE=")]
    return (given[-1] if given else os.environ.get("WANDB_MODE", "")).lower()


def passed_here(job: Job) -> frozenset[str]:
    """Return the variables that the job passes on by name and that are set in this shell."""
    return frozenset(name for name in passed_names(job.launch.env) if name in os.environ)


def secrets_here(netrc: bool = True) -> frozenset[str]:
    """Return the names of the secrets that are set.

    Args:
        netrc: whether the job can read ~/.netrc, in which `wandb login` stores W&B's key.
    """
    found = {name for name in (*SECRET_NAMES, "MLFLOW_TRACKING_URI") if os.environ.get(name)}
    if webhook.url_fault(os.environ.get(webhook.VARIABLE, "")):
        found.discard(webhook.VARIABLE)
    try:
        if netrc and "api.wandb.ai" in Path(os.environ.get("NETRC") or "~/.netrc").expanduser().read_text():
            found.add("WANDB_API_KEY")
    except (OSError, ValueError, RuntimeError):
        pass
    return frozenset(found)


def _index_cache_dir(job: Job, data: tuple[DataFile, ...]) -> str | None:
    """Return the folder of the index caches; None if there are no data files."""
    usable = next((f.prefix for f in data if not f.error), None)
    if usable is None:
        return None
    return _index_dir(job) or os.path.join(os.path.dirname(usable), index_cache.BESIDE)


def _old_caches(cache_dir: str, data: tuple[DataFile, ...]) -> tuple[OldCache, ...]:
    return old_caches(cache_dir, {f.prefix: f.digest for f in data if f.digest})


def _index_dir(job: Job) -> str | None:
    given = job.data.index_mapping_dir
    return os.path.abspath(os.path.expanduser(given)) if given else None


def _cannot_write(folder: str) -> str | None:
    """Return why a folder cannot be created or written to, or None."""
    if max(len(os.fsencode(part)) for part in folder.split(os.sep)) > LONGEST_FILE_NAME:
        return f"{folder[:60]}… contains a name longer than {LONGEST_FILE_NAME} bytes"
    existing = _existing(folder)
    if not os.path.isdir(existing):
        return f"{existing} is not a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} is not writable"
    return None


def _existing(path: str) -> str:
    """Return the path, or the closest ancestor that exists."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _free_bytes(folder: str) -> int | None:
    try:
        return shutil.disk_usage(_existing(folder)).free
    except (OSError, ValueError):
        return None


def _look_at_tokenizer(job: Job, data: tuple[DataFile, ...]) -> Tokenizer | None:
    source = job.model.hf_model_id
    if source is None:
        recorded = {str(f.tokenizer["name"]) for f in data if f.tokenizer and f.tokenizer.get("name")}
        if len(recorded) != 1:
            return None
        source = recorded.pop()
    return look_at_tokenizer(source, trust_remote_code=job.model.trust_remote_code)


def run_folder(job: Job) -> RunDir:
    """Return the run folder of a job: `--output-dir`, else `runs/EXPERIMENT` in the current folder."""
    folder = job.launch.output_dir or os.path.join("runs", job.launch.experiment)
    return RunDir(Path(os.path.abspath(os.path.expanduser(folder))))


def _look_at_run(job: Job) -> EarlierRun:
    run = run_folder(job)
    fault = _cannot_write(str(run.root))
    try:
        last = run.last_checkpoint() if run.checkpoints.is_dir() else None
    except OSError as error:
        last, fault = None, f"{run.checkpoints}: {error.strerror}"
    step = (read_json(run.finished) or {}).get("step")
    return EarlierRun(
        folder=str(run.root),
        error=fault,
        free_bytes=_free_bytes(str(run.root)),
        last_checkpoint=str(last) if last else None,
        next_step=step_of(last) + 1 if last else 0,
        finished_step=step if isinstance(step, int) else None,
        saved=saved_run(run),
    )
