"""Rewrite `classes.json` from the installed transformers: `python -m nemolaunch.tokenizer.classes_dump`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "classes.json"


def content() -> dict[str, Any]:
    """Return the names of transformers' tokenizer classes, and model type → class, all without `Fast`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    classes = {"PreTrainedTokenizer"}
    by_type: dict[str, str] = {}
    for model_type, names in TOKENIZER_MAPPING_NAMES.items():
        known = [name.removesuffix("Fast") for name in names if name]
        classes.update(known)
        if known:
            by_type[model_type] = known[-1]
    others = sorted(set(CONFIG_MAPPING_NAMES) - set(by_type))
    return {"classes": sorted(classes), "model_types": dict(sorted(by_type.items())), "other_types": others}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(content(), indent=1) + "\n", encoding="utf-8")
