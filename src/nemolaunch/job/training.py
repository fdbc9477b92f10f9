"""How training proceeds: batches, layout, memory, kernels, optimizer.

Each field carries its command-line form; see `nemolaunch.job.fields.flag`. `None` means "not given".
"""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.job.fields import flag

# Learning rate schedules and ways to decay, defined in nemolaunch.arithmetic.schedule
STYLES = ("cosine", "wsd", "linear", "constant", "inverse-sqrt")
WSD_DECAY_STYLES = ("linear", "cosine", "exponential", "minus-sqrt")


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
    rampup_batch_size: str | None = flag(
        None,
        "begin with a global batch of START and raise it by INCREMENT, at equal distances over the first SAMPLES "
        "samples, up to --global-batch-size",
        metavar="START:INCREMENT:SAMPLES",
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
        "activations to recompute in the backward pass: those of whole layers (full) or of modules (selective)",
        choices=("full", "selective"),
    )
    recompute_method: str | None = flag(
        None, "how full recomputation chooses layers", choices=("block", "uniform")
    )
    recompute_num_layers: int | None = flag(
        None, "layers per recomputed chunk (uniform), or number of recomputed layers (block)"
    )
    recompute_modules: tuple[str, ...] = flag(
        (),
        "modules that selective recomputation applies to: core_attn, layernorm, mlp, mla_up_proj, moe, moe_act, "
        "shared_experts (default: the recipe's, else core_attn)",
        metavar="MODULE",
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
    lr: float | None = flag(None, "peak learning rate (default: the recipe's, or by the size of the model)")
    min_lr: float | None = flag(
        None, "learning rate at the end of the decay (default: the recipe's, usually a tenth of --lr)"
    )
    lr_schedule: str = flag(
        "cosine",
        "learning rate after the warmup; cosine, linear: decay to --min-lr; wsd: constant, then a short decay; "
        "inverse-sqrt: decay with the square root of the step; constant: no decay",
        choices=STYLES,
    )
    warmup_steps: int | None = flag(
        None, "steps of linear learning rate warmup (default: the recipe's, at most a tenth of the run)"
    )
    warmup_ratio: float | None = flag(None, "warmup as a fraction of --max-steps, instead of --warmup-steps")
    decay_steps: int | None = flag(
        None, "step at which the decay ends, counted from the start of training (default: --max-steps)"
    )
    constant_steps: int | None = flag(
        None, "steps at the minimum learning rate at the end of the run, instead of --decay-steps"
    )
    wsd_decay_steps: int | None = flag(
        None, "steps of the decay of --lr-schedule wsd (default: a tenth of --decay-steps)"
    )
    wsd_decay_style: str = flag("minus-sqrt", "decay of --lr-schedule wsd", choices=WSD_DECAY_STYLES)
    adam_beta1: float | None = flag(None, "decay rate of Adam's first moment (default: the recipe's)")
    adam_beta2: float | None = flag(None, "decay rate of Adam's second moment (default: the recipe's)")
    adam_eps: float | None = flag(
        None, "term added to Adam's denominator (default: the recipe's, usually 1e-8 or 1e-5)"
    )
    weight_decay: float | None = flag(None, "decoupled weight decay (default: the recipe's)")
    clip_grad: float | None = flag(
        None, "maximum global gradient norm; 0 turns clipping off (default: the recipe's)"
    )
    disable_dist_optim: bool = flag(False, "do not shard the optimizer over data-parallel ranks")
    num_distributed_optimizer_instances: int = flag(
        1, "copies of the sharded optimizer, each over DP·CP / N ranks (hybrid sharding, HSDP)"
    )
