"""One definition per quantity: batches and steps, parameters, FLOPs per token. Exact integers, no I/O."""

from nemolaunch.arithmetic.batch import (
    data_parallel_size,
    num_microbatches,
    padded_vocab_size,
    samples_per_epoch,
    steps_per_epoch,
    vocab_rows,
)
from nemolaunch.arithmetic.flops import FlopsPerToken, flops_per_token
from nemolaunch.arithmetic.parameters import LayerParameters, Parameters, layer_parameters, parameters
from nemolaunch.arithmetic.vocabulary import model_vocab_rows

__all__ = [
    "FlopsPerToken", "LayerParameters", "Parameters", "data_parallel_size", "flops_per_token",
    "layer_parameters", "model_vocab_rows", "num_microbatches", "padded_vocab_size", "parameters",
    "samples_per_epoch", "steps_per_epoch", "vocab_rows",
]  # fmt: skip
