"""Documents that do not depend on each other: what refuses the flags, and how the ends of documents are found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, codes, findings, write_data

from nemolaunch.data.blend import BlendSpec
from nemolaunch.facts import Host
from nemolaunch.facts.data_files import DataFile, look_at_data
from nemolaunch.findings import Severity
from nemolaunch.tokenizer.inspection import Tokenizer, look_at_tokenizer

ATTENTION = {"reset_attention_mask": True}
POSITIONS = {"reset_position_ids": True}
LOSS = {"eod_mask_loss": True}
LLAMA = "llama32_1b"


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        (LLAMA, ATTENTION, []),
        (LLAMA, LOSS, []),
        (LLAMA, {**ATTENTION, **POSITIONS}, []),
        (LLAMA, POSITIONS, ["position-ids-not-used"]),
        (LLAMA, {**LOSS, "context_parallel_size": 2, "micro_batch_size": 2}, []),
        (LLAMA, {**ATTENTION, "context_parallel_size": 2}, ["documents-as-sequences"]),
        (LLAMA, {**ATTENTION, "micro_batch_size": 2}, ["documents-as-sequences"]),
        (LLAMA, {**ATTENTION, "cuda_graphs": True}, ["documents-as-sequences"]),
        (LLAMA, {**ATTENTION, "attention_backend": "unfused"}, ["attention-backend"]),
        (LLAMA, {**ATTENTION, "objective": "mlm"}, ["documents-unsupported"]),
        (LLAMA, {**LOSS, "objective": "mlm"}, ["documents-unsupported"]),
        ("starcoder_15b", POSITIONS, []),
        ("starcoder_15b", ATTENTION, []),
        ("starcoder_15b", {**POSITIONS, "context_parallel_size": 2, "micro_batch_size": 2}, []),
        ("gpt3_175b", POSITIONS, []),
        ("gpt3_175b", ATTENTION, ["documents-unsupported"]),
        ("gemma2_9b", LOSS, []),
        ("gemma2_9b", ATTENTION, ["documents-unsupported"]),
        ("mamba2_130m", LOSS, []),
        ("mamba2_130m", ATTENTION, ["documents-unsupported"]),
        ("mamba2_130m", POSITIONS, ["position-ids-not-used"]),
        ("hyena_1b", LOSS, ["documents-unsupported"]),
        ("t5_220m", {**LOSS, "seq_length": 512}, ["documents-unsupported"]),
        ("bert_110m", LOSS, ["documents-unsupported"]),
        ("deepseek_v2", ATTENTION, []),
        ("deepseek_v3", LOSS, ["documents-unsupported"]),
        ("llama4_e16", ATTENTION, ["documents-unsupported"]),
    ],
)
def test_combinations(model: str, values: dict[str, Any], expected: list[str]) -> None:
    given = {"mask_token": "<|reserved_0|>"} if "mlm" in values.values() or model.startswith("bert") else {}
    size = {"gpu-memory", "gpu-memory-tight", "disk-tight"}
    assert [c for c in codes(model, gpu="h200", **given, **values) if c not in size] == expected


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        (LLAMA, {**ATTENTION, **POSITIONS, **LOSS}, []),
        (LLAMA, {**ATTENTION, "context_parallel_size": 2}, ["documents-as-sequences"]),
        ("gpt3_175b", ATTENTION, []),  # built from Megatron's own layers
        ("gemma2_9b", ATTENTION, ["documents-unsupported"]),
        ("gpt_oss_20b", ATTENTION, ["documents-unsupported"]),
        ("gpt_oss_20b", LOSS, []),
        ("olmoe_7b", ATTENTION, []),
    ],
)
def test_combinations_with_bridge(model: str, values: dict[str, Any], expected: list[str]) -> None:
    image = {"container_image": "nvcr.io/nvidia/nemo:26.06", "container_runtime": "pyxis"}
    found = codes(model, gpu="h200", backend="bridge", **image, **values)
    assert [code for code in found if code.startswith(("documents", "attention"))] == expected


def test_all_that_is_in_the_way_is_named_at_once() -> None:
    values: dict[str, Any] = {**ATTENTION, "micro_batch_size": 4, "context_parallel_size": 2, "num_gpus": 8}
    (found,) = findings(LLAMA, **values)
    assert "-mbs 4" in found.message
    assert "-CP 2" in found.message
    assert found.fixes[0].changes == {"micro_batch_size": 1, "context_parallel_size": 1}


def test_ampere_needs_flash_attention() -> None:
    host = Host(gpus=("NVIDIA A100-SXM4-80GB",) * 8, flash_attention=False)
    here = {"executor": "local", "num_gpus": 8, **ATTENTION}
    (found,) = findings(LLAMA, changed={"host": host}, **here)
    assert found.code == "attention-backend"
    assert [fix.changes for fix in found.fixes] == [{"reset_attention_mask": False}]


def test_the_last_tokens_of_documents_are_looked_at(tmp_path: Path) -> None:
    prefix = write_data(tmp_path, end=1)
    ((file,), _) = look_at_data(BlendSpec(sources=((None, prefix),)), "998,1,1")
    assert file.last_tokens == (1,)
    tokenizer = look_at_tokenizer(TOKENIZER)
    assert codes(LLAMA, changed={"data": (grown(file),), "tokenizer": tokenizer}, **LOSS) == []


def test_other_ends_are_an_error() -> None:
    for values in ({"last_tokens": (7, 8)}, {"end_token": 7}):
        file = DataFile(prefix="/data/a", **BIG, **values)
        (found,) = findings(LLAMA, changed={"data": (file,)}, **ATTENTION, **LOSS)
        assert found.code == "document-ends"
        assert "end with token 7, not with 1" in found.message
        assert found.fixes[0].changes == {"reset_attention_mask": False, "eod_mask_loss": False}
    endless = Tokenizer(source="/x", folder="/x", vocab_size=9, words=frozenset("ab"))
    assert codes(LLAMA, changed={"tokenizer": endless}, **LOSS) == ["document-ends"]


@pytest.mark.parametrize(("values", "is_error"), [({}, False), (LOSS, True), (ATTENTION, True)])
def test_an_end_that_is_also_padding_is_reported(
    values: dict[str, Any], is_error: bool, tmp_path: Path
) -> None:
    tokenizer = look_at_tokenizer(TOKENIZER)
    tokenizer = dataclasses.replace(tokenizer, roles={**tokenizer.roles, "pad_token": "<|end_of_text|>"})
    changed = {"data": (DataFile(prefix="/data/a", **BIG, last_tokens=(1,)),), "tokenizer": tokenizer}
    (found,) = findings(LLAMA, changed=changed, **values)
    assert (found.code, found.severity is Severity.ERROR) == ("end-is-padding", is_error)
    assert [fix.changes for fix in found.fixes] == ([dict.fromkeys(values, False)] if values else [])
    changed["data"] = (DataFile(prefix="/data/a", **BIG, last_tokens=(7,)),)
    assert "end-is-padding" not in codes(LLAMA, changed=changed, **values)


BIG: dict[str, Any] = {"num_tokens": 10**12, "split_tokens": (10**12, 10**9, 10**9)}


def grown(file: DataFile) -> DataFile:
    """A file that suffices for a step, with the ends of another."""
    return DataFile(prefix=file.prefix, last_tokens=file.last_tokens, **BIG)


@pytest.mark.parametrize("role", ["eos_token", "sep_token"])
def test_the_end_token_is_the_one_transformers_has(tmp_path: Path, role: str) -> None:
    """NeMo takes the separator if no token ends texts."""
    from transformers import AutoTokenizer

    source = Path(TOKENIZER)
    (tmp_path / "tokenizer.json").write_text((source / "tokenizer.json").read_text())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", role: "<|reserved_special_token_2|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    expected = getattr(loaded, f"{role}_id")
    assert isinstance(expected, int)
    assert look_at_tokenizer(str(tmp_path)).end_id == expected
