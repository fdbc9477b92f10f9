"""The CPU's stand-ins for Transformer Engine and CUDA compute what those would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from forkserver import ForkServer

from nemolaunch.cpu.versions import check
from nemolaunch.errors import NemolaunchError

FLOAT32 = 2e-6  # sums of a few dozen products in another order


def test_norms_are_torchs(fork_server: ForkServer) -> None:
    (differences,) = fork_server.run("nemo2.layer_jobs:norms")
    assert len(differences) == 8
    assert max(differences.values()) <= FLOAT32


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("groups", [4, 2])
def test_attention_is_the_formulas(
    fork_server: ForkServer, ranks: int, window: int | None, groups: int
) -> None:
    kwargs = {"window": window, "groups": groups}
    for difference in fork_server.run("nemo2.layer_jobs:attention", kwargs, nproc=ranks):
        assert difference <= FLOAT32


@pytest.mark.parametrize(("window", "groups"), [(None, 4), (3, 2)])
def test_packed_sequences_attend_to_themselves(
    fork_server: ForkServer, window: int | None, groups: int
) -> None:
    kwargs = {"window": window, "groups": groups}
    (difference,) = fork_server.run("nemo2.layer_jobs:packed_attention", kwargs)
    assert difference <= FLOAT32


@pytest.mark.parametrize("bias", [False, True])
def test_grouped_linear_is_one_linear_per_expert(fork_server: ForkServer, bias: bool) -> None:
    assert fork_server.run("nemo2.layer_jobs:grouped_linear", {"bias": bias}) == [0.0]


@pytest.mark.parametrize("groups", [1, 4])
def test_mamba_is_that_of_transformers(fork_server: ForkServer, groups: int) -> None:
    (differences,) = fork_server.run("nemo2.layer_jobs:mamba", {"groups": groups})
    assert len(differences) == 9
    assert max(differences.values()) <= 1e-5


@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, True), (0.1, True), (0.1, False)])
def test_adam_is_torchs(fork_server: ForkServer, decay: float, decoupled: bool) -> None:
    kwargs = {"weight_decay": decay, "adam_w_mode": decoupled}
    (difference,) = fork_server.run("nemo2.layer_jobs:adam", kwargs)
    assert difference <= 1e-5


def test_cuda_means_the_cpu_and_meta_stays_meta(fork_server: ForkServer) -> None:
    (devices,) = fork_server.run("nemo2.layer_jobs:devices")
    assert devices.pop("meta") == devices.pop("meta context") == "meta"
    assert set(devices.values()) == {"cpu"}


def test_random_state_of_the_stand_in_can_be_restored(fork_server: ForkServer) -> None:
    assert fork_server.run("nemo2.layer_jobs:random_states") == [True]


@pytest.mark.parametrize(
    ("nemo", "megatron"), [("2.5.3", "0.14.0"), ("2.6.2", "0.15.3"), ("2.7.0", "0.16.0"), ("2.9.0", "0.19.0")]
)
def test_versions_that_may_work_are_accepted(nemo: str, megatron: str) -> None:
    check(nemo, megatron)


@pytest.mark.parametrize(
    ("nemo", "megatron", "why"),
    [
        ("2.7.3", "0.14.0", "ProcessGroupCollection"),
        ("2.5.3", "0.15.3", "ModelCommProcessGroups"),
        (None, "0.15.3", "nemo_toolkit not installed"),
    ],
)
def test_versions_that_fail_on_import_are_refused(nemo: str | None, megatron: str, why: str) -> None:
    with pytest.raises(NemolaunchError, match=rf"{why}.*pip install -c constraints"):
        check(nemo, megatron)


def test_refuses_to_stand_in_for_an_installed_transformer_engine(tmp_path: Path) -> None:
    package = tmp_path / "transformer_engine"
    package.mkdir()
    (package / "__init__.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from nemolaunch import cpu\n"
        "try: cpu.install()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("NemolaunchError Transformer Engine is installed")


def test_refuses_when_nemo_is_imported_already() -> None:
    code = (
        "import sys, types; sys.modules['nemo.collections.llm'] = types.ModuleType('llm')\n"
        "from nemolaunch import cpu\n"
        "try: cpu.install()\n"
        "except RuntimeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "must be called before nemo.collections.llm" in done.stdout
