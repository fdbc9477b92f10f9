"""Every family: Hugging Face → NeMo 2 → Hugging Face, against NeMo's own converters, and by what it computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.model_zoo import ZOO, Small

from nemolaunch.checkpoint.convert import Options, convert
from nemolaunch.checkpoint.dcp import DcpSource

ROUNDING = 1e-6  # of float32 logits up to about 1
BITS = Options()
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


def report_tensors(folder: Path, direction: str) -> object:
    """What was compared: the source's tensors, as they are there."""
    from nemolaunch.checkpoint.nemo2 import read_folder

    if direction == "back":
        names = read_folder(folder / "nemo").source().tensors
        config = json.loads((folder / "back" / "config.json").read_text())
        tied = config.get("tie_word_embeddings") and "output_layer.weight" in names
        return [name for name in names if not (tied and name == "output_layer.weight")]
    found = dict(tensors(folder / "source"))
    nemo = read_folder(folder / "nemo").source().tensors
    head = [name for name in found if name.endswith(("lm_head.weight", "output_layer.weight"))]
    if "output_layer.weight" in nemo and not head:
        found["lm_head.weight"] = None  # the copy of the tied embedding
    return found


def test_nemo_converts_to_the_same_bits(fork_server: ForkServer, model: Small, folder: Path) -> None:
    """By NeMo's importer where it runs here; else by its tables and transforms, on stand-ins for the models."""
    hf, nemo = str(folder / "source"), str(folder / "nemo")
    if model.imported:
        theirs = folder / "theirs"
        fork_server.run(
            "nemo2.convert_job:nemo_import",
            {"hf": hf, "nemo": str(theirs), "model_class": model.model_class},
        )
        a, b = (DcpSource(path / "weights") for path in (folder / "nemo", theirs))
        assert sorted(a.objects) == sorted(b.objects)
        assert_same_tensors({n: b.read(n) for n in b.tensors}, {n: a.read(n) for n in a.tensors})
    elif model.tables:
        arguments = {"hf": hf, "nemo": nemo, "model_class": model.model_class}
        (wrong,) = fork_server.run("nemo2.convert_job:convert_state", arguments)
        assert wrong["to nemo"] == []
        assert [name for name in wrong["to hf"] if not name.endswith(model.nemo_forgets)] == []


def test_both_models_compute_the_same(fork_server: ForkServer, model: Small, folder: Path) -> None:
    if not model.computes:
        pytest.skip("the CPU has no layers for this family")
    arguments = {"hf": str(folder / "source"), "nemo": str(folder / "nemo")}
    (logits,) = fork_server.run("nemo2.convert_job:logits", arguments)
    assert logits["difference"] <= ROUNDING * max(logits["size"], 1)
