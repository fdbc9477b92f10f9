"""What a user asks for: the one definition from which flags, YAML keys and plans are made.

Every field carries its command-line form, so `cli/flags.py` and `--config` need no list of their own.
`None` means "not given": the model's recipe or the plan decides. Nothing here looks at the machine.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.job.fields import FieldSpec, flag


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how the job runs."""

    executor: str = flag("local", "where to run", choices=("local", "slurm"))
    experiment: str = flag("pretraining", "names the run folder; letters, digits, '.', '_', '-'", short="-E")
    output_dir: str | None = flag(None, "run folder (default: runs/EXPERIMENT)", metavar="DIR")
    num_nodes: int = flag(1, "nodes", short="-N")
    num_gpus: int | None = flag(
        None,
        "processes per node (default: all visible GPUs, else what the parallelism needs on the CPU)",
        short="-G",
        aliases=("--gpus-per-node",),
    )
    account: str = flag("root", "Slurm account", short="-A")
    partition: str = flag("defq", "Slurm partition", short="-P")
    container_image: str = flag(
        "nvcr.io/nvidia/nemo:26.02",
        "container on Slurm; none: run in this environment",
        short="-I",
        metavar="IMAGE",
    )
    container_mounts: tuple[str, ...] = flag(
        (), "further SRC:DST mounts of the container, besides the job's own paths", metavar="SRC:DST"
    )
    time: str | None = flag(
        None, "Slurm time limit of one job, e.g. 3-00:00:00 (default: the partition's, else 1-00:00:00)"
    )
    device: str = flag(
        "auto", "what trains; auto: the GPU on Slurm or where one is visible", choices=("auto", "gpu", "cpu")
    )
    launcher: str = flag(
        "srun",
        "who starts the ranks on Slurm: one srun task each, or torchrun on each node",
        choices=("srun", "torchrun"),
    )
    detach: bool = flag(False, "leave the Slurm job to itself once it is submitted")
    chain: bool = flag(True, "let each Slurm job queue the next one, until the last step is done")
    max_failures: int = flag(
        3,
        "end the chain after this many consecutive attempts without a new checkpoint",
        aliases=("--give-up-after",),
    )
    exit_margin: int | None = flag(
        None,
        "save and exit this long before the time limit (default: twice the longest save, at least 2 minutes)",
        aliases=("--leave-before",),
        metavar="SECONDS",
    )
    qos: str | None = flag(None, "Slurm quality of service")
    gres: str | None = flag(
        None, "Slurm generic resources of a node instead of --gpus-per-node; none: ask for none"
    )
    constraint: str | None = flag(None, "Slurm features that the nodes must have")
    exclude: str | None = flag(None, "nodes to leave out", metavar="NODES")
    reservation: str | None = flag(None, "Slurm reservation")
    comment: str | None = flag(None, "comment of the Slurm job")
    dependency: str | None = flag(
        None, "start once other Slurm jobs have ended, e.g. afterok:1234", metavar="WHEN:JOB"
    )
    array: str | None = flag(None, "run as a chain of array tasks, e.g. 1-10%1", metavar="RANGE")
    sbatch: tuple[str, ...] = flag((), "any other option of sbatch, without its dashes", metavar="KEY=VALUE")
    network_interface: str | None = flag(
        None, "interface over which the nodes talk, e.g. hsn0 (sets NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME)"
    )
    env_preset: tuple[str, ...] = flag(
        (),
        "environment of a known network or need: slingshot, efa, gb200, save-memory, fused-attention, "
        "deterministic, debug",
        metavar="NAME",
    )
    env: tuple[str, ...] = flag((), "further variables of the training processes", metavar="NAME=VALUE")
    preset: str | None = flag(
        None,
        "flags measured for a model on a GPU: a shipped name, or a YAML file; flags and --config win",
        metavar="NAME",
    )
    gpu: str | None = flag(
        None,
        "GPU to estimate memory and time for, e.g. h200 (default: the one seen here, else h100)",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained, and from which weights."""

    model_name: str = flag(
        "",
        "NeMo 2 recipe, shipped flavour, custom YAML file, or hf: the architecture of --hf-model-id (required)",
        short="-M",
        aliases=("--model",),
    )
    hf_model_id: str | None = flag(
        None,
        "tokenizer: Hugging Face id or local folder (default: the one recorded beside the data)",
        aliases=("--tokenizer",),
    )
    nemo_model: str | None = flag(
        None,
        "NeMo 2 checkpoint whose weights to start from",
        aliases=("--pretrained-checkpoint",),
        metavar="DIR",
    )
    hf_token: str | None = flag(
        None,
        "Hugging Face token; kept in memory only. Better: export HF_TOKEN, which also keeps it out of the process list",
        metavar="TOKEN",
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """What it is trained on."""

    dataset_dir: tuple[str, ...] = flag(
        (),
        "folders or prefixes of .bin/.idx files, or a blend: a:0.7,b:0.3, YAML, or Megatron's 0.7 a 0.3 b (required)",
        aliases=("--dataset-path", "--data"),
        metavar="PATH",
    )
    data_mode: str = flag(
        "indexed",
        "what --dataset-dir names: .bin/.idx files, or rows of text files and hubs, read and tokenised on the fly",
        choices=("indexed", "stream"),
    )
    blend_by: str | None = flag(
        None,
        "what blend weights are shares of; rows are documents (default: tokens, or as the YAML file says)",
        choices=("tokens", "rows"),
    )
    seq_length: int | None = flag(None, "sequence length in tokens (default: the model's)")
    split: str = flag("998,1,1", "shares of training, validation and test documents")
    num_workers: int = flag(0, "data loading processes per rank (default for streams: 2)")
    index_mapping_dir: str | None = flag(
        None,
        "folder for the dataset's index cache; all nodes must see it (default: beside the data)",
        metavar="DIR",
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the model learns."""

    objective: str = flag(
        "clm",
        "clm: predict the next token; mlm: masked ones, seeing both sides (always so for BERT)",
        choices=("clm", "mlm"),
    )
    mlm_probability: float = flag(0.3, "share of tokens that are masked, between 0 and 1")
    mlm_replacement: str = flag(
        "mask",
        "what stands for a masked token; mask: the mask token; bert: that for 80 %, a random one for 10 %, itself "
        "for 10 %; span: the mask token, over runs of tokens",
        choices=("mask", "bert", "span"),
    )
    mlm_span_length: float = flag(3.0, "mean length of a run of masked tokens, with span")
    mask_token: str | None = flag(
        None, "the mask token, e.g. a reserved one (default: the tokenizer's)", metavar="TOKEN"
    )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How rows are read, with --data-mode stream."""

    text_key: str = flag(
        "text", "key or column with the text, for sources that name none", aliases=("--text-column",)
    )
    stopping_strategy: str = flag(
        "fixed-tokens",
        "when to end: after --max-steps or --max-tokens, or before that when the first or every source is read",
        choices=("fixed-tokens", "first-exhausted", "all-exhausted"),
    )
    shuffle_buffer: int = flag(100_000, "rows among which each reader shuffles; 1: keep their order")
    shard_shuffle: bool = flag(True, "shuffle the order of files")
    stream_readers: int | None = flag(
        None,
        "parts into which rows are dealt for good; data-parallel ranks and workers share them out (default: at "
        "least 4 for each rank)",
    )
    data_resume: str = flag(
        "exact",
        "how a restart goes on: with the very next row, or in a new order with a seed of its own",
        choices=("exact", "fresh"),
    )
    bad_data: str = flag(
        "skip-rows",
        "leave out rows without text; or stop there; or leave out damaged files and row groups too",
        choices=("skip-rows", "stop", "skip"),
    )
    data_ledger: bool = flag(True, "write down which rows are fed, for `nemolaunch data-audit`")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How much of it, in which portions, in which number format."""

    max_steps: int | None = flag(None, "optimizer steps (default: one epoch, computed from the .idx files)")
    global_batch_size: int = flag(2048, "sequences per step, over all GPUs", short="-gbs")
    max_tokens: int | None = flag(
        None, "train on that many tokens, like 20B, instead of --max-steps", metavar="TOKENS", scaled=True
    )
    tokens_per_param: float | None = flag(
        None,
        "train on that many tokens per active weight besides the input embedding, instead of --max-steps",
    )
    global_batch_tokens: int | None = flag(
        None, "tokens per step, like 4M, instead of --global-batch-size", metavar="TOKENS", scaled=True
    )
    micro_batch_size: int = flag(1, "sequences per forward pass on one GPU", short="-mbs")
    precision: str = flag("bf16", "number format of training", choices=("bf16", "fp32"))
    fp8: bool = flag(False, "matrix products in fp8, on Ada, Hopper and newer")
    fp8_recipe: str = flag(
        "delayed",
        "how fp8 values are scaled: one delayed or current factor a tensor, or blocks (Hopper), mxfp8 (Blackwell)",
        choices=("delayed", "tensorwise", "blockwise", "mxfp8"),
    )
    seed: int = flag(1234, "random seed of weights and data order")


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How the model is laid out over GPUs."""

    tensor_model_parallel_size: int = flag(
        1, "tensor parallel size", short="-TP", aliases=("--tensor-parallel-size",)
    )
    pipeline_model_parallel_size: int = flag(
        1, "pipeline parallel size", short="-PP", aliases=("--pipeline-parallel-size",)
    )
    virtual_pipeline_model_parallel_size: int | None = flag(
        None,
        "virtual pipeline stages per pipeline stage",
        short="-VPP",
        aliases=("--virtual-pipeline-parallel-size",),
    )
    context_parallel_size: int = flag(
        1, "context parallel size", short="-CP", aliases=("--context-model-parallel-size",)
    )
    sequence_parallel: bool = flag(
        False, "split activations along the sequence within a tensor parallel group", short="-SP"
    )
    expert_model_parallel_size: int = flag(
        1, "expert parallel size", short="-EP", aliases=("--expert-parallel-size",)
    )
    expert_tensor_parallel_size: int | None = flag(
        None, "tensor parallel size within an expert (default: the tensor parallel size)", short="-ETP"
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is recomputed or kept off the GPU."""

    recompute_granularity: str | None = flag(
        None, "what to recompute in the backward pass", choices=("full", "selective")
    )
    recompute_method: str | None = flag(None, "how full recompute picks layers", choices=("block", "uniform"))
    recompute_num_layers: int | None = flag(
        None, "layers per recomputed chunk (uniform) or recomputed layers (block)"
    )
    cpu_offloading: bool = flag(False, "keep activations of some layers in host memory")
    cpu_offloading_layers: int | None = flag(
        None, "how many layers to offload", aliases=("--cpu-offloading-num-layers",)
    )
    cpu_offloading_activations: bool = flag(False, "offload activations")
    cpu_offloading_weights: bool = flag(False, "offload weights")
    optim_cpu_offloading: bool = flag(
        False, "keep optimizer state and its update on the host", aliases=("--optimizer-cpu-offload",)
    )
    optim_cpu_offloading_frac: float = flag(
        1.0,
        "share of the optimizer state to offload, above 0 up to 1",
        aliases=("--optimizer-offload-fraction",),
    )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Which kernels run, and what communication they hide. What is left open is as in the recipe."""

    attention_backend: str | None = flag(
        None,
        "kernels of attention; flash: FlashAttention; fused: cuDNN's; unfused: Transformer Engine's, which keep all "
        "scores, as local, Megatron's own, do; auto: the fastest there is (default: the recipe's, mostly auto)",
        choices=("auto", "flash", "fused", "unfused", "local"),
    )
    cuda_graphs: bool = flag(False, "capture every layer as CUDA graphs, and launch those instead of kernels")
    tp_comm_overlap: bool | None = flag(
        None, "tensor parallel communication during matrix products (Transformer Engine's userbuffers)"
    )
    overlap_grad_reduce: bool | None = flag(None, "reduce gradients over data parallel ranks during backward")
    overlap_param_gather: bool | None = flag(
        None, "gather updated weights from data parallel ranks during the next forward"
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How weights are updated."""

    optimizer: str = flag("adam", "optimizer", choices=("adam", "sgd"))
    lr: float = flag(5e-6, "peak learning rate")
    min_lr: float = flag(1e-6, "learning rate at the end of the cosine")
    adam_beta1: float = flag(0.9, "Adam's decay of the first moment")
    adam_beta2: float = flag(0.999, "Adam's decay of the second moment")
    weight_decay: float = flag(0.0, "decoupled weight decay")
    clip_grad: float = flag(1.0, "global gradient norm to clip to; 0 turns clipping off")
    warmup_steps: int = flag(50, "steps of linear warm-up")
    constant_steps: int = flag(0, "steps at the minimum rate after the cosine")
    disable_dist_optim: bool = flag(False, "do not shard the optimizer over data-parallel ranks")
    num_distributed_optimizer_instances: int = flag(
        1, "copies of the sharded optimizer, each over DP·CP divided by so many ranks (hybrid sharding, HSDP)"
    )


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is reported, and when. TensorBoard is always written."""

    wandb: bool = flag(False, "report to Weights & Biases; the key is read from WANDB_API_KEY")
    wandb_project: str | None = flag(None, "W&B project (default: the experiment)")
    wandb_name: str | None = flag(None, "W&B run name (default: the experiment)")
    log_every: int = flag(1, "steps between log lines")
    val_check_interval: int | None = flag(
        None, "steps between validations (default: a fifth of an epoch in long runs, else at the end)"
    )
    limit_val_batches: int = flag(32, "validation batches each time; 0 turns validation off")
    mlflow: bool = flag(False, "report to MLflow; the server is read from MLFLOW_TRACKING_URI")
    mlflow_experiment: str | None = flag(None, "MLflow experiment (default: the experiment)")
    profile: str | None = flag(
        None, "trace some steps with PyTorch's profiler or Nsight Systems", choices=("pytorch", "nsys")
    )
    profile_steps: str = flag("10:12", "steps to trace: after START, up to STOP", metavar="START:STOP")
    profile_ranks: tuple[str, ...] = flag(("0",), "ranks to trace", metavar="N")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """What is watched while the run goes on. `nemolaunch status` and the report show what was noticed."""

    on_not_finite: str = flag(
        "stop",
        "when loss or gradient is NaN or infinite: go on, leave that update out, or end the run",
        choices=("warn", "skip", "stop"),
    )
    on_loss_spike: str = flag("warn", "when the loss jumps: the same", choices=("warn", "skip", "stop"))
    on_slowness: str = flag(
        "warn",
        "when a rank is slower than the rest, steps slow down, or data come too late",
        choices=("warn", "stop"),
    )
    hang_timeout: int = flag(
        1800,
        "end the job when no step finishes for that long, with the stacks of all ranks; 0: never",
        metavar="SECONDS",
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is saved, and where a run starts from."""

    checkpoint_every: int | None = flag(
        None,
        "steps between checkpoints (default: every 15 minutes; always at the last step)",
        metavar="STEPS",
    )
    keep_latest: int = flag(3, "number of newest checkpoints to keep; -1 keeps all", aliases=("--keep",))
    no_async_save: bool = flag(False, "write checkpoints before training goes on")
    resume: str = flag(
        "auto",
        "auto: from this run's last checkpoint if there is one; never: from scratch; or a checkpoint's PATH",
    )


# Fields that say the same thing in different units: a job is given at most one of each group.
ALTERNATIVES: tuple[tuple[str, ...], ...] = (
    ("global_batch_size", "global_batch_tokens"),
    ("max_steps", "max_tokens", "tokens_per_param"),
)

PARTS: dict[str, type] = {
    "launch": Launch,
    "model": Model,
    "data": Data,
    "objective": Objective,
    "stream": Stream,
    "batch": Batch,
    "parallelism": Parallelism,
    "memory": Memory,
    "speed": Speed,
    "optimizer": Optimizer,
    "logging": Logging,
    "guards": Guards,
    "checkpoint": Checkpoint,
}
SECRETS = frozenset({"hf_token"})


@dataclass(frozen=True, init=False, repr=False)
class Job:
    """A complete pretraining job. Immutable: derive a variant with `with_values`.

    Takes fields by the name of their flag, by an alias or by a short form, which for two letters and more may be
    lower case, or whole parts by the name of the part:

        Job(model="llama32_1b", tokenizer="my/tokenizer", data="data", tp=2, max_steps=1000, lr=3e-4)

    Raises UsageError, naming everything that is wrong, for unknown names and values of the wrong type.
    """

    launch: Launch
    model: Model
    data: Data
    objective: Objective
    stream: Stream
    batch: Batch
    parallelism: Parallelism
    memory: Memory
    speed: Speed
    optimizer: Optimizer
    logging: Logging
    guards: Guards
    checkpoint: Checkpoint

    def __init__(self, **values: Any) -> None:
        parts = {
            part: values.pop(part) if isinstance(values.get(part), cls) else cls()
            for part, cls in PARTS.items()
        }
        for part, changes in _by_part(values).items():
            parts[part] = dataclasses.replace(parts[part], **changes)
        for part, value in parts.items():
            object.__setattr__(self, part, value)

    def __repr__(self) -> str:
        """Show what differs from the defaults, without secrets."""
        changed = [
            f"{spec.name}={self.get(spec.name)!r}"
            for spec in specs()
            if spec.name not in SECRETS and self.get(spec.name) != spec.default
        ]
        return f"Job({', '.join(changed)})"

    def with_values(self, **values: Any) -> Job:
        """Return a copy with some fields changed: `job.with_values(seq_length=512)`.

        Raises UsageError for unknown names and values of the wrong type.
        """
        return dataclasses.replace(
            self,
            **{
                part: dataclasses.replace(getattr(self, part), **changes)
                for part, changes in _by_part(values).items()
            },
        )

    def values(self) -> dict[str, Any]:
        """All fields by flag name, without secrets, in a form YAML and JSON can hold."""
        out: dict[str, Any] = {}
        for spec in specs():
            if spec.name in SECRETS:
                continue
            value = getattr(getattr(self, spec.part), spec.name)
            out[spec.name] = list(value) if isinstance(value, tuple) else value
        return out

    def get(self, name: str) -> Any:
        """Return the value of the field that a flag sets."""
        return getattr(getattr(self, spec_of(name).part), name)


def _by_part(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return checked values by part and field name; raise UsageError for all that are wrong."""
    by_part: dict[str, dict[str, Any]] = {}
    problems = []
    for word, value in values.items():
        try:
            spec = spec_of(field_name(word))
            by_part.setdefault(spec.part, {})[spec.name] = spec.checked(value)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems))
    return by_part


_specs: tuple[FieldSpec, ...] | None = None


def specs() -> tuple[FieldSpec, ...]:
    """Every field of the job, in the order of its parts."""
    global _specs
    if _specs is None:
        _specs = tuple(_read_specs())
    return _specs


def _read_specs() -> Iterator[FieldSpec]:
    for part, cls in PARTS.items():
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            arguments = typing.get_args(hints[f.name])
            many = typing.get_origin(hints[f.name]) is tuple
            kind = arguments[0] if arguments else hints[f.name]
            yield FieldSpec(
                part=part,
                name=f.name,
                kind=kind,
                optional=type(None) in arguments,
                many=many,
                default=f.default,
                **typing.cast(Mapping[str, Any], f.metadata),
            )


_names: dict[str, str] = {}


def field_name(word: str) -> str:
    """Return the name of the field that a flag, alias or short form stands for, with or without dashes.

    `-` and `_` are the same; short forms of two letters and more may be lower case. An unknown word is returned as is.
    """
    if not _names:
        for spec in specs():
            short = spec.short.lstrip("-") if spec.short else spec.name
            names = (spec.name, *spec.aliases, short, short.lower() if len(short) > 1 else short)
            _names.update({name.lstrip("-").replace("-", "_"): spec.name for name in names})
    word = word.lstrip("-").replace("-", "_")
    return _names.get(word, word)


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of an older version under the names that their fields have today."""
    return {field_name(name): value for name, value in values.items()}


def spec_of(name: str) -> FieldSpec:
    """Return the field of that name; raise UsageError with the nearest names if there is none."""
    for spec in specs():
        if spec.name == name:
            return spec
    near = [spec.name for spec in nearest_fields(name)]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UsageError(f"a job has no field {name!r}{hint}")


def nearest_fields(name: str) -> list[FieldSpec]:
    """Fields that may be meant by a name that is none: alike ones, else those whose help has all its words."""
    import difflib

    by_name = {spec.name: spec for spec in specs()}
    alike = difflib.get_close_matches(name, by_name, n=3, cutoff=0.7)
    words = name.replace("_", " ").lower()
    said = [s.name for s in specs() if len(words) > 3 and words in s.help.lower()]
    return [by_name[n] for n in dict.fromkeys([*alike, *said])][:3]
