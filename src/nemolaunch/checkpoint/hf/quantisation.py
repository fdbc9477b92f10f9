"""Whether a model folder's weights are quantised, how, and whether that can be undone here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.json_files import read_json

MODELOPT_FILE = "hf_quant_config.json"  # what ModelOpt writes besides, or instead of, `quantization_config`
FLOAT_FORMATS = ("float-quantized", "naive-quantized")  # of compressed-tensors, with weights in float8
# What to do about a method that cannot be undone here
ORIGINAL = "Convert the model it was made from, in 16 bits"
DEQUANTISE = (
    "transformers can undo it: AutoModelForCausalLM.from_pretrained({folder!r}).dequantize(), then save_pretrained to "
    "another folder. Or convert the model it was made from, in 16 bits"
)
ADVICE = {"bitsandbytes": DEQUANTISE, "hqq": DEQUANTISE}
# Tensor names that only quantised weights have, and the method they belong to
NAMES = (
    (re.compile(r"\.(qweight|qzeros|g_idx)$"), "GPTQ or AWQ"),
    (re.compile(r"\.(SCB|weight_format|absmax|quant_map|nested_absmax|quant_state\..+)$"), "bitsandbytes"),
    (re.compile(r"\.(weight_packed|weight_shape|weight_global_scale)$"), "compressed-tensors (packed)"),
    (re.compile(r"\.weight_scale_2$"), "modelopt (NVFP4)"),
    (re.compile(r"\.weight_zero_point$"), "weights with zero points"),
)  # fmt: skip
SCALE = re.compile(r"(weight|proj)_scale(_inv)?$")
STORED = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Quantisation:
    """How a folder says that its weights are quantised, by a method that can be undone.

    Attributes:
        method: the `quant_method`.
        block: rows and columns that share a scale; None if the configuration does not say it.
    """

    method: str
    block: tuple[int, int] | None = None


def quantisation_of(folder: Path, config: Mapping[str, Any]) -> Quantisation | None:
    """Return how the weights of a folder are quantised; None if its configuration says nothing of it.

    Raises `NemolaunchError` for a method that cannot be undone here, by its name.
    """
    stated = _stated(folder, config)
    if stated is None:
        return None
    method = _method(stated)
    detail = method
    if method in ("fp8", "fbgemm_fp8", "mxfp4"):
        return Quantisation(method, _pair(stated.get("weight_block_size")))
    if method == "compressed-tensors":
        form = stated.get("format")
        if form in FLOAT_FORMATS and not _sparse(stated):
            return Quantisation(method, _group_block(stated))
        detail = f"{method} in the format {form!r}" + (" with sparsity" if _sparse(stated) else "")
    if method == "modelopt":
        algorithm = stated.get("quant_algo")
        if algorithm is None or str(algorithm).upper().startswith("FP8"):  # None: only the cache is quantised
            return Quantisation(method)
        detail = f"{method} with {algorithm}"
    raise NemolaunchError(_refusal(folder, detail, method))


def check_quantised(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise `NemolaunchError` if any tensors are quantised and have not been turned into 16 bits."""
    for name, info in tensors.items():
        method = next((method for pattern, method in NAMES if pattern.search(name)), None)
        if method:
            raise NemolaunchError(_refusal(folder, f"{method}, going by {name}", method))
        if info.dtype.startswith("float8"):
            number = sum(other.dtype.startswith("float8") for other in tensors.values())
            raise NemolaunchError(
                f"{folder} has quantised weights without scales, so their values are not known: {number:,} in "
                f"{info.dtype}, such as {name}. Add the file with their scales ({name}_scale_inv or {name}_scale). "
                f"Or: {ORIGINAL}"
            )
        if name.endswith(".weight") and info.dtype not in STORED:
            raise NemolaunchError(_refusal(folder, f"weights in {info.dtype}, such as {name}"))
        if SCALE.search(name):
            raise NemolaunchError(_refusal(folder, f"{name} scales a weight that is not in float8"))


def _stated(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the folder says about quantisation."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for name in ("quantization_config", "compression_config", "quantization"):
            if part.get(name):
                found = part[name]
                return found if isinstance(found, dict) else {"quant_method": found}
    path = folder / MODELOPT_FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        return {"quant_method": "modelopt", **content["quantization"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NemolaunchError(
            f"cannot read {path}, which says how the weights are quantised: {error!r}"
        ) from error


def _method(stated: Mapping[str, Any]) -> str:
    """Return the name of the method. Older configurations do not have it."""
    method = stated.get("quant_method")
    if method:
        return str(method)
    if any(name.startswith("load_in_") for name in stated):
        return "bitsandbytes"
    if "quant_algo" in stated:
        return "modelopt"
    if "config_groups" in stated:
        return "compressed-tensors"
    return "MLX" if {"group_size", "bits"} <= set(stated) else "unnamed"


def _sparse(stated: Mapping[str, Any]) -> bool:
    sparsity = stated.get("sparsity_config")
    return isinstance(sparsity, dict) and sparsity.get("format") not in (None, "dense")


def _group_block(stated: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the block size of compressed-tensors, if all groups of layers have the same."""
    groups = stated.get("config_groups")
    sizes = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        weights = weights if isinstance(weights, dict) else {}
        if weights.get("strategy") == "group":
            sizes.add((1, int(weights["group_size"])) if weights.get("group_size") else None)
        else:
            sizes.add(_pair(weights.get("block_structure")))
    return sizes.pop() if len(sizes) == 1 else None


def _pair(value: Any) -> tuple[int, int] | None:
    """Return a block size written as [128, 128] or "128x128"; None if there is none."""
    parts = value.split("x") if isinstance(value, str) else value
    try:
        rows, columns = (int(part) for part in parts)
    except (TypeError, ValueError):
        return None
    return rows, columns


def _refusal(folder: Path, detail: str, method: str = "") -> str:
    return (
        f"{folder} is quantised: {detail}, which cannot be undone here; float8 and MXFP4 with scales can. "
        f"{ADVICE.get(method, ORIGINAL).format(folder=str(folder))}. If its weights are in 16 bits after all, remove "
        "quantization_config from its config.json"
    )
