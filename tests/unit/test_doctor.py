"""The doctor: what it finds on different kinds of machines, and what it advises."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from unit.test_backend import environment

from nemolaunch.cli.commands import doctor as command
from nemolaunch.doctor import disk, gpus, host, logins, packages, slurm
from nemolaunch.doctor.verdict import Verdict

GOOD_VERSIONS = {
    "nemo_toolkit": "2.7.3", "megatron-core": "0.15.3", "nemo_run": "0.11.1", "leptonai": "0.27.3",
    "lightning": "2.4.0", "transformers": "4.57.6", "numpy": "1.26.4", "torch": "2.9.0",
}  # fmt: skip
SECRET = "hf_very-secret-word"


def levels(found: Iterable[Verdict]) -> list[str]:
    return [verdict.level for verdict in found]


def texts(found: Iterable[Verdict], level: str) -> str:
    """Return text and advice of the verdicts of a level."""
    return "\n".join(f"{verdict.text} → {verdict.advice}" for verdict in found if verdict.level == level)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Provide a function that adds programs with a recorded output to an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, script: str) -> None:
        path = folder / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def test_compatible_versions_are_good() -> None:
    assert set(levels(packages.look(GOOD_VERSIONS))) == {"good"}


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("nemo_toolkit", "3.0.0", "NeMo 3 has no nemo.collections.llm"),
        ("megatron-core", "0.14.0", "NeMo 2.7.3 with Megatron-Core 0.14.0 fails on import"),
        ("lightning", "2.5.0", "NeMo does not allow newer releases"),
        ("numpy", "2.1.0", "below 2"),
        ("leptonai", "0.47.0", "0.27"),
        ("nemo_run", None, "nemo_run is not installed"),
    ],
)
def test_an_incompatible_version_is_reported_with_the_command_that_fixes_it(
    name: str, version: str | None, said: str
) -> None:
    bad = texts(packages.look({**GOOD_VERSIONS, name: version}), "bad")
    assert said in bad
    assert "pip install -c constraints.txt" in bad


@pytest.mark.parametrize(
    ("nemo", "megatron"), [("2.5.3", "0.14.0"), ("2.6.0", "0.15.0"), ("2.7.0", "0.16.0"), ("2.7.3", "0.16.1")]
)
def test_pairs_that_train_are_good(nemo: str, megatron: str) -> None:
    pair = {"nemo_toolkit": nemo, "megatron-core": megatron}
    found = list(packages.look({**GOOD_VERSIONS, **pair}))
    assert set(levels(found)) == {"good"}
    assert f"NeMo {nemo} with Megatron-Core {megatron} trains" in texts(found, "good")


def test_a_pair_never_tried_is_a_warning_with_the_nearest_tested_one() -> None:
    found = list(packages.look({**GOOD_VERSIONS, "megatron-core": "0.18.0"}))
    assert "bad" not in levels(found)
    assert "NeMo 2.7.3 with Megatron-Core 0.16.1" in texts(found, "warning")


def test_without_nemo_it_says_what_the_machine_can_still_do() -> None:
    found = list(packages.look(dict.fromkeys(GOOD_VERSIONS)))
    assert "can plan and submit jobs, but not train" in texts(found, "note")
    assert "bad" not in levels(found)


@pytest.mark.parametrize(
    ("releases", "level", "text"),
    [
        (("0.6.0", "0.19.2"), "good", "Megatron-Bridge 0.6.0 with Megatron-Core 0.19.2, in "),
        (("0.6.2", "0.18.0"), "warning", "was never trained; tested: "),
        (("0.3.0", "0.16.0"), "bad", "does not train: its configuration has no ValidationConfig"),
    ],
)
def test_megatron_bridge_is_judged_with_its_megatron_core(
    releases: tuple[str, str], level: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = (f"megatron_bridge-{releases[0]}", f"megatron_core-{releases[1]}")
    environment(tmp_path / ".venv-bridge", *names)
    found = list(packages.bridge())
    assert levels(found) == [level]
    assert text in texts(found, level)


SMI = """\
case "$1" in
    --query-gpu=*) printf 'NVIDIA H100 80GB HBM3, 81559, 570.86.15, 9.0, %s\\n' 0 {errors} ;;
    *) echo '| NVIDIA-SMI 570.86.15    Driver Version: 570.86.15    CUDA Version: {cuda} |' ;;
esac
"""


@pytest.fixture
def torch_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Provide a function that sets what torch reports about itself."""

    def say(*answer: Any) -> None:
        monkeypatch.setattr(gpus, "_ask_torch", lambda: list(answer))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return say


def test_gpus_with_a_driver_that_supports_torchs_cuda(
    programs: Callable[[str, str], None], torch_says: Callable[..., None]
) -> None:
    programs("nvidia-smi", SMI.format(errors=0, cuda="12.8"))
    torch_says("2.9.0", "12.6", True, 2)
    good = texts(gpus.look(), "good")
    assert "2 x NVIDIA H100 80GB HBM3, 79.6 GiB, 989 TFLOP/s in bf16" in good
    assert "driver 570.86.15, supports CUDA up to 12.8" in good
    assert "torch 2.9.0 for CUDA 12.6 sees 2 GPUs" in good


@pytest.mark.parametrize(
    ("torch", "cuda", "said"),
    [
        (
            ("2.13.0", "13.0", False, 0),
            "12.8",
            "needs CUDA 13.0, but the driver only supports CUDA up to 12.8",
        ),
        (("2.13.0", None, False, 0), "12.8", "is a CPU-only build"),
        (("2.9.0", "12.6", False, 0), "12.8", "sees no GPU"),
    ],
)
def test_a_torch_that_cannot_use_the_gpus(
    programs: Callable[[str, str], None], torch_says: Callable[..., None], torch: Any, cuda: str, said: str
) -> None:
    programs("nvidia-smi", SMI.format(errors=0, cuda=cuda))
    torch_says(*torch)
    assert said in texts(gpus.look(), "bad")


def test_a_gpu_with_memory_errors(
    programs: Callable[[str, str], None], torch_says: Callable[..., None]
) -> None:
    programs("nvidia-smi", SMI.format(errors=3, cuda="12.8"))
    torch_says("2.9.0", "12.6", True, 2)
    assert "GPU 1 has 3 uncorrectable memory errors" in texts(gpus.look(), "bad")


def test_a_missing_gpu_is_only_a_note(programs: Callable[[str, str], None]) -> None:
    assert levels(gpus.look()) == ["note"]


SINFO = "echo 'gpu|3-00:00:00|4|gpu:h100:8|up|2/1/1/4|1-infinite'\n"


def test_slurm_and_its_partitions(programs: Callable[[str, str], None]) -> None:
    assert texts(slurm.look(), "note").startswith("sbatch is not installed")
    programs("sbatch", "exit 0\n")
    assert "sinfo does not respond" in texts(slurm.look(), "bad")
    programs("sinfo", SINFO)
    programs("srun", "echo '--container-image=...'\n")
    found = list(slurm.look())
    assert "partition gpu: 3 of 4 nodes up, 8 GPUs each" in texts(found, "good")
    assert "Pyxis" in texts(found, "good")
    programs("srun", "exit 0\n")
    assert "--container-image none" in texts(slurm.look(), "warning")


def test_the_disk_speed_is_measured_without_leaving_files(tmp_path: Path) -> None:
    found = list(disk.look(tmp_path / "runs" / "deep", test_bytes=1 << 20))
    assert any("MB/s (1 MiB" in verdict.text for verdict in found)
    assert list(tmp_path.iterdir()) == []


def test_interfaces_and_infiniband(tmp_path: Path) -> None:
    for name, state, speed in (("eth0", "up", "25000"), ("eth1", "down", "-1"), ("lo", "unknown", "")):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "operstate").write_text(state)
        (tmp_path / "net" / name / "speed").write_text(speed)
    port = tmp_path / "ib" / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    good = texts(host.network(tmp_path / "net", tmp_path / "ib"), "good")
    assert "up: eth0 (25 Gbit/s) →" in good
    assert "InfiniBand: mlx5_0 400 Gb/sec (4X NDR)" in good


class Logins(BaseHTTPRequestHandler):
    """A server that answers like the Hub and W&B, and accepts one token."""

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"Bearer {SECRET}"
        self.answer(200 if known else 401, {"name": "ada"} if known else {"error": "Invalid"})

    def do_POST(self) -> None:
        known = self.headers["Authorization"] == "Basic YXBpOmtleQ=="  # api:key
        self.answer(200, {"data": {"viewer": {"username": "ada"} if known else None}})

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Run both services on the loopback interface, without stored logins."""
    found = HTTPServer(("127.0.0.1", 0), Logins)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{found.server_address[1]}"
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "WANDB_API_KEY", "WANDB_MODE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield url
    found.shutdown()
    found.server_close()


def test_logins_that_are_accepted_rejected_or_missing(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels([*logins.hub(), *logins.wandb()]) == ["note", "note"]
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("WANDB_API_KEY", "key")
    found = [*logins.hub(), *logins.wandb()]
    assert levels(found) == ["good", "good"]
    assert all("ada" in verdict.text for verdict in found)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    monkeypatch.setenv("WANDB_API_KEY", "other")
    assert levels([*logins.hub(), *logins.wandb()]) == ["bad", "bad"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in texts(logins.hub(), "warning")


def test_stored_logins_are_found(server: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password key\n")
    assert levels([*logins.hub(), *logins.wandb()]) == ["good", "good"]


def test_the_command_reports_everything_but_no_secret(
    server: str,
    programs: Callable[[str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(disk, "TEST_BYTES", 1 << 20)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert command.main(["--output-dir", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert {"packages", "gpu", "host", "network", "disk", "logins", "slurm"} == {
        verdict["part"] for verdict in json.loads(out)
    }
    assert command.main(["--output-dir", str(tmp_path), "--no-logins"]) == 0
    shown = capsys.readouterr().out
    assert "✓ packages" in shown
    assert SECRET not in out + shown
