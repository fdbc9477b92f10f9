"""No command that reads a checkpoint runs what the checkpoint names: `tests/attacks.py` has both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import BRIDGE, COMMANDS, DATA, HF, NEMO, REFUSED, outcome, write_samples

# nemolaunch's own readers import and call nothing, and need nothing of what these attack
OWN_READERS = ("inspect", "convert --to torch")
# The other commands of evaluation export a checkpoint as this one does
ON_BRIDGE = (*OWN_READERS, "convert --to hf", "generate", "pretrain --nemo-model", "pretrain --resume")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.mark.parametrize("attack", NEMO)
@pytest.mark.parametrize("name", COMMANDS)
def test_nemo2(
    name: str,
    attack: Callable[[Path, Path], None],
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    what, shown = outcome(attack, COMMANDS[name], samples, tmp_path)
    assert what == REFUSED or (name in OWN_READERS and what == DATA)
    assert "Traceback" not in shown
    if what == REFUSED and name != "push":  # which takes no NeMo 2 checkpoints
        assert "checkpoints do not" in shown


@pytest.mark.parametrize("attack", BRIDGE)
@pytest.mark.parametrize("name", ON_BRIDGE)
def test_bridge(
    name: str,
    attack: Callable[[Path, Path], None],
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `run_config.yaml` names is never imported, so that it does not matter where a family does not look."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    what, shown = outcome(attack, COMMANDS[name], samples, tmp_path)
    only_named = attack.__name__ == "run_config_call"
    assert what == REFUSED or (what == DATA and (only_named or name in OWN_READERS))
    assert "Traceback" not in shown
    if what == REFUSED and "run_config" not in attack.__name__ and name != "inspect":
        assert "checkpoints do not" in shown


@pytest.mark.parametrize("attack", HF)
@pytest.mark.parametrize("name", ["eval ppl", "eval mlm", "fill-mask", "generate", "convert --to torch"])
def test_hugging_face(
    name: str,
    attack: Callable[[Path, Path], None],
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    what, shown = outcome(attack, COMMANDS[name], samples, tmp_path)
    assert what == REFUSED or (name in OWN_READERS and what == DATA)
    assert "Traceback" not in shown
