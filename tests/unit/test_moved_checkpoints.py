"""Training checkpoints moved between the frameworks: what is kept, what is refused, and what a kill leaves.

`tests/bridge/test_migrate.py` continues them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import training_checkpoint as checkpoints

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.convert.options import Options
from nemolaunch.checkpoint.migrate import optimizer as tree
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.saved import read_saved
from nemolaunch.errors import NemolaunchError

TOKENIZER = Path(__file__).parents[2] / "examples" / "tokenizer"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.hf_model(tmp_path_factory.mktemp("model") / "hf", TOKENIZER)


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of NeMo 2; not to be changed."""
    return checkpoints.write(tmp_path_factory.mktemp("trained") / "nemo2", model)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("there is one file system only")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_there_and_back_is_the_same(trained: Path, tmp_path: Path) -> None:
    """Every tensor, group of parameters and counter; the data files are the same files, with the same permissions."""
    (data,) = (trained / "weights").glob("*.distcp")
    data.chmod(0o640)
    report = convert(trained, tmp_path / "there", "bridge")
    assert report["verdict"] == "passed"
    there = tmp_path / "there" / f"iter_{checkpoints.STEP:07d}"
    assert (there / data.name).samefile(data)
    assert data.stat().st_mode & 0o777 == 0o640
    convert(tmp_path / "there", tmp_path / "back", "nemo2")
    assert (tmp_path / "back" / "weights" / data.name).samefile(data)
    before, after = DcpSource(trained / "weights"), DcpSource(tmp_path / "back" / "weights")
    assert after.tensors == before.tensors
    assert sorted(after.objects) == sorted(before.objects)
    assert all(after.read(name).equal(before.read(name)) for name in before.tensors)
    old, new = (read_saved(folder / "weights" / "common.pt") for folder in (trained, tmp_path / "back"))
    for name in ("global_step", "PreTrainingDataModule", "optimizer", "content_metadata"):
        assert new[name] == old[name]
    for name in ("last_epoch", "max_steps", "warmup_steps", "min_lr"):
        assert new["lr_schedulers"][0][name] == old["lr_schedulers"][0][name]
    assert new["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == checkpoints.STEP


def test_the_position_in_a_stream_is_kept(trained: Path, tmp_path: Path) -> None:
    """Every number of every reader, as either framework's checkpoints have it."""
    import torch

    shutil.copytree(trained, tmp_path / "source")
    readers = torch.arange(2 * 20, dtype=torch.int64).reshape(2, 20)
    about = {
        "format": 1,
        "seed": 7,
        "digest": "d",
        "tokenizer": "t",
        "names": ["a"],
        "mixes": [[[1.0], "tokens"]],
    }
    data = {"consumed_samples": checkpoints.SAMPLES, "stream": {**about, "readers": readers}}
    state = checkpoints.common(StreamDataModule=data)
    del state["PreTrainingDataModule"]
    torch.save(state, tmp_path / "source" / "weights" / "common.pt")
    convert(tmp_path / "source", tmp_path / "there", "bridge")
    there = tmp_path / "there" / f"iter_{checkpoints.STEP:07d}" / "stream.json"
    assert json.loads(there.read_text()) == {**about, "readers": readers.tolist()}
    convert(tmp_path / "there", tmp_path / "back", "nemo2")
    back = read_saved(tmp_path / "back" / "weights" / "common.pt")
    assert "PreTrainingDataModule" not in back
    found = back["StreamDataModule"]["stream"]
    assert found.pop("readers").equal(readers)
    assert found == about
    there.write_text("{")
    with pytest.raises(NemolaunchError, match=r"stream\.json cannot be read"):
        convert(tmp_path / "there", tmp_path / "again", "nemo2")


def test_weights_only_is_another_conversion(trained: Path, tmp_path: Path) -> None:
    """Without the optimizer, and at step 0, as before."""
    convert(trained, tmp_path / "bridge", "bridge", Options(weights_only=True))
    assert not [
        name for name in DcpSource(tmp_path / "bridge" / "iter_0000000").tensors if "optimizer" in name
    ]


def test_copies_to_another_file_system(trained: Path, elsewhere: Path) -> None:
    report = convert(trained, elsewhere / "bridge", "bridge")
    assert report["checks"]["files"] == {"outcome": "passed", "compared": 1}
    assert any("copied" in line for line in report["changed"])
    there = DcpSource(elsewhere / "bridge" / f"iter_{checkpoints.STEP:07d}")
    before = DcpSource(trained / "weights")
    name = "optimizer.state.exp_avg.module.decoder.final_layernorm.weight"
    assert there.read(name.replace("module.", "")).equal(before.read(name))


GROUPS = [{"optimizer": {"param_groups": [checkpoints.group(True, muon_momentum=0.9)]}}]
CONTENT = checkpoints.common()["content_metadata"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no training": ({"loops": {}}, "not of a training"),
    "unknown group": ({"optimizer": GROUPS}, "muon_momentum"),
    "unknown content": ({"content_metadata": {**CONTENT, "new_layout": 1}}, "unknown version.*new_layout"),
    "by layout": (
        {"content_metadata": {**CONTENT, "distrib_optim_sharding_type": "dp_reshardable"}},
        "distrib_optim_sharding_type='dp_reshardable'",
    ),
    "loss scale": (
        {"optimizer": [{**checkpoints.common()["optimizer"][0], "grad_scaler": {}}]},
        "grad_scaler",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_state(name: str, trained: Path, tmp_path: Path) -> None:
    """By name, and nothing is written."""
    import torch

    changes, message = REFUSED[name]
    shutil.copytree(trained, tmp_path / "source")
    torch.save(checkpoints.common(**changes), tmp_path / "source" / "weights" / "common.pt")
    with pytest.raises(NemolaunchError, match=message):
        convert(tmp_path / "source", tmp_path / "out", "bridge")
    assert os.listdir(tmp_path) == ["source"]


def test_refused_moments(model: Path, tmp_path: Path) -> None:
    """Those of the precision-aware optimizer, in 16 bits."""
    source = checkpoints.write(tmp_path / "source", model, dtype="bfloat16")
    with pytest.raises(NemolaunchError, match="precision-aware optimizer: exp_avg is in bfloat16"):
        convert(source, tmp_path / "out", "bridge")


CONFIGURED = {
    "fp8: hybrid": ("model", "fp8", "hybrid", "fp8"),
    "hybrid sharding": (
        "ddp",
        "num_distributed_optimizer_instances",
        2,
        "hybrid sharding: the optimizer is in 2",
    ),
    "precision-aware": ("optimizer", "use_precision_aware_optimizer", True, "precision-aware optimizer"),
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_refused_configuration(name: str, trained: Path, tmp_path: Path) -> None:
    """What a checkpoint of Bridge says in its `run_config.yaml`."""
    import yaml

    section, key, value, message = CONFIGURED[name]
    convert(trained, tmp_path / "bridge", "bridge")
    path = tmp_path / "bridge" / f"iter_{checkpoints.STEP:07d}" / "run_config.yaml"
    content = yaml.safe_load(path.read_text())
    content[section][key] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(NemolaunchError, match=message):
        convert(tmp_path / "bridge", tmp_path / "out", "nemo2")


def test_refused_fp8_of_nemo(trained: Path, tmp_path: Path) -> None:
    """What NeMo's precision plugin writes into the context."""
    import yaml

    shutil.copytree(trained, tmp_path / "source")
    path = tmp_path / "source" / "context" / "model.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"]["fp8"] = "e4m3"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(NemolaunchError, match=r"fp8 'e4m3'.*\n.*--weights-only"):
        convert(tmp_path / "source", tmp_path / "out", "bridge")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"nemo_toolkit": "2.4.0", "megatron-core": "0.12.0"}, "NeMo 2.4.0 with Megatron-Core 0.12.0"),
        ({"megatron-bridge": "0.7.0", "megatron-core": "0.20.0"}, "megatron-bridge 0.7.0; known is 0.6"),
    ],
)
def test_refused_releases(versions: dict[str, str], message: str, trained: Path, tmp_path: Path) -> None:
    """Those that the plan of the checkpoint's run records."""
    shutil.copytree(trained, tmp_path / "run" / "checkpoints" / "nemo2")
    (tmp_path / "run" / "plan.json").write_text(json.dumps({"versions": versions}))
    with pytest.raises(NemolaunchError, match=message):
        convert(tmp_path / "run" / "checkpoints" / "nemo2", tmp_path / "out", "bridge")


KILLED = """
import os, signal, sys
from pathlib import Path
from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.migrate import metadata
metadata.rewrite = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after the files are linked
convert(Path(sys.argv[1]), Path(sys.argv[2]), "bridge")
"""


def test_a_kill_leaves_nothing_under_the_name(trained: Path, tmp_path: Path) -> None:
    """And the next conversion removes what lies beside it."""
    target = tmp_path / "bridge"
    words = [sys.executable, "-c", KILLED, str(trained), str(target)]
    assert subprocess.run(words, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not target.exists()
    assert list(tmp_path.iterdir())  # hidden
    convert(trained, target, "bridge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bridge", "bridge.conversion.json"]


def test_damage_is_found(trained: Path, tmp_path: Path) -> None:
    """A data file that is shorter than `.metadata` says."""
    shutil.copytree(trained, tmp_path / "source")
    (data,) = (tmp_path / "source" / "weights").glob("*.distcp")
    os.truncate(data, data.stat().st_size - 1000)
    with pytest.raises(NemolaunchError, match="truncated"):
        convert(tmp_path / "source", tmp_path / "out", "bridge")


def test_groups_of_newer_releases() -> None:
    """Megatron-Core 0.16, of NeMo 2.7's container, already names the multipliers as Bridge does."""
    old = {"param_groups": [checkpoints.group(True)]}
    new = {
        "param_groups": [{**checkpoints.group(True), "wd_mult": 1.0, "lr_mult": 1.0, "default_config": True}]
    }
    for name in ("pre_wd_mult", "pre_lr_mult"):
        del new["param_groups"][0][name]
    assert tree.plain(new) == tree.plain(old)
    assert tree.as_nemo(tree.plain(old), 0.1) == old
