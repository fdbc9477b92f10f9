"""Ranks, batches, samples and steps."""

from __future__ import annotations

from nemolaunch.catalogue import Architecture
from nemolaunch.errors import UsageError


def padded_vocab_size(vocab_size: int, tensor_parallel: int = 1, make_divisible_by: int = 128) -> int:
    """Return the number of embedding rows for a tokenizer of `vocab_size` tokens.

    Rounds up to a multiple of make_divisible_by * tensor_parallel (nemo.lightning.base.get_vocab_size).
    """
    unit = make_divisible_by * tensor_parallel
    return -(-vocab_size // unit) * unit


def vocab_rows(architecture: Architecture, tokenizer_vocab_size: int | None, tensor_parallel: int = 1) -> int:
    """Return the number of embedding rows: the architecture's preset unchanged, else the tokenizer's, padded.

    Raises:
        UsageError: the architecture has no preset and no tokenizer size is given.
    """
    if architecture.vocab_size is not None:
        return architecture.vocab_size
    if tokenizer_vocab_size is None:
        raise UsageError(
            "the model uses its tokenizer's vocabulary, whose size is unknown: use --hf-model-id or --vocab-size."
        )
    return padded_vocab_size(tokenizer_vocab_size, tensor_parallel, architecture.make_vocab_size_divisible_by)


def data_parallel_size(
    world_size: int, *, tensor_parallel: int = 1, pipeline_parallel: int = 1, context_parallel: int = 1
) -> int:
    """Return the number of model replicas among `world_size` ranks; experts are laid out within these.

    Raises:
        UsageError: the ranks do not divide into whole replicas.
    """
    per_replica = tensor_parallel * pipeline_parallel * context_parallel
    if world_size < 1 or world_size % per_replica:
        raise UsageError(
            f"{world_size} ranks do not divide into replicas of TP {tensor_parallel} x "
            f"PP {pipeline_parallel} x CP {context_parallel} = "
            f"{per_replica}; change -N or -G so that nodes x GPUs is a multiple of {per_replica}."
        )
    return world_size // per_replica


def num_microbatches(global_batch_size: int, micro_batch_size: int, data_parallel: int) -> int:
    """Return the number of forward passes per replica in an optimizer step.

    Raises:
        UsageError: the global batch does not divide into whole microbatches.
    """
    unit = micro_batch_size * data_parallel
    if global_batch_size < 1 or global_batch_size % unit:
        raise UsageError(
            f"-gbs {global_batch_size} is not a multiple of micro batch size {micro_batch_size} x "
            f"data parallel size {data_parallel} = {unit}."
        )
    return global_batch_size // unit


def samples_per_epoch(num_tokens: int, seq_length: int) -> int:
    """Return the number of whole samples in `num_tokens` consecutive tokens.

    In Megatron's GPT dataset, sample i has the tokens i * seq_length … (i + 1) * seq_length: one more than
    seq_length, because labels are the inputs shifted by one. Neighbouring samples share that token (megatron.core
    datasets.gpt_dataset, num_samples = (num_epochs * num_tokens_per_epoch - 1) // sequence_length).
    """
    return max(num_tokens - 1, 0) // seq_length


def steps_per_epoch(num_tokens: int, seq_length: int, global_batch_size: int) -> int:
    """Return the optimizer steps per epoch, each sample used at most once; 0 if a batch exceeds an epoch."""
    return samples_per_epoch(num_tokens, seq_length) // global_batch_size
