"""NeMo's own converters and loaders, in the fork server's process, on what nemolaunch converted and the reverse."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PROMPT = [0, 17, 300, 5, 42, 42, 7, 199, 23, 8, 64, 128]


def judge(
    hf: str, nemo: str, theirs: str | None, model_class: str, tables: bool, computes: bool
) -> dict[str, Any]:
    """NeMo's own import of the model into `theirs`, or its tables' result; and the logits of both."""
    found: dict[str, Any] = {}
    if theirs:
        nemo_import(hf, theirs, model_class)
    if tables:
        found["state"] = convert_state(hf, nemo, model_class)
    if computes:
        found["logits"] = logits(hf, nemo)
    return found


def logits(hf: str, nemo: str) -> dict[str, float]:
    """Largest difference of logits between a Hugging Face model and a NeMo checkpoint, and the largest logit."""
    from nemolaunch.nemo2.logits import hf_logits, nemo_logits

    theirs, ours = hf_logits(Path(hf), PROMPT), nemo_logits(Path(nemo), PROMPT)
    ours = ours[:, : theirs.size(-1)]
    return {"difference": float((ours - theirs).abs().max()), "size": float(theirs.abs().max())}


def nemo_import(hf: str, nemo: str, model_class: str) -> None:
    """`llm.import_ckpt`, but for the tokenizer, which NeMo would write to one path for all."""
    from nemo.collections import llm
    from nemo.lightning.io.connector import ModelConnector

    from nemolaunch.checkpoint.hf.folder import copy_tokenizer

    folder = Path(nemo).with_name("tokenizer")
    copy_tokenizer(Path(hf), folder)
    ModelConnector.save_hf_tokenizer_assets = lambda *_: str(folder)
    getattr(llm, model_class).importer(f"hf://{hf}").apply(Path(nemo))


def nemo_export(nemo: str, hf: str) -> None:
    """`llm.export_ckpt`."""
    from nemo.collections import llm

    llm.export_ckpt(path=Path(nemo), target="hf", output_path=hf, overwrite=True)


def restored(nemo: str) -> dict[str, Any]:
    """What NeMo's `RestoreConfig` and `load_context` say of a checkpoint."""
    from nemo.lightning import RestoreConfig
    from nemo.lightning.io import load_context

    config = load_context(Path(RestoreConfig(path=nemo).path), subpath="model.config")
    fields = ("num_layers", "hidden_size", "vocab_size", "seq_length", "params_dtype")
    return {"class": type(config).__name__, **{name: str(getattr(config, name)) for name in fields}}


def convert_state(hf: str, nemo: str, model_class: str) -> dict[str, Any]:
    """Run NeMo's own tables and transforms both ways on stand-ins for the models, without building either.

    Returns the names of tensors that are not, bit for bit, those of the folders `hf` and `nemo`.
    """
    import torch
    from nemo.collections import llm

    from nemolaunch.checkpoint.hf.folder import read_folder
    from nemolaunch.checkpoint.hf.weights import open_weights
    from nemolaunch.checkpoint.nemo2.folder import read_folder as read_nemo2
    from nemolaunch.families import registry

    folder, checkpoint = read_folder(Path(hf)), read_nemo2(Path(nemo))
    family = registry.of_hf(folder.config)
    source = open_weights(folder, family.prefixes).source
    stored = checkpoint.source()
    hf_tensors = {name: source.read(name) for name in source.tensors}
    nemo_tensors = _whole({name: stored.read(name) for name in stored.tensors})
    config = SimpleNamespace(**_megatron(checkpoint.config.resolved))
    rows = hf_tensors[family.hf_name("embedding.word_embeddings.weight")].shape[0]
    hf_config = SimpleNamespace(**{**folder.config, "vocab_size": rows})
    if family.tied_by_default and "output_layer.weight" in nemo_tensors:
        hf_tensors["lm_head.weight"] = nemo_tensors["output_layer.weight"]

    published = {
        name: tensor.transpose(1, 2).contiguous()
        if family.model_type == "gpt_oss" and tensor.dim() == 3
        else tensor
        for name, tensor in hf_tensors.items()
    }  # NeMo imports GPT-OSS as it is published, in MXFP4, and exports it as transformers has it
    model = getattr(llm, model_class)
    importer, exporter = model.importer(f"hf://{hf}"), model.exporter("hf", nemo)
    importer.convert_mtp = importer.trust_remote_code = exporter.trust_remote_code = False
    target = _stand_in({name: torch.zeros_like(tensor) for name, tensor in nemo_tensors.items()}, config)
    result = importer.convert_state(_stand_in(published, hf_config), target)
    wrong = _different(nemo_tensors, dict((result or target).named_parameters()))

    target = _stand_in({name: torch.zeros_like(tensor) for name, tensor in hf_tensors.items()}, hf_config)
    back = _export_state(exporter, nemo_tensors, config, target)
    return {"to nemo": wrong, "to hf": _different(hf_tensors, dict(back.named_parameters()))}


def _export_state(exporter: Any, tensors: dict[str, Any], config: Any, target: Any) -> Any:
    if "DeepSeek" in type(exporter).__name__:
        return exporter.convert_state(dict(tensors), target, vars(config))
    if config.__dict__.get("qk_l2_norm") is not None and hasattr(config, "nope_layer_interval"):
        return exporter.convert_state(_stacked_experts(tensors), target, config)
    return exporter.convert_state(_stand_in(tensors, config), target)


def _stacked_experts(tensors: dict[str, Any]) -> dict[str, Any]:
    """As Llama 4's exporter reads a checkpoint: the experts of a layer in one tensor."""
    import re

    import torch

    result: dict[str, Any] = {}
    experts: dict[str, list[Any]] = {}
    for name, tensor in tensors.items():
        match = re.match(r"(.*\.experts)\.(linear_fc[12]\.weight)\d+$", name)
        if match:
            experts.setdefault(f"{match[1]}.experts.{match[2]}", []).append(tensor)
        else:
            result[name] = tensor
    return {**result, **{name: torch.stack(parts) for name, parts in experts.items()}}


def _stand_in(tensors: dict[str, Any], config: Any) -> Any:
    """A module with parameters of these names, as far as NeMo's converters look at it."""
    import torch
    from megatron.core.transformer.identity_op import IdentityOp

    root = torch.nn.Module()
    for name, tensor in tensors.items():
        module = root
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]  # type: ignore[assignment]
        module.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    norms = SimpleNamespace(q_layernorm=IdentityOp(), kv_layernorm=IdentityOp())
    layer = SimpleNamespace(self_attention=norms, pre_mlp_layernorm=IdentityOp())
    object.__setattr__(root, "module", SimpleNamespace(decoder=SimpleNamespace(layers=[layer])))
    root.config = config
    return root


def _megatron(fields: dict[str, Any]) -> dict[str, Any]:
    from nemolaunch.families.param_shapes import ModelSizes

    sizes = ModelSizes(fields)
    return {**fields, "num_query_groups": sizes.groups, "kv_channels": sizes.head_dim}


def _whole(tensors: dict[str, Any]) -> dict[str, Any]:
    """As the model names its parameters: Mamba's projections in one."""
    import torch

    parts: dict[str, dict[str, Any]] = {}
    result = {}
    for name, tensor in tensors.items():
        head, _, last = name.rpartition(".")
        if last in ("z", "x", "B", "C", "dt"):
            parts.setdefault(head, {})[last] = tensor
        else:
            result[name] = tensor
    for name, pieces in parts.items():
        order = ("z", "x", "B", "C", "dt") if "in_proj" in name else ("x", "B", "C")
        result[name] = torch.cat([pieces[part] for part in order])
    return result


def _different(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    import torch

    if expected.keys() != got.keys():
        return sorted(expected.keys() ^ got.keys())
    return [name for name, tensor in expected.items() if not torch.equal(tensor, got[name])]


def importer_config(hf: str, model_class: str) -> dict[str, Any]:
    """Fields of the configuration that NeMo's own importer makes, as JSON can hold them."""
    import dataclasses

    from nemo.collections import llm

    importer = getattr(llm, model_class).importer(f"hf://{hf}")
    importer.convert_mtp = importer.trust_remote_code = False
    config = importer.config
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {"class": type(config).__name__, **json.loads(json.dumps(values, default=str))}


def configs_table() -> dict[str, Any]:
    """The defaults of NeMo's configuration classes, as `nemo_configs.json` has them."""
    from nemolaunch.nemo2.config_dump import configs_table as table

    return json.loads(json.dumps(table()))
