"""The `context/` of a NeMo 2 checkpoint: the model's configuration, tokenizer and generation config."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.nemo2.fiddle_json import Call, Symbol, dumps
from nemolaunch.families.description import reading, refuse_absurd_sizes
from nemolaunch.families.nemo_config import NemoConfig, classes, defaults, model_module, symbol

GENERATION = "generation_config.json"
TOKENIZER, ARTIFACTS = "tokenizer", "artifacts"
AUTO_TOKENIZER = ("nemo.collections.common.tokenizers.huggingface.auto_tokenizer", "AutoTokenizer")
FROM_PRETRAINED = ("nemo.lightning.io.artifact.hf_auto", "from_pretrained")
GENERATION_CONFIG = ("transformers.generation.configuration_utils", "GenerationConfig")


def write_context(
    folder: Path,
    config: NemoConfig,
    model: Path,
    trainer: Call | None = None,
    optimizer: Call | None = None,
    generation: Path | None = None,
) -> None:
    """Write the context of a model whose tokenizer and generation config are in the folder `model`.

    Args:
        trainer, optimizer: those of its training; by default a trainer that does not save an optimizer.
        generation: the generation config, if it is elsewhere.
    """
    generation = generation or model / GENERATION
    folder.mkdir(parents=True)
    hf_folder.copy_tokenizer(model, folder / TOKENIZER)
    generates = generation.is_file() and "generation_config" in defaults(config.config_class)
    if generates:
        (folder / ARTIFACTS).mkdir()
        shutil.copyfile(generation, folder / ARTIFACTS / GENERATION)
    (folder / "io.json").write_text(
        dumps(_trainer_context(config, generates, trainer, optimizer)), encoding="utf-8"
    )
    (folder / "model.yaml").write_text(_model_yaml(config, generates), encoding="utf-8")


def read_config(folder: Path) -> NemoConfig:
    """Return the configuration that a context records, with every field.

    Raises `NemolaunchError` if `model.yaml` is missing or does not describe a model.
    """
    import yaml

    path = folder / "model.yaml"
    with reading(path, "NeMo"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        fields = dict(content["config"])
        model, config = str(content["_target_"]), str(fields.pop("_target_"))
    refuse_absurd_sizes(path, fields)
    return NemoConfig(model.rpartition(".")[2], config.rpartition(".")[2], fields)


def recorded_tokenizer(folder: Path) -> str | None:
    """Return the tokenizer that a context names: a folder within it, a path, a Hub id, or None."""
    import yaml

    content = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    tokenizer = content.get("tokenizer") if isinstance(content, dict) else None
    name = tokenizer.get("pretrained_model_name") if isinstance(tokenizer, dict) else None
    return str(name) if name else None


def _trainer_context(
    config: NemoConfig, generates: bool, trainer: Call | None, optimizer: Call | None
) -> Call:
    module = classes()[config.config_class]["module"]
    arguments: dict[str, Any] = {name: _argument(value) for name, value in config.fields.items()}
    if generates:
        arguments["generation_config"] = Call(
            *FROM_PRETRAINED,
            {"auto_cls": Symbol(*GENERATION_CONFIG), "pretrained_model_name_or_path": f"./{ARTIFACTS}"},
        )
    model = Call(
        model_module(config.model_class),
        config.model_class,
        {
            "config": Call(module, config.config_class, arguments),
            "tokenizer": Call(*AUTO_TOKENIZER, {"pretrained_model_name": TOKENIZER}),
            **({"optim": optimizer} if optimizer else {}),
        },
    )
    trainer = trainer or trainer_call({"ckpt_save_optimizer": False})
    return Call("nemo.lightning.io.pl", "TrainerContext", {"model": model, "trainer": trainer, "extra": {}})


def trainer_call(strategy: Mapping[str, Any], **arguments: Any) -> Call:
    """Return NeMo's trainer with arguments of its strategy and of its own."""
    megatron = Call("nemo.lightning.pytorch.strategies.megatron_strategy", "MegatronStrategy", strategy)
    return Call(
        "nemo.lightning.pytorch.trainer",
        "Trainer",
        {"accelerator": "cpu", "strategy": megatron, "devices": 1, **arguments},
    )


# Functions under the names that NeMo's own checkpoints have for them
NAMES = {
    "torch._C._nn.gelu": "torch.nn.functional.gelu",
    "megatron.core.activations.squared_relu": "nemo.collections.llm.fn.activation.squared_relu",
}


def _argument(value: Any) -> Any:
    if isinstance(value, dict) and value.get("_call_") is False:
        path = str(value["_target_"])
        module, _, name = NAMES.get(path, path).rpartition(".")
        return Symbol(module, name)
    return value


def _model_yaml(config: NemoConfig, generates: bool) -> str:
    import yaml

    module = classes()[config.config_class]["module"]
    fields = {"_target_": f"{module}.{config.config_class}", **config.resolved}
    if generates:
        fields["generation_config"] = {
            "_target_": ".".join(FROM_PRETRAINED),
            "auto_cls": symbol(".".join(GENERATION_CONFIG)),
            "pretrained_model_name_or_path": f"./{ARTIFACTS}",
        }
    tokenizer = {"_target_": ".".join(AUTO_TOKENIZER), "pretrained_model_name": TOKENIZER}
    content = {
        "_target_": f"{model_module(config.model_class)}.{config.model_class}",
        "config": fields,
        "tokenizer": tokenizer,
    }
    return str(yaml.safe_dump(content))
