"""Megatron-LM's own `save_checkpoint` and `load_checkpoint`, called in a training of Bridge's on the same objects."""

from __future__ import annotations

import sys
from typing import Any

WORDS = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 "
    "--ffn-hidden-size 128 --seq-length 64 --max-position-embeddings 8192 --swiglu --normalization "
    "RMSNorm --position-embedding-type rope --rotary-base 500000 --disable-bias-linear "
    "--untie-embeddings-and-output-weights --attention-dropout 0 --hidden-dropout 0 --init-method-std "
    "0.02 --norm-epsilon 1e-5 --micro-batch-size 1 --global-batch-size 16 --train-iters 8 --lr 1e-3 "
    "--min-lr 1e-4 --lr-warmup-iters 1 --lr-decay-iters 8 --lr-decay-style cosine --weight-decay 0.1 "
    "--clip-grad 1.0 --use-distributed-optimizer --ckpt-format torch_dist --tokenizer-type NullTokenizer "
    "--vocab-size 8192 --distributed-backend gloo --no-save-rng --no-load-rng --save-interval 1000 "
    "--eval-interval 1000 --eval-iters 0 --dist-ckpt-optim-fully-reshardable --no-masked-softmax-fusion "
    "--transformer-impl transformer_engine"
)
GROUPED = "--group-query-attention --num-query-groups 2"  # which latent attention excludes


def configure(folder: str, words: str = "") -> Any:
    """Set Megatron-LM's global arguments, as its command line would, for saving to and loading from a folder."""
    from megatron.training import arguments, global_vars

    arguments.get_device_arch_version = lambda: 10  # asked about variables of CUDA
    heads = "" if "--multi-latent-attention" in words else GROUPED
    words = f"{WORDS} {heads} {words}"
    sys.argv = ["pretrain_gpt.py", *words.split(), "--save", folder, "--load", folder]
    args = arguments.validate_args(arguments.parse_args())
    args.padded_vocab_size = 8192
    global_vars.set_args(args)
    return args


def save(plan_file: str, folders: dict[str, str], at: int) -> dict[str, Any]:
    """Train the plan, and have Megatron-LM save after step `at`. Returns what the steps had.

    `folders` has the further words of its command line for each folder.
    """
    from bridge.train_bridge_plan import train
    from megatron.bridge.training.callbacks import Callback

    class Save(Callback):
        def on_train_step_end(self, context: Any) -> None:
            from megatron.training import checkpointing

            step = context.state.train_state.step + 1
            if step != at:
                return
            for folder, words in folders.items():
                args = configure(folder, words)
                args.consumed_train_samples = step * args.global_batch_size
                checkpointing.save_checkpoint(step, context.model, context.optimizer, context.scheduler, 0)

    return train(plan_file, more=(Save(),))


def load(plan_file: str, folder: str, again: str, words: str = "") -> list[int]:
    """Have Megatron-LM load a folder before the first step, and save at once what it has loaded to another.

    Returns the step and the number of samples that it continues from.
    """
    from bridge.train_bridge_plan import train
    from megatron.bridge.training.callbacks import Callback

    found = []

    class Load(Callback):
        def on_train_start(self, context: Any) -> None:
            from megatron.training import checkpointing

            parts = context.model, context.optimizer, context.scheduler
            args = configure(folder, words)
            step, _ = checkpointing.load_checkpoint(*parts)
            samples = args.consumed_train_samples
            configure(again, words).consumed_train_samples = samples
            checkpointing.save_checkpoint(step, *parts, 0)
            found.extend([step, samples])

    train(plan_file, more=(Load(),))
    return found
