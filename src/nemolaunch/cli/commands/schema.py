"""`nemolaunch schema`: print a JSON Schema of `--config` files, so that editors can complete and check them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.job import SECRETS, specs
from nemolaunch.job.fields import FieldSpec

TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}
SCALED_PATTERN = r"^[0-9][0-9_,]*(\.[0-9]+)?\s*[kKmMbBgGtT]?$"


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch schema`."""
    return Parser(
        prog="nemolaunch schema",
        example="nemolaunch schema > job.schema.json",
        description="Print a JSON Schema of the YAML file that --config takes. In VS Code, add it to yaml.schemas, "
        "or start the file with: # yaml-language-server: $schema=FILE",
    )


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print the schema."""
    parser().parse_args(argv)
    print(json.dumps(schema(), indent=2))
    return 0


def schema() -> dict[str, Any]:
    """Return the schema of a job. Names are spelt as in the files that `generate-config` writes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pretraining job of nemolaunch",
        "type": "object",
        "additionalProperties": False,
        "properties": {spec.name: _property(spec) for spec in specs() if spec.name not in SECRETS},
    }


def _property(spec: FieldSpec) -> dict[str, Any]:
    default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    about = {"description": spec.help, "default": default}
    if spec.many:
        items = {"type": ["string", "number"]}
        return {**about, "oneOf": [{"type": "array", "items": items}, {"type": "string"}]}
    kinds = [TYPES[spec.kind], *(["null"] if spec.optional else [])]
    if spec.scaled:
        return {**about, "type": [*kinds, "string"], "pattern": SCALED_PATTERN}
    if spec.choices:
        return {**about, "enum": [*spec.choices, *([None] if spec.optional else [])]}
    return {**about, "type": kinds if len(kinds) > 1 else kinds[0]}


if __name__ == "__main__":
    sys.exit(main())
