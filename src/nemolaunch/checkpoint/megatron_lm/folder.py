"""Megatron-LM's checkpoint folders: `iter_N/`, a distributed checkpoint whose common state holds the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.bridge_models import GPT, PROVIDERS, provider_of
from nemolaunch.checkpoint.bridge import state
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.megatron.iteration import IterationFolder
from nemolaunch.checkpoint.megatron.names import EMBEDDING
from nemolaunch.checkpoint.megatron.sink import WeightsSink
from nemolaunch.checkpoint.megatron_lm import arguments
from nemolaunch.checkpoint.storage.dcp import METADATA, DcpSource
from nemolaunch.checkpoint.storage.formats import newest_of_megatron_lm
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.run.folder import BRIDGE_TOKENIZER, BRIDGE_TRACKER

# Classes of Bridge's configuration whose models are the same GPT
LIKE_ITS_OWN = (GPT, PROVIDERS["DeepSeekModel"])
RELEASE = "release"
SIZES = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "world_size", "data_parallel_size")
CONTENT = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}


@dataclass(frozen=True)
class MegatronLmFolder(IterationFolder):
    """A checked checkpoint folder, with the common state and the arguments in it."""

    common: Mapping[str, Any]
    args: Mapping[str, Any]

    @property
    def named_tokenizer(self) -> object:
        """The one that the command line named."""
        return self.args.get("tokenizer_model")


def record_newest(checkpoint: Path) -> None:
    """Record a complete checkpoint as the newest in its folder, as Megatron-LM does last."""
    word = checkpoint.name.removeprefix("iter_").lstrip("0") or "release"
    (checkpoint.parent / BRIDGE_TRACKER).write_text(word, encoding="utf-8")


def read_folder(path: Path) -> MegatronLmFolder:
    """Check a checkpoint folder, or the folder of several for the newest, and read the description of the model.

    Raises:
        UsageError: it is not a complete checkpoint.
        NemolaunchError: its arguments are missing, or of a model that nemolaunch does not convert.
    """
    found = newest_of_megatron_lm(path) if (path / BRIDGE_TRACKER).is_file() else path
    if found is None or not (found / METADATA).is_file():
        raise UsageError(f"{path} has no complete checkpoint of Megatron-LM")
    stored = DcpSource(found)
    try:
        common = state.common(stored)
        args = arguments.values_of(common.get("args"))
        config = arguments.nemo_config(args)
    except NemolaunchError as error:
        raise NemolaunchError(f"{found}: {error}") from error
    finally:
        stored.close()
    return MegatronLmFolder(found, config, common, args)


def check(config: NemoConfig) -> None:
    """Raise `NemolaunchError` unless Megatron-LM's command line can say what the model is."""
    if provider_of(config.model_class, config.config_class) not in LIKE_ITS_OWN:
        raise NemolaunchError(
            f"{config.model_class} with {config.config_class} has code of its own, for which pretrain_gpt.py of "
            "Megatron-LM has no arguments"
        )


def begin(
    output: Path,
    config: NemoConfig,
    tokenizer: Path,
    parameters: Mapping[str, TensorInfo],
    fields: Mapping[str, Any],
) -> WeightsSink:
    """Write everything but the weights of a new folder, and return the sink of its weights.

    Megatron-LM calls a checkpoint without training state a release, and starts at step 0 from it.

    Args:
        tokenizer: the folder with the tokenizer.
        fields: those of `config`, with what the model's family adds.
    """
    checkpoint = output / RELEASE
    rows = parameters[EMBEDDING].shape[0]
    args = arguments.recorded(config, padded_vocab_size=rows, no_save_optim=True, **dict.fromkeys(SIZES, 1))
    common = {"args": args, "checkpoint_version": 3.0, "iteration": 0, "content_metadata": CONTENT}
    sink = WeightsSink(checkpoint, parameters, fields, common)
    hf_folder.copy_tokenizer(tokenizer, checkpoint / BRIDGE_TOKENIZER)
    record_newest(checkpoint)
    return sink
