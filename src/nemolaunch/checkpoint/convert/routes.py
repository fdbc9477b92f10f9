"""All conversions.

Formats that describe the model (`hf`, `nemo2`, `bridge`, `meta`) are read as a `ModelView` and written from one. The
others (`torch`, `safetensors`, `dcp`) are tensors with whatever names they have; making a model of them takes a folder
that describes it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from nemolaunch.checkpoint.convert import bare, between
from nemolaunch.checkpoint.convert.conversion import ModelConversion
from nemolaunch.checkpoint.convert.copying import CopyConversion
from nemolaunch.checkpoint.convert.exported import ExportedSource
from nemolaunch.checkpoint.convert.options import Conversion, Options, Route
from nemolaunch.checkpoint.convert.prepare import prepare_export, prepare_export_like, prepare_import
from nemolaunch.checkpoint.convert.sides import SIDES
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf import output as hf_output
from nemolaunch.checkpoint.hf.config_diff import differences
from nemolaunch.checkpoint.hf.quantisation import check_quantised
from nemolaunch.checkpoint.hf.tokenizer_check import tokenizer_check
from nemolaunch.checkpoint.hf.view import ModelView
from nemolaunch.checkpoint.hf.weights import HfWeights, open_tensors, open_weights
from nemolaunch.checkpoint.megatron.folder import MegatronFolder
from nemolaunch.checkpoint.megatron.names import EMBEDDING, MegatronSource, is_stacked
from nemolaunch.checkpoint.megatron_lm import legacy
from nemolaunch.checkpoint.meta import folder as meta_folder
from nemolaunch.checkpoint.migrate import migration
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.formats import FORMATS, detect
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.checkpoint.storage.wrappers import Renamed
from nemolaunch.errors import UsageError
from nemolaunch.families import registry

LEGACY = "megatron-legacy"  # which is only read
READERS: dict[str, Callable[[Path], MegatronFolder]] = {
    **{form: side.read for form, side in SIDES.items()},
    LEGACY: legacy.read_folder,
}
MODELS = ("hf", *READERS, "meta")
BARE = ("torch", "safetensors", "dcp")
# Not in params.json, and so only assumed when it is read back
NOT_IN_META = {"max_position_embeddings"}


def hf_view(path: Path, options: Options) -> ModelView:
    """Return the model in a Hugging Face folder."""
    folder = hf_folder.read_folder(path)
    weights = open_weights(folder)
    return ModelView(
        config={**folder.config, "torch_dtype": folder.dtype},
        source=weights.source,
        tokenizer=options.tokenizer or path,
        generation=path / hf_output.GENERATION,
        title=folder.model_type,
        left_out=weights.left_out,
        changed=weights.changed,
    )


def megatron_view(path: Path, options: Options, form: str) -> ModelView:
    """Return the model in a checkpoint of NeMo 2 or Megatron-Bridge."""
    return _exported_view(_export(path, options, form))


def _export(path: Path, options: Options, form: str) -> ModelConversion:
    trusted = options.trust_remote_code
    return prepare_export(READERS[form](path), options.tokenizer, trust_remote_code=trusted)


def _exported_view(conversion: ModelConversion) -> ModelView:
    source = ExportedSource(conversion.mapped, conversion.source)
    dtype = next(iter(source.tensors.values())).dtype
    config = conversion.hf_config
    if conversion.is_bidirectional:
        config = bidirectional.bidirectional_config(config)
    return ModelView(
        config={**config, "torch_dtype": dtype},
        source=source,
        tokenizer=conversion.tokenizer,
        generation=conversion.generation,
        title=conversion.config.model_class,
        left_out=conversion.left_out,
        changed=conversion.changed,
    )


def meta_view(path: Path, options: Options) -> ModelView:
    """Return the model in a folder of Meta's layout."""
    return meta_folder.read_view(path, options.tokenizer)


def bare_view(path: Path, options: Options, form: str) -> ModelView:
    """Return the model whose tensors are in a file or folder, and which another folder describes."""
    if options.config_from is None:
        raise UsageError(
            f"{path} has only tensors and does not describe the model ({FORMATS[form]}): use --config-from DIR with a "
            "folder "
            f"that has the model's config.json (or Meta's params.json) and tokenizer"
        )
    tokenizer = options.tokenizer or options.config_from
    source, left_out = _bare_model(bare.open_bare(path, form))
    if meta_folder.is_meta_named(source.tensors):
        return meta_folder.view_of(
            source, _params(options.config_from), meta_folder.find_tokenizer(tokenizer)
        )
    config = hf_folder.read_config(options.config_from / "config.json")
    if EMBEDDING in source.tensors:
        view = _exported_view(prepare_export_like(source, hf_folder.HfFolder(tokenizer, config)))
        return dataclasses.replace(
            view, title=f"{view.title} in {form}", generation=options.config_from / hf_output.GENERATION
        )
    family_type = str(config.get("model_type"))
    dtype = next(iter(source.tensors.values())).dtype
    return ModelView(
        config={**config, "torch_dtype": dtype},
        source=source,
        tokenizer=tokenizer,
        generation=options.config_from / hf_output.GENERATION,
        title=f"{family_type} in {form}",
        left_out=left_out,
    )


def _bare_model(stored: TensorSource) -> tuple[TensorSource, list[str]]:
    if isinstance(stored, DcpSource) and is_stacked(stored.tensors):
        model = MegatronSource(stored)
        return model, model.training_state
    return bare.model_only(stored)


VIEWS: dict[str, Callable[[Path, Options], ModelView]] = {
    "hf": hf_view,
    **{form: functools.partial(megatron_view, form=form) for form in READERS},
    "meta": meta_view,
    **{form: functools.partial(bare_view, form=form) for form in BARE},
}


def _to_megatron(path: Path, options: Options, to: str) -> Conversion:
    if to != "nemo2":
        _refuse_classes(options)
    form = detect(path)
    if form in SIDES and not options.weights_only and migration.has_training(migration.READ[form](path)):
        _refuse_classes(options)
        return migration.prepare(path, to, options.tokenizer)
    if form in SIDES and between.is_only_way(path, form, to):
        _refuse_classes(options)
        return between.prepare(migration.READ[form](path), to, options.tokenizer)
    named = options.model_class, options.config_class
    if form == "hf":
        return prepare_import(
            hf_folder.read_folder(path),
            to,
            tokenizer=options.tokenizer,
            model_class=named[0],
            config_class=named[1],
        )
    view = VIEWS[form](path, options)
    folder = hf_folder.HfFolder(view.tokenizer, view.config)
    weights = HfWeights(view.source, left_out=view.left_out)
    conversion = prepare_import(folder, to, weights=weights, model_class=named[0], config_class=named[1])
    conversion.changed.extend(view.changed)
    return conversion


def _to_hf(path: Path, options: Options) -> Conversion:
    _refuse_classes(options)
    form = detect(path)
    if form in READERS:
        return _export(path, options, form)
    view = VIEWS[form](path, options)
    _check_complete(view)

    def checks(output: Path) -> list[Check]:
        count, lines = differences(view.config, hf_folder.read_config(output / "config.json"), {"dtype"})
        return [Check("config", count, lines), tokenizer_check(view.tokenizer, output)]

    def extras(output: Path) -> None:
        config = {name: value for name, value in view.config.items() if name != "torch_dtype"}
        dtype = str(view.config["torch_dtype"])
        hf_output.write_extras(output, config, dtype, view.tokenizer, view.generation)

    return CopyConversion(
        title=f"{view.title} → Hugging Face",
        source=view.source,
        sink=lambda output: bare.write_bare(output, view.source.tensors, "safetensors", one_file=False),
        reader=lambda output: open_weights(hf_folder.read_folder(output)).source,
        extras=extras,
        checks=checks,
        left_out=view.left_out,
        changed=view.changed,
    )


def _to_meta(path: Path, options: Options) -> Conversion:
    _refuse_classes(options)
    view = VIEWS[detect(path)](path, options)
    params = meta_folder.params_of(view.config)  # raises if Meta's format cannot represent the model
    source = meta_folder.meta_source(view)
    back = set(source.tensors)

    def checks(output: Path) -> list[Check]:
        returned = meta_folder.read_view(output, view.tokenizer)
        count, lines = differences(view.config, returned.config, {"torch_dtype", *NOT_IN_META})
        returned.source.close()
        return [Check("config", count, lines), tokenizer_check(view.tokenizer, output)]

    return CopyConversion(
        title=f"{view.title} → Meta's layout, {params['n_layers']} layers",
        source=source,
        sink=lambda output: meta_folder.meta_sink(output, source.tensors),
        reader=lambda output: Renamed(
            bare.open_bare(output / meta_folder.FIRST_SHARD, "torch"), {name: name for name in back}
        ),
        extras=lambda output: meta_folder.write_extras(output, view),
        checks=checks,
        left_out=view.left_out,
        changed=[*view.changed, *meta_folder.tokenizer_note(view.tokenizer)],
    )


def _to_bare(path: Path, options: Options, form: str) -> Conversion:
    _refuse_classes(options)
    source, left_out, remarks = stored(path, options)
    bare_copy = ["the configuration and the tokenizer are not included"] if detect(path) in MODELS else []
    return CopyConversion(
        title=f"{detect(path)} → {form}",
        source=source,
        sink=lambda output: bare.write_bare(output, source.tensors, form, one_file=options.one_file),
        reader=lambda output: bare.open_bare(output, form),
        left_out=left_out,
        changed=[*remarks, *bare_copy],
    )


def stored(path: Path, options: Options) -> tuple[TensorSource, list[str], list[str]]:
    """Return the tensors of any format with the names of its model, the names of what is omitted, and remarks."""
    form = detect(path)
    if form == "hf":
        weights = open_tensors(hf_folder.read_folder(path))
        check_quantised(path, weights.source.tensors)
        return weights.source, weights.left_out, weights.changed
    if form == "meta":
        return meta_folder.stored(path), [], []
    if form == LEGACY:
        model = legacy.read_folder(path).source()
        return model, model.training_state, []
    if form in SIDES:
        return *_parameters(SIDES[form].read(path).weights, options), []
    source = bare.open_bare(path, form)
    objects = list(bare.objects_of(source))
    if not options.weights_only:
        return source, objects, []
    found, left_out = bare.model_only(source)
    return found, [*left_out, *objects], []


def _parameters(weights: Path, options: Options) -> tuple[TensorSource, list[str]]:
    """Return a Megatron checkpoint's parameters by layer, with the model's names, and the optimizer state."""
    stored = DcpSource(weights)
    model = MegatronSource(stored)
    if options.weights_only or not model.training_state:
        return model, [*model.training_state, *stored.objects]
    state = Renamed(stored, {name: name for name in model.training_state})
    return bare.CombinedSource([model, state]), list(stored.objects)


def _refuse_classes(options: Options) -> None:
    if options.model_class:
        raise UsageError("--model-name and --model-config-name only apply to --to nemo2")


def _check_complete(view: ModelView) -> None:
    """Refuse tensors that do not match the configuration, if it is of a family that NeMo knows."""
    family = registry.FAMILIES.get(str(view.config.get("model_type")))
    if family:
        folder = hf_folder.HfFolder(view.tokenizer, view.config)
        to = "bridge" if family.only_in_bridge else "nemo2"
        prepare_import(folder, to, weights=HfWeights(view.source))


def _params(folder: Path) -> dict[str, object]:
    if (folder / meta_folder.PARAMS).is_file():
        return meta_folder.read_params(folder)
    if (folder / "config.json").is_file():
        return meta_folder.params_of(hf_folder.read_config(folder / "config.json"))
    raise UsageError(f"--config-from {folder} has neither {meta_folder.PARAMS} nor config.json")


# By source and target format
ROUTES: dict[tuple[str, str], Route] = {
    **{(form, to): functools.partial(_to_megatron, to=to) for form in FORMATS for to in SIDES if form != to},
    **{(form, "hf"): _to_hf for form in FORMATS if form != "hf"},
    **{(form, "meta"): _to_meta for form in FORMATS if form != "meta"},
    **{(form, to): functools.partial(_to_bare, form=to) for form in FORMATS for to in BARE if form != to},
}
