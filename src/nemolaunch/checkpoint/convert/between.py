"""Weights alone from one of Megatron's formats to another, of models that have no conversion to Hugging Face there.

All have the same parameters, under the same names and with the same values.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nemolaunch.checkpoint.bridge import folder as bridge
from nemolaunch.checkpoint.convert.copying import CopyConversion
from nemolaunch.checkpoint.convert.sides import SIDES, Begin
from nemolaunch.checkpoint.hf.tokenizer_check import tokenizer_check
from nemolaunch.checkpoint.megatron.description import to_bridge
from nemolaunch.checkpoint.megatron.folder import MegatronFolder
from nemolaunch.checkpoint.megatron.names import EMBEDDING
from nemolaunch.checkpoint.migrate.migration import READ
from nemolaunch.checkpoint.migrate.models import (
    BRIDGE,
    TITLES,
    check_target,
    config_check,
    rows_of,
    with_rows,
)
from nemolaunch.checkpoint.migrate.refusals import query_norms
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.family import precision_fields
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.families.registry import of_nemo


def is_only_way(path: Path, form: str, to: str) -> bool:
    """Return whether the weights of a checkpoint do not go to a format by way of the Hugging Face model."""
    try:
        config = SIDES[form].read(path).config
        of_nemo(config)
        SIDES[to].check(config)
    except NemolaunchError:
        return True
    return False


def prepare(folder: MegatronFolder, to: str, tokenizer: Path | None) -> CopyConversion:
    """Prepare the conversion of a checkpoint's weights, without the state of the optimizer.

    Raises:
        UsageError: there is no tokenizer.
        NemolaunchError: the target cannot represent the model, or the checkpoint is damaged.
    """
    tokens, source = folder.find_tokenizer(tokenizer), folder.source()
    try:
        found = with_rows(folder.config, rows_of(source.tensors))
        dtype = precision_fields(source.tensors[EMBEDDING].dtype)
        config = NemoConfig(found.model_class, found.config_class, {**found.fields, **dtype})
        check_target(config, to)
        faults = list(query_norms(source.tensors))
        if faults:
            raise NemolaunchError(f"the model has {faults[0]}")
    except NemolaunchError as error:
        source.close()
        raise NemolaunchError(f"{folder.path}: {error}") from error
    begin: Begin = partial(bridge.begin, describe=to_bridge) if to == BRIDGE else SIDES[to].begin

    def checks(output: Path) -> list[Check]:
        result = READ[to](output)
        return [config_check(config, result.config), tokenizer_check(tokens, result.tokenizer_copy)]

    return CopyConversion(
        title=f"{config.model_class} → {TITLES[to]}, without the optimizer",
        source=source,
        sink=lambda output: begin(output, config, tokens, source.tensors, config.resolved),
        reader=lambda output: READ[to](output).source(),
        checks=checks,
        left_out=source.training_state,
    )
