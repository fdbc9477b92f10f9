"""`nemolaunch models`: list the models that `--model-name` takes, or show one of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemolaunch import arithmetic, catalogue
from nemolaunch.catalogue import ModelSpec
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError
from nemolaunch.system.atomic_files import write_text

FILES = {"supported_model.txt": "model classes", "supported_config.txt": "config classes"}


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch models`."""
    p = Parser(
        prog="nemolaunch models",
        example="nemolaunch models --filter llama\nnemolaunch models llama32_1b --json",
        description="List the models that --model-name takes, or show one of them.",
    )
    p.add_argument("name", nargs="?", metavar="MODEL", help="recipe, flavour or YAML file to show")
    p.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="TEXT",
        help="list only models with this text in their name or class, in any case; repeatable, all must occur",
    )
    p.add_argument(
        "--vocab-size", type=int, metavar="N", help="vocabulary size of the tokenizer, for parameter counts"
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument(
        "--conversion",
        action="store_true",
        help="list the model and config classes that ckpt_conversion/ takes instead",
    )
    p.add_argument(
        "--write",
        nargs="?",
        const=".",
        metavar="DIR",
        help="write these to supported_model.txt and supported_config.txt in DIR (default: the current folder)",
    )
    return p


def supported_files() -> dict[str, str]:
    """Return the content of supported_model.txt and supported_config.txt: one class per line."""
    known = catalogue.hf_configs()
    configs = [config for group in known.values() for config in group]
    return {
        "supported_model.txt": "".join(f"{name}\n" for name in known),
        "supported_config.txt": "".join(f"{name}\n" for name in configs),
    }


def summary(model: ModelSpec, tokenizer_vocab_size: int | None = None) -> dict[str, Any]:
    """Return what the list shows of a model. Counts are parameters; `vocab_from` says where `vocab_rows` comes from."""
    a, r = model.architecture, model.recipe
    rows, origin = arithmetic.model_vocab_rows(model, tokenizer_vocab_size)
    counts = arithmetic.parameters(a, rows)
    rehearsal = catalogue.cpu_rehearsal(r, a)
    return {
        "name": model.name,
        "source": model.source,
        "recipe": r.name,
        "model_class": r.model_class,
        "config_class": r.config_class,
        "vocab_rows": rows,
        "vocab_from": origin,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "parameters_without_embedding": counts.non_embedding,
        "num_layers": a.num_layers,
        "hidden_size": a.hidden_size,
        "seq_length": r.seq_length if not model.overrides else a.seq_length,
        "cpu_rehearsal": rehearsal.status,
        "cpu_rehearsal_reason": rehearsal.reason,
    }


def details(model: ModelSpec, tokenizer_vocab_size: int | None = None) -> dict[str, Any]:
    """Return everything that is known about a model."""
    row = summary(model, tokenizer_vocab_size)
    rows = row["vocab_rows"]
    counts = arithmetic.parameters(model.architecture, rows)
    components = ("attention", "mixer", "mlp", "router", "experts", "shared_experts", "norms")
    row["parameters_by_part"] = {
        "embedding": counts.embedding,
        "position_embedding": counts.position_embedding,
        "layer_embedding": counts.layer_embedding,
        "layer_projection": counts.layer_projection,
        **{name: counts.component(name) for name in components},
        "output_layer": counts.output_layer,
    }
    if model.architecture.kind != "t5":
        flops = arithmetic.flops_per_token(model.architecture, rows, row["seq_length"])
        row["flops_per_token"] = dataclasses.asdict(flops)
    row["architecture"] = dataclasses.asdict(model.architecture)
    row["overrides"] = model.overrides
    recipe = dataclasses.asdict(model.recipe)
    del recipe["architecture"]
    row["recipe_defaults"] = recipe
    return row


def _all_models(filters: Sequence[str]) -> list[ModelSpec]:
    """Return the models whose name or class contains all of these texts, in any case."""
    words = [word.lower() for word in filters]
    found = [
        model
        for model in _every_model()
        if all(word in f"{model.name} {model.recipe.model_class}".lower() for word in words)
    ]
    if not found:
        raise UsageError(f"--filter {' '.join(filters)}: no model has that in its name or class")
    return found


def _every_model() -> list[ModelSpec]:
    flavours = [catalogue.model(name) for name in catalogue.flavours()]
    flavours.sort(key=lambda model: (model.name.split("-")[0], model.architecture.hidden_size))
    names = [*(recipe.name for recipe in catalogue.recipes()), *catalogue.only_in_bridge()]
    return flavours + [catalogue.model(name) for name in names]


def short_count(count: int) -> str:
    """Format a parameter count: 63.2M, 8.03B."""
    for unit, letter in ((10**9, "B"), (10**6, "M")):
        if count >= 0.9995 * unit:
            amount = count / unit
            return f"{amount:.{2 if amount < 9.995 else 1 if amount < 99.95 else 0}f}{letter}"
    return f"{count:,}"


def _layout(model: ModelSpec) -> str:
    r = model.recipe
    sizes = {
        "TP": r.tensor_model_parallel_size,
        "PP": r.pipeline_model_parallel_size,
        "VPP": r.virtual_pipeline_model_parallel_size or 1,
        "CP": r.context_parallel_size,
        "EP": r.expert_model_parallel_size,
    }
    return " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1) or "-"


def _print_table(header: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_list(models: list[ModelSpec], vocab_size: int | None) -> None:
    lines = []
    for model in models:
        row = summary(model, vocab_size)
        size = short_count(row["parameters"])
        if row["active_parameters"] != row["parameters"]:
            size += f" ({short_count(row['active_parameters'])} active)"
        layout = _layout(model) if not model.overrides else "-"
        size += " (Bridge only)" if model.recipe.bridge_provider else ""
        lines.append(
            (model.name, size, str(row["seq_length"]), row["model_class"], layout, row["cpu_rehearsal"])
        )
    _print_table(("name", "parameters", "seq", "model class", "NeMo's layout", "on a CPU"), lines)
    print(
        "\nUse these names with --model-name. First come the flavours shipped as YAML files, which can serve as"
    )
    print(
        "templates for custom models, then NeMo's recipes, then what only Megatron-Bridge has (--backend bridge)."
    )
    print("Parameters are counted with the vocabulary of the family's published tokenizer.")


def _print_details(row: dict[str, Any]) -> None:
    for key, value in row.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                print(f"  {name}: {_shown(item)}")
        else:
            print(f"{key}: {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10**6:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, (list, tuple, bool)) or value is None else str(value)


def conversions() -> list[dict[str, Any]]:
    """Return for each NeMo model class its configs and the Hugging Face models that convert from and to it.

    Models that only Megatron-Bridge has follow, under transformers' class with Bridge's configuration.
    """
    from nemolaunch.families.registry import FAMILIES

    only = {one.model_class: (one.config_class,) for one in FAMILIES.values() if one.only_in_bridge}
    return [
        {
            "model_class": name,
            "configs": list(configs),
            "families": [
                {
                    "model_type": family.model_type,
                    "architecture": family.architecture,
                    "refused": family.refused,
                    "caveat": family.caveat,
                }
                for family in FAMILIES.values()
                if name == family.model_class or name in family.also
            ],
        }
        for name, configs in {**catalogue.hf_configs(), **only}.items()
    ]


def _print_conversion(as_json: bool) -> None:
    rows = conversions()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['model_class']}: {', '.join(row['configs'])}")
        for family in row["families"]:
            print(f"  {family['model_type']} ({family['architecture']})")
            for label, text in (("refused", family["refused"]), ("note", family["caveat"])):
                if text:
                    print(f"    {label}: {text}")


def _write(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"--write: there is no folder {folder}.")
    for name, text in supported_files().items():
        path = folder / name
        try:
            write_text(path, text)
        except OSError as error:
            raise UsageError(f"--write: cannot write {path}: {error.strerror}.") from error
        print(f"wrote {path}: {len(text.splitlines())} {FILES[name]}")


@guarded
def main(argv: list[str] | None = None) -> int:
    """List or show models, or write the lists. Return the exit code."""
    options = parser().parse_args(argv)
    if options.vocab_size is not None and options.vocab_size < 1:
        raise UsageError(f"--vocab-size {options.vocab_size} is out of range: it must be at least 1.")
    if options.write is not None:
        _write(Path(options.write))
    elif options.conversion:
        _print_conversion(options.json)
    elif options.name:
        row = details(catalogue.model(options.name), options.vocab_size)
        print(json.dumps(row, indent=2)) if options.json else _print_details(row)
    elif options.json:
        print(
            json.dumps(
                [summary(model, options.vocab_size) for model in _all_models(options.filter)], indent=2
            )
        )
    else:
        _print_list(_all_models(options.filter), options.vocab_size)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
