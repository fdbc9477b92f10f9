"""What a user asks for: the one definition from which flags, YAML keys and plans are made.

Every field carries its command-line form, so `cli/parsing/flags.py` and `--config` need no list of their own.
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
    experiment: str = flag(
        "pretraining", "name of the run folder; letters, digits, '.', '_' and '-'", short="-E"
    )
    output_dir: str | None = flag(None, "run folder (default: runs/EXPERIMENT)", metavar="DIR")
    num_nodes: int = flag(1, "number of nodes", short="-N")
    num_gpus: int | None = flag(
        None,
        "processes per node (default: one per visible GPU; on the CPU, as many as the parallelism needs)",
        short="-G",
        aliases=("--gpus-per-node",),
    )
    account: str = flag("root", "Slurm account", short="-A")
    partition: str = flag("defq", "Slurm partition", short="-P")
    container_image: str = flag(
        "nvcr.io/nvidia/nemo:26.02",
        "container image on Slurm; none runs in the current environment",
        short="-I",
        metavar="IMAGE",
    )
    container_mounts: tuple[str, ...] = flag(
        (), "additional container mounts; the job's own paths are always mounted", metavar="SRC:DST"
    )
    time: str | None = flag(
        None, "time limit of each Slurm job, e.g. 3-00:00:00 (default: the partition's, else 1-00:00:00)"
    )
    device: str = flag(
        "auto",
        "device to train on; auto: the GPU on Slurm or if one is visible, otherwise the CPU",
        choices=("auto", "gpu", "cpu"),
    )
    launcher: str = flag(
        "srun",
        "what starts the ranks on Slurm: srun (one task per rank) or torchrun (once per node)",
        choices=("srun", "torchrun"),
    )
    detach: bool = flag(False, "return once the Slurm job is submitted, instead of following the run")
    chain: bool = flag(True, "have each Slurm job queue its successor until training has finished")
    max_failures: int = flag(
        3,
        "end the run after this many consecutive attempts without a new checkpoint",
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
        None, "Slurm generic resources per node, instead of --gpus-per-node; none requests nothing"
    )
    constraint: str | None = flag(None, "Slurm features that the nodes must have")
    exclude: str | None = flag(None, "nodes that must not be used", metavar="NODES")
    reservation: str | None = flag(None, "Slurm reservation")
    comment: str | None = flag(None, "comment of the Slurm job")
    dependency: str | None = flag(
        None, "start only after other Slurm jobs have ended, e.g. afterok:1234", metavar="WHEN:JOB"
    )
    array: str | None = flag(None, "run as a chain of array tasks, e.g. 1-10%1", metavar="RANGE")
    sbatch: tuple[str, ...] = flag((), "any other sbatch option, without its dashes", metavar="KEY=VALUE")
    network_interface: str | None = flag(
        None, "network interface between nodes, e.g. hsn0 (sets NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME)"
    )
    env_preset: tuple[str, ...] = flag(
        (),
        "named sets of environment variables: slingshot, efa, gb200, save-memory, fused-attention, "
        "deterministic, debug",
        metavar="NAME",
    )
    env: tuple[str, ...] = flag(
        (), "additional environment variables of the training processes", metavar="NAME=VALUE"
    )
    preset: str | None = flag(
        None,
        "flags tuned for a model on a GPU: a built-in preset or a YAML file; flags and --config override it",
        metavar="NAME",
    )
    gpu: str | None = flag(
        None,
        "GPU to estimate memory and time for, e.g. h200 (default: the one in this machine, else h100)",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained, and from which weights."""

    model_name: str = flag(
        "",
        "NeMo 2 recipe, built-in configuration, YAML file, or hf: the architecture of --hf-model-id (required)",
        short="-M",
        aliases=("--model",),
    )
    hf_model_id: str | None = flag(
        None,
        "tokenizer: Hugging Face id or local folder (default: the one recorded with the data)",
        aliases=("--tokenizer",),
    )
    nemo_model: str | None = flag(
        None,
        "NeMo 2 checkpoint to take the initial weights from",
        aliases=("--pretrained-checkpoint",),
        metavar="DIR",
    )
    hf_token: str | None = flag(
        None,
        "Hugging Face token, kept in memory only; exporting HF_TOKEN also keeps it out of the process list",
        metavar="TOKEN",
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the model is trained on."""

    dataset_dir: tuple[str, ...] = flag(
        (),
        "folders or prefixes of .bin/.idx files, or a blend: a:0.7,b:0.3, YAML, or Megatron's 0.7 a 0.3 b (required)",
        aliases=("--dataset-path", "--data"),
        metavar="PATH",
    )
    data_mode: str = flag(
        "indexed",
        "what --dataset-dir holds: .bin/.idx files, or text (local files or hub datasets) tokenised on the fly",
        choices=("indexed", "stream"),
    )
    blend_by: str | None = flag(
        None,
        "whether blend weights are shares of tokens or of rows, i.e. documents (default: tokens, or the YAML file's)",
        choices=("tokens", "rows"),
    )
    seq_length: int | None = flag(None, "sequence length in tokens (default: the model's)")
    split: str = flag("998,1,1", "shares of documents for training, validation and test")
    num_workers: int = flag(0, "data loading processes per rank (default for streams: 2)")
    index_mapping_dir: str | None = flag(
        None,
        "folder for the dataset's index cache, shared by all nodes (default: next to the data)",
        metavar="DIR",
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the model learns."""

    objective: str = flag(
        "clm",
        "clm: predict the next token; mlm: predict masked tokens from both sides (always used for BERT)",
        choices=("clm", "mlm"),
    )
    mlm_probability: float = flag(0.3, "share of tokens to mask, between 0 and 1")
    mlm_replacement: str = flag(
        "mask",
        "replacement of masked tokens; mask: the mask token; bert: the mask token for 80 %, a random token for 10 %, "
        "the token itself for 10 %; span: the mask token, over contiguous spans",
        choices=("mask", "bert", "span"),
    )
    mlm_span_length: float = flag(3.0, "mean span length in tokens with --mlm-replacement span")
    mask_token: str | None = flag(
        None, "mask token, e.g. a reserved token (default: the tokenizer's)", metavar="TOKEN"
    )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How rows are read, with --data-mode stream."""

    text_key: str = flag(
        "text",
        "key or column that holds the text, for sources that do not set one",
        aliases=("--text-column",),
    )
    stopping_strategy: str = flag(
        "fixed-tokens",
        "when to stop: after --max-steps or --max-tokens, or earlier once the first source, or every source, is "
        "exhausted",
        choices=("fixed-tokens", "first-exhausted", "all-exhausted"),
    )
    shuffle_buffer: int = flag(100_000, "number of rows each reader shuffles at a time; 1 keeps their order")
    shard_shuffle: bool = flag(True, "shuffle the order of files")
    stream_readers: int | None = flag(
        None,
        "number of fixed partitions of the rows, spread over data-parallel ranks and workers (default: at least 4 "
        "per rank)",
    )
    data_resume: str = flag(
        "exact",
        "which rows a restart reads; exact: continue with the next row; fresh: a new order with a new seed",
        choices=("exact", "fresh"),
    )
    bad_data: str = flag(
        "skip-rows",
        "what to do about bad data; skip-rows: skip rows without text; stop: end the run; skip: also skip damaged "
        "files and row groups",
        choices=("skip-rows", "stop", "skip"),
    )
    data_ledger: bool = flag(True, "record which rows were read, for `nemolaunch data-audit`")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How much data, in which batch sizes and which precision."""

    max_steps: int | None = flag(None, "optimizer steps (default: one epoch, computed from the .idx files)")
    global_batch_size: int = flag(2048, "sequences per step over all GPUs", short="-gbs")
    max_tokens: int | None = flag(
        None,
        "number of tokens to train on, e.g. 20B, instead of --max-steps",
        metavar="TOKENS",
        scaled=True,
    )
    tokens_per_param: float | None = flag(
        None,
        "number of tokens to train on per active parameter, input embedding excluded, instead of --max-steps",
    )
    global_batch_tokens: int | None = flag(
        None, "tokens per step, e.g. 4M, instead of --global-batch-size", metavar="TOKENS", scaled=True
    )
    micro_batch_size: int = flag(1, "sequences per forward pass on one GPU", short="-mbs")
    precision: str = flag("bf16", "training precision", choices=("bf16", "fp32"))
    fp8: bool = flag(False, "run matrix multiplications in fp8 (Ada, Hopper and newer)")
    fp8_recipe: str = flag(
        "delayed",
        "fp8 scaling; delayed: a factor per tensor from earlier steps; tensorwise: a current factor per tensor; "
        "blockwise: a factor per block (Hopper); mxfp8: microscaling blocks (Blackwell)",
        choices=("delayed", "tensorwise", "blockwise", "mxfp8"),
    )
    seed: int = flag(1234, "random seed for weights and data order")


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How the model is split across GPUs."""

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
        False, "split activations along the sequence within tensor parallel groups", short="-SP"
    )
    expert_model_parallel_size: int = flag(
        1, "expert parallel size", short="-EP", aliases=("--expert-parallel-size",)
    )
    expert_tensor_parallel_size: int | None = flag(
        None, "tensor parallel size of the experts (default: the tensor parallel size)", short="-ETP"
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is recomputed, and what is kept off the GPU."""

    recompute_granularity: str | None = flag(
        None,
        "activations to recompute in the backward pass: those of whole layers (full) or of attention (selective)",
        choices=("full", "selective"),
    )
    recompute_method: str | None = flag(
        None, "how full recomputation chooses layers", choices=("block", "uniform")
    )
    recompute_num_layers: int | None = flag(
        None, "layers per recomputed chunk (uniform), or number of recomputed layers (block)"
    )
    cpu_offloading: bool = flag(False, "keep the activations of some layers in host memory")
    cpu_offloading_layers: int | None = flag(
        None, "number of layers to offload", aliases=("--cpu-offloading-num-layers",)
    )
    cpu_offloading_activations: bool = flag(False, "offload activations")
    cpu_offloading_weights: bool = flag(False, "offload weights")
    optim_cpu_offloading: bool = flag(
        False, "keep and update the optimizer state on the CPU", aliases=("--optimizer-cpu-offload",)
    )
    optim_cpu_offloading_frac: float = flag(
        1.0,
        "fraction of the optimizer state to offload, above 0 and up to 1",
        aliases=("--optimizer-offload-fraction",),
    )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Kernels, and which communication overlaps with computation. Flags that are not set are as in the recipe."""

    attention_backend: str | None = flag(
        None,
        "attention kernels; flash: FlashAttention; fused: cuDNN; unfused: Transformer Engine; local: Megatron-Core; "
        "auto: the fastest available. unfused and local store all attention scores (default: the recipe's, usually "
        "auto)",
        choices=("auto", "flash", "fused", "unfused", "local"),
    )
    cuda_graphs: bool = flag(
        False, "capture each layer as CUDA graphs instead of launching kernels one by one"
    )
    tp_comm_overlap: bool | None = flag(
        None,
        "overlap tensor parallel communication with matrix multiplications (Transformer Engine userbuffers)",
    )
    overlap_grad_reduce: bool | None = flag(
        None, "reduce gradients over data parallel ranks during the backward pass"
    )
    overlap_param_gather: bool | None = flag(
        None, "gather updated weights from data parallel ranks during the next forward pass"
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How weights are updated."""

    optimizer: str = flag("adam", "optimizer", choices=("adam", "sgd"))
    lr: float = flag(5e-6, "peak learning rate")
    min_lr: float = flag(1e-6, "learning rate at the end of the cosine decay")
    adam_beta1: float = flag(0.9, "decay rate of Adam's first moment")
    adam_beta2: float = flag(0.999, "decay rate of Adam's second moment")
    weight_decay: float = flag(0.0, "decoupled weight decay")
    clip_grad: float = flag(1.0, "maximum global gradient norm; 0 turns clipping off")
    warmup_steps: int = flag(50, "steps of linear learning rate warmup")
    constant_steps: int = flag(0, "steps at the minimum learning rate after the cosine decay")
    disable_dist_optim: bool = flag(False, "do not shard the optimizer over data-parallel ranks")
    num_distributed_optimizer_instances: int = flag(
        1, "copies of the sharded optimizer, each over DP·CP / N ranks (hybrid sharding, HSDP)"
    )


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is logged, and when. TensorBoard files are always written."""

    wandb: bool = flag(False, "log to Weights & Biases; the key is read from WANDB_API_KEY")
    wandb_project: str | None = flag(None, "W&B project (default: --experiment)")
    wandb_name: str | None = flag(None, "W&B run name (default: --experiment)")
    log_every: int = flag(1, "steps between log lines")
    val_check_interval: int | None = flag(
        None, "steps between validations (default: a fifth of an epoch in long runs, else only at the end)"
    )
    limit_val_batches: int = flag(32, "batches per validation; 0 turns validation off")
    mlflow: bool = flag(False, "log to MLflow; the server is read from MLFLOW_TRACKING_URI")
    mlflow_experiment: str | None = flag(None, "MLflow experiment (default: --experiment)")
    profile: str | None = flag(
        None, "profile some steps with the PyTorch profiler or Nsight Systems", choices=("pytorch", "nsys")
    )
    profile_steps: str = flag("10:12", "steps to profile: after START, up to STOP", metavar="START:STOP")
    profile_ranks: tuple[str, ...] = flag(("0",), "ranks to profile", metavar="N")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """What is monitored during the run. `nemolaunch status` and the report show the warnings."""

    on_not_finite: str = flag(
        "stop",
        "when the loss or a gradient is NaN or infinite: only warn, skip the update, or end the run",
        choices=("warn", "skip", "stop"),
    )
    on_loss_spike: str = flag(
        "warn",
        "when the loss spikes: only warn, skip the update, or end the run",
        choices=("warn", "skip", "stop"),
    )
    on_slowness: str = flag(
        "warn",
        "when a rank is slower than the others, steps slow down, or data loading falls behind: only warn, or end "
        "the run",
        choices=("warn", "stop"),
    )
    hang_timeout: int = flag(
        1800,
        "end the job if no step finishes for this long, after dumping the stacks of all ranks; 0 disables this",
        metavar="SECONDS",
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is saved, and where training starts from."""

    checkpoint_every: int | None = flag(
        None,
        "steps between checkpoints (default: every 15 minutes); the last step is always saved",
        metavar="STEPS",
    )
    keep_latest: int = flag(3, "number of most recent checkpoints to keep; -1 keeps all", aliases=("--keep",))
    no_async_save: bool = flag(False, "pause training while a checkpoint is written")
    resume: str = flag(
        "auto",
        "where to start; auto: this run's last checkpoint if there is one; never: from scratch; or a checkpoint's PATH",
    )


# Fields that express the same quantity in different units: at most one of each group may be given.
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

    Fields are named like their flag, an alias of it or its short form; short forms of two or more letters may be
    lower case. A whole part can be passed by the name of the part:

        Job(model="llama32_1b", tokenizer="my/tokenizer", data="data", tp=2, max_steps=1000, lr=3e-4)

    Raises UsageError for unknown names and values of the wrong type, listing all of them.
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
        """Return all fields by flag name, without secrets, in types that YAML and JSON can hold."""
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
    """Return validated values by part and field name; raise UsageError listing all that are wrong."""
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
    """Return every field of the job, in the order of its parts."""
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

    `-` and `_` are interchangeable; short forms of two or more letters may be lower case. An unknown word is
    returned unchanged.
    """
    if not _names:
        for spec in specs():
            short = spec.short.lstrip("-") if spec.short else spec.name
            names = (spec.name, *spec.aliases, short, short.lower() if len(short) > 1 else short)
            _names.update({name.lstrip("-").replace("-", "_"): spec.name for name in names})
    word = word.lstrip("-").replace("-", "_")
    return _names.get(word, word)


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values saved by an older version under the current names of their fields."""
    return {field_name(name): value for name, value in values.items()}


def spec_of(name: str) -> FieldSpec:
    """Return the field of that name; raise UsageError with the closest names if there is none."""
    for spec in specs():
        if spec.name == name:
            return spec
    near = [spec.name for spec in nearest_fields(name)]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UsageError(f"a job has no field {name!r}{hint}")


def nearest_fields(name: str) -> list[FieldSpec]:
    """Return the fields an unknown name may mean: similar names, then fields whose help contains its words."""
    import difflib

    by_name = {spec.name: spec for spec in specs()}
    alike = difflib.get_close_matches(name, by_name, n=3, cutoff=0.7)
    words = name.replace("_", " ").lower()
    said = [s.name for s in specs() if len(words) > 3 and words in s.help.lower()]
    return [by_name[n] for n in dict.fromkeys([*alike, *said])][:3]
