"""A summary of a checkpoint, made without reading its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nemolaunch.checkpoint.bridge import folder as bridge_folder
from nemolaunch.checkpoint.bridge import state as bridge_state
from nemolaunch.checkpoint.convert import bare
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.weights import open_weights
from nemolaunch.checkpoint.megatron.folder import MegatronFolder
from nemolaunch.checkpoint.megatron_lm import folder as megatron_lm_folder
from nemolaunch.checkpoint.megatron_lm import legacy
from nemolaunch.checkpoint.meta import folder as meta_folder
from nemolaunch.checkpoint.nemo2 import folder as nemo2_folder
from nemolaunch.checkpoint.nemo2.recorded import recorded
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.formats import detect, newest_of_run
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.checkpoint.storage.torch_file import TorchFile
from nemolaunch.errors import NemolaunchError

LAYOUT = {
    "tensor_model_parallel_size": "TP",
    "pipeline_model_parallel_size": "PP",
    "virtual_pipeline_model_parallel_size": "VPP",
    "context_parallel_size": "CP",
    "expert_model_parallel_size": "EP",
    "expert_tensor_parallel_size": "ETP",
}
# Layouts of the distributed optimizer's state that can be loaded with another parallel layout
# (megatron.core.optimizer.distrib_optimizer)
RESHARDABLE = {"fully_reshardable", "fully_sharded_model_space", "fully_sharded_model_space_v2"}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a checkpoint contains.

    Attributes:
        format: one of `FORMATS`.
        model: the family or class of the model, if recorded.
        parameters: the number of model parameters, without training state.
        bytes: the size of all model tensors.
        tensors: the number of model tensors.
        dtypes: the number of parameters of each dtype.
        step: the optimizer steps done; None if it is not a training checkpoint.
        samples, tokens: how many were seen in training, if recorded.
        layout: the parallel layout it was saved with, short name → size.
        processes: how many processes saved it.
        optimizer: whether it has optimizer state.
        optimizer_layout: how that state is sharded, in Megatron's terms.
        versions: the recorded versions of the software that wrote it.
        config: the configuration, as the format has it.
    """

    path: str
    format: str
    model: str | None = None
    parameters: int = 0
    bytes: int = 0
    tensors: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    step: int | None = None
    samples: int | None = None
    tokens: int | None = None
    layout: dict[str, int] = field(default_factory=dict)
    processes: int | None = None
    optimizer: bool = False
    optimizer_layout: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def resumable(self) -> bool:
        """Whether training can resume from it where it stopped."""
        return self.optimizer and self.step is not None


def summarise(path: Path) -> Summary:
    """Summarise a checkpoint in any format.

    Raises:
        UsageError: it is not a checkpoint.
        NemolaunchError: it is damaged or incomplete.
    """
    path = newest_of_run(path.expanduser().absolute())
    form = detect(path)
    if form == "nemo2":
        return _nemo2(path)
    if form == "bridge":
        return _bridge(path)
    if form == "megatron-lm":
        return _megatron_lm(path)
    if form == "megatron-legacy":
        return _legacy(path)
    if form == "hf":
        return _hf(path)
    if form == "meta":
        source = meta_folder.stored(path)
        facts = _of_tensors({n: i for n, i in source.tensors.items() if not n.endswith("rope.freqs")})
        source.close()
        return Summary(
            path=str(path), format=form, model="llama", config=meta_folder.read_params(path), **facts
        )
    stored = bare.open_bare(path, form)
    model, left_out = bare.model_only(stored)
    facts = _of_tensors(model.tensors)
    stored.close()
    optimizer = any("optim" in name for name in left_out)
    return Summary(path=str(path), format=form, optimizer=optimizer, **facts)


def _hf(path: Path) -> Summary:
    folder = hf_folder.read_folder(path)
    weights = open_weights(folder)
    facts = _of_tensors(weights.source.tensors)
    weights.source.close()
    version = folder.config.get("transformers_version")
    return Summary(
        path=str(path),
        format="hf",
        model=folder.model_type,
        versions={"transformers": str(version)} if version else {},
        config=folder.config,
        **facts,
    )


def _nemo2(path: Path) -> Summary:
    folder = nemo2_folder.read_folder(path)
    common = _common(folder.weights)
    trainer = recorded(folder.path / "context" / "io.json")["trainer"]
    step = common.get("global_step")
    trained = bool(common.get("loops")) and isinstance(step, int)
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes") or 1
    return _of_megatron(
        folder,
        "nemo2",
        step=step if trained else None,
        samples=_samples(common),
        layout={short: int(trainer[name]) for name, short in LAYOUT.items() if trainer.get(name)},
        processes=int(devices) * int(nodes) if isinstance(devices, int) else None,
        common=common,
        versions=_versions(common),
    )


def _bridge(path: Path) -> Summary:
    folder = bridge_folder.read_folder(path)
    stored = DcpSource(folder.weights)
    common = bridge_state.common(stored)
    stored.close()
    step, samples = bridge_state.progress(folder.path)
    return _of_megatron(
        folder,
        "bridge",
        step=step or None,
        samples=samples if step else None,
        layout=_layout(folder.run_config.model),
        processes=bridge_state.num_writers(folder.path),
        common=common,
    )


def _megatron_lm(path: Path) -> Summary:
    folder = megatron_lm_folder.read_folder(path)
    step = int(folder.common.get("iteration") or 0)
    return _of_megatron(
        folder,
        "megatron-lm",
        step=step or None,
        samples=folder.args.get("consumed_train_samples") if step else None,
        layout=_layout(folder.args),
        processes=folder.args.get("world_size"),
        common=folder.common,
    )


def _legacy(path: Path) -> Summary:
    folder = legacy.read_folder(path)
    step = folder.step or None
    size = folder.args.get("world_size")
    return _of_megatron(folder, "megatron-legacy", step=step, layout=_layout(folder.args), processes=size)


def _of_megatron(
    folder: MegatronFolder,
    form: str,
    *,
    step: int | None,
    samples: int | None = None,
    layout: dict[str, int],
    processes: int | None,
    common: Mapping[str, Any] = MappingProxyType({}),
    versions: dict[str, str] | None = None,
) -> Summary:
    """Return the summary of a checkpoint of Megatron's, of which the format says how far the training is.

    `common` is the state that all processes share.
    """
    source = folder.source()
    facts = _of_tensors(source.tensors)
    optimizer = bool(source.training_state)
    source.close()
    config = folder.config.resolved
    length, content = config.get("seq_length"), common.get("content_metadata")
    return Summary(
        path=str(folder.path),
        format=form,
        model=folder.config.model_class,
        step=step,
        samples=samples,
        tokens=samples * int(length) if samples and length else None,
        layout=layout if step is not None else {},
        processes=processes if step is not None else None,
        optimizer=optimizer,
        optimizer_layout=content.get("distrib_optim_sharding_type") if isinstance(content, dict) else None,
        versions=versions or {},
        config=config,
        **facts,
    )


def _layout(fields: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes that Megatron's fields of a layout have, short name → size."""
    layout = {short: size for name, short in LAYOUT.items() if isinstance(size := fields.get(name), int)}
    if layout.get("ETP") == layout.get("TP"):
        layout.pop("ETP", None)  # Megatron's default
    return layout


def _of_tensors(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    dtypes: Counter[str] = Counter()
    for info in tensors.values():
        dtypes[info.dtype] += info.numel
    return {
        "parameters": sum(dtypes.values()),
        "bytes": sum(info.nbytes for info in tensors.values()),
        "tensors": len(tensors),
        "dtypes": dict(dtypes.most_common()),
    }


def _common(weights: Path) -> dict[str, Any]:
    """Return the state that all processes share: step, loops, learning rate."""
    files = OpenFiles()
    try:
        content = TorchFile(weights / "common.pt", files).content
    except OSError as error:
        raise NemolaunchError(f"cannot read {weights / 'common.pt'}: {error.strerror or error}") from error
    finally:
        files.close()
    return dict(content) if isinstance(content, dict) else {}


def _samples(common: Mapping[str, Any]) -> int | None:
    for value in common.values():
        if isinstance(value, dict) and isinstance(value.get("consumed_samples"), (int, float)):
            return int(value["consumed_samples"])
    return None


def _versions(common: Mapping[str, Any]) -> dict[str, str]:
    version = common.get("pytorch-lightning_version")
    return {"lightning": str(version)} if version else {}
