"""Every family: Hugging Face → NeMo 2 → Hugging Face, compared with NeMo's own converters and by logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.model_zoo import ZOO, Small

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.checkpoint.storage.dcp import DcpSource

ROUNDING = 1e-6  # of float32 logits up to about 1
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module", params=ZOO.values(), ids=list(ZOO))
def model(request: pytest.FixtureRequest) -> Small:
    return request.param


@pytest.fixture(scope="module")
def folder(model: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source`, converted to `nemo`, and back to `back`."""
    folder = tmp_path_factory.mktemp("model")
    model.write(folder / "source")
    convert(folder / "source", folder / "nemo", "nemo2", Options(model_class=model.model_class))
    convert(folder / "nemo", folder / "back", "hf")
    return folder


def test_round_trip(folder: Path) -> None:
    before, after = folder / "source", folder / "back"
    assert_same_tensors(tensors(before), tensors(after))
    for name in TOKENIZER_FILES:
        assert (after / name).read_bytes() == (before / name).read_bytes()
    said, written = (json.loads((path / "config.json").read_text()) for path in (before, after))
    assert {name: written.get(name) for name in said} == said
    for direction in ("nemo", "back"):
        report = json.loads((folder / f"{direction}.conversion.json").read_text())
        assert report["verdict"] == "passed"
        assert report["checks"]["tensors"]["compared"] == len(report_tensors(folder, direction))


def report_tensors(folder: Path, direction: str) -> list[str]:
    """Return the names that were compared: the tensors of the source."""
    from nemolaunch.checkpoint.nemo2.folder import read_folder

    if direction == "back":
        made = read_folder(folder / "nemo").source().tensors
        config = json.loads((folder / "back" / "config.json").read_text())
        tied = config.get("tie_word_embeddings") and "output_layer.weight" in made
        return [name for name in made if not (tied and name == "output_layer.weight")]
    names = list(tensors(folder / "source"))
    nemo = read_folder(folder / "nemo").source().tensors
    head = [name for name in names if name.endswith(("lm_head.weight", "output_layer.weight"))]
    if "output_layer.weight" in nemo and not head:
        names.append("lm_head.weight")  # the copy of the tied embedding
    return names


@pytest.fixture(scope="module")
def verdict(fork_server: ForkServer, model: Small, folder: Path) -> dict[str, Any]:
    """NeMo's judgement of the conversion; all in one process, since starting one takes longer than most checks."""
    arguments = {
        "hf": str(folder / "source"),
        "nemo": str(folder / "nemo"),
        "theirs": str(folder / "theirs") if model.imported else None,
        "model_class": model.model_class,
        "tables": model.tables and not model.imported,
        "computes": model.computes,
    }
    (found,) = fork_server.run("nemo2.convert_job:judge", arguments)
    return dict(found)


def test_nemo_converts_to_the_same_bits(model: Small, folder: Path, verdict: dict[str, Any]) -> None:
    """By NeMo's importer if it runs here, else by its tables and transforms, on stand-ins for the models."""
    if model.imported:
        a, b = (DcpSource(folder / path / "weights") for path in ("nemo", "theirs"))
        assert sorted(a.objects) == sorted(b.objects)
        assert_same_tensors({n: b.read(n) for n in b.tensors}, {n: a.read(n) for n in a.tensors})
    elif model.tables:
        assert verdict["state"]["to nemo"] == []
        assert [n for n in verdict["state"]["to hf"] if not n.endswith(model.nemo_forgets)] == []
    else:
        pytest.skip("NeMo's tables do not cover this variant of the model")


def test_both_models_compute_the_same(model: Small, verdict: dict[str, Any]) -> None:
    if not model.computes:
        pytest.skip(
            "there are no CPU layers for this family, or NeMo's model is known to compute differently"
        )
    logits = verdict["logits"]
    assert logits["difference"] <= ROUNDING * max(logits["size"], 1)
