"""What the GPU benchmarks do without a GPU: carry wheels in parts, and summarise results."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu"
sys.path.append(str(GPU))

import install  # noqa: E402
import parts  # noqa: E402
import runs  # noqa: E402
import tables  # noqa: E402
from steps import estimator, throughput, tuning  # noqa: E402

from nemolaunch import catalogue  # noqa: E402
from nemolaunch.cli.commands import pretrain  # noqa: E402

KIB = 2**10


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """Three files in parts of 40 KiB, the largest of which spans several."""
    source = tmp_path / "wheels"
    source.mkdir()
    for name, size in (("small", 10), ("empty", 0), ("large", 100 * KIB)):
        (source / name).write_bytes(bytes(i % 251 for i in range(size)))
    assert len(parts.split(source, tmp_path, 40 * KIB)) == 3
    return tmp_path


def test_parts_are_small_and_come_together_again(carried: Path) -> None:
    for part in (1, 2, 3):
        pieces = [p for p in (carried / f"part-{part}").iterdir() if p.name != parts.MANIFEST]
        assert 0 < sum(piece.stat().st_size for piece in pieces) <= 40 * KIB
    stash = carried / "stash"
    assert parts.collect([carried / "part-2"], stash) == [1, 3]
    assert parts.collect([carried / "part-3", carried / "part-1"], stash) == []
    for file in parts.join(stash, carried / "again"):
        assert file.read_bytes() == (carried / "wheels" / file.name).read_bytes()
    assert {p.name for p in (carried / "again").iterdir()} == {"small", "empty", "large"}


def test_a_damaged_part_is_named(carried: Path) -> None:
    (piece,) = (carried / "part-2").glob("large*")
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="copy part 2 again"):
        parts.collect([carried / f"part-{n}" for n in (1, 2, 3)], carried / "stash")


def wheel(folder: Path, name: str, code: str) -> Path:
    """A wheel of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return path


def test_an_environment_takes_torch_by_links_and_the_rest_from_wheels(tmp_path: Path) -> None:
    """The wheel of pip is made from this Python's pip, which is all that an installation needs."""
    pip = Path(subprocess.run([sys.executable, "-c", "import pip; print(pip.__path__[0])"],
                              capture_output=True, text=True, check=True).stdout.strip())  # fmt: skip
    pip_wheel = tmp_path / "pip-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pip_wheel, "w") as archive:
        for file in pip.rglob("*.py"):
            archive.write(file, file.relative_to(pip.parent))
        for file in pip.rglob("*.pem"):
            archive.write(file, file.relative_to(pip.parent))
    wheels = [wheel(tmp_path, "brought", "value = 1"), wheel(tmp_path, "filelock", "value = 2")]
    install.install_with(pip_wheel, make_empty(tmp_path), wheels)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    install.borrow(sys.executable, site)
    assert (site / "torch").is_symlink()
    assert not (site / "filelock.py").is_symlink()  # torch asks for it, but it was brought
    code = "import brought, filelock, torch; print(brought.value, filelock.value, torch.__version__)"
    said = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("1 2 2.")


def make_empty(folder: Path) -> Path:
    env = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    return env


def test_time_grows_by_the_same_for_each_layer() -> None:
    flops = {"full": 2e9, "causal": 1e9}
    rows: list[dict[str, Any]] = [
        {"name": "ours bf16", "step_time_s": 1.0, "layers": 8},
        {"name": "ours bf16 half", "step_time_s": 0.6, "layers": 4},
    ]
    for row in rows:
        row |= {"model_layers": 32, "tokens_per_step": 3400, "model_flops_per_token": flops,
                "tokens_per_s_per_gpu": 3400 / row["step_time_s"]}  # fmt: skip
    whole = throughput.summary(rows)["extrapolated bf16"]
    assert whole["layers"] == 32
    assert whole["tokens_per_s_per_gpu"] == pytest.approx(3400 / 3.4)
    assert whole["tflops_per_gpu"] == pytest.approx(2.0)


def test_factors_fitted_to_one_half_serve_the_other() -> None:
    """Measurements from which the estimate differs by the same factors everywhere."""
    taken = []
    for size in range(1, 9):
        predicted = {
            "parameters": 2e9,
            "activations": size * 1e9,
            "logits": (9 - size) * 5e8,
            "workspace": 1e8 * size % 3e8,
        }
        measured = 2e9 + 1.2 * predicted["activations"] + 0.8 * predicted["logits"] + predicted["workspace"]
        error = sum(predicted.values()) / measured - 1
        taken.append(
            {"name": str(size), "predicted": predicted, "measured_bytes": measured, "relative_error": error}
        )
    found = estimator.summary(taken)
    assert found["errors"]["largest"] > 0.03
    assert found["errors_of_the_rest"]["largest"] < 0.005
    assert found["factors"]["activations"] == pytest.approx(1.2, abs=0.02)
    assert len(found["fitted_on"]) == found["errors_of_the_rest"]["count"] == 4


def test_the_best_of_changes_to_one_flag_is_taken() -> None:
    taken = {
        "as it is": {"tokens_per_s_per_gpu": 100.0, "flags": {}, "variables": {}},
        "2": {"tokens_per_s_per_gpu": 120.0, "flags": {"micro_batch_size": 2}, "variables": {}},
        "4": {"tokens_per_s_per_gpu": 110.0, "flags": {"micro_batch_size": 4}, "variables": {}},
        "fp8": {"tokens_per_s_per_gpu": 130.0, "flags": {"fp8": True}, "variables": {}},
        "slower": {"tokens_per_s_per_gpu": 90.0, "flags": {"log_every": 2}, "variables": {"A": "1"}},
    }
    assert tuning.helpful(taken) == ({"micro_batch_size": 2, "fp8": True}, {})


def test_tuning_flags_are_typed_as_the_command_takes_them() -> None:
    for name, (flags, variables) in tuning.CHANGES.items():
        words = runs.words_of(flags)
        given = vars(pretrain.parser().parse_args(["-M", "llama32_1b", *words]))
        assert {key: given[key] for key in flags} == flags, name
        assert variables == {}
    assert runs.words_of({"fp8": False, "overlap_grad_reduce": False}) == ["--no-overlap-grad-reduce"]


def test_it_says_what_it_would_measure_and_starts_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(GPU / "run.py"), "--device", "cpu", "--tiny", "--dry-run"]
    steps = ["smoke", "throughput-1b", "throughput-8b", "layer-cost", "estimator", "cpu-gpu", "tuning"]
    folders = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    said = subprocess.run([*command, *folders, *steps], capture_output=True, text=True, check=True).stdout
    assert {line.split(":")[0] for line in said.splitlines()} == set(steps)
    assert "throughput-8b: ours fp8: llama31_8b, 2 layers" in said
    assert not (tmp_path / "results").exists()


def record(step: str, rows: Sequence[dict[str, Any]], **more: object) -> dict[str, object]:
    """A result as `run.py` writes one."""
    about = {"date": "2026-01-02T03:04:05+00:00", "device": "gpu", "tiny": False, "gpus": ["NVIDIA H200"]}
    versions = {"torch": "2.11.0", "nemo_toolkit": "2.7.3", "transformer-engine": None}
    return {"step": step, **about, "driver": "580", "versions": versions, "rows": rows, **more}


def test_the_page_shows_what_was_measured_and_no_more(tmp_path: Path) -> None:
    speed = {"step_time_s": 2.0, "tokens_per_s_per_gpu": 32768.0, "memory_peak_bytes": 2**36, "layers": 16}
    rows: list[dict[str, Any]] = [
        {"name": "ours bf16", **speed, "mfu": 0.401},
        {"name": "torchtitan", "error": "no\nluck", "log": "x"},
    ]
    memory = {"name": "a", "predicted_bytes": 2**31, "measured_bytes": 2**30, "relative_error": 1.0}
    results = {
        "throughput-1b": record("throughput-1b", rows, summary={"ours / torch": 1.25}),
        "estimator": record(
            "estimator", [memory], summary={"errors": {"mean": 1.0, "largest": 1.0, "count": 1}}
        ),
    }
    text = tables.page(results)
    assert "| ours bf16 | 16 | 32,768 |" in text
    assert "| 40.1% |" in text
    assert "64.0 GiB" in text
    assert "ours / torch: 1.25 times" in text
    assert "Failed: torchtitan (no luck)." in text
    assert (
        "2026-01-02, NVIDIA H200, driver 580; torch 2.11.0, nemo_toolkit 2.7.3, without Transformer" in text
    )
    assert "| a | 2.0 GiB | 1.0 GiB | +100.0% |" in text
    headings = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert headings == [tables.STEPS[step][0] for step in ("throughput-1b", "estimator")]


def test_results_of_a_cpu_or_of_tiny_shapes_never_reach_the_page(tmp_path: Path) -> None:
    old, new = record("smoke", []), record("smoke", []) | {"date": "2026-02-02T03:04:05+00:00"}
    for name, content in (
        ("old", old),
        ("new", new),
        ("tiny", new | {"tiny": True}),
        ("cpu", new | {"device": "cpu"}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content | {"name": name}))
    assert {step: found["name"] for step, found in tables.newest(tmp_path).items()} == {"smoke": "new"}
    (tmp_path / "old.json").unlink()
    (tmp_path / "new.json").unlink()
    assert tables.newest(tmp_path) == {}


def test_the_page_in_docs_is_the_results() -> None:
    assert tables.PAGE.read_text() == tables.page(tables.newest(GPU / "results"))


@pytest.mark.long
def test_every_step_works_with_tiny_shapes_on_a_cpu(tmp_path: Path) -> None:
    steps = ["smoke", "throughput-1b", "layer-cost", "estimator", "cpu-gpu", "tuning"]
    command = [sys.executable, str(GPU / "run.py"), "--device", "cpu", "--tiny", "--minutes", "30"]
    command += ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"), *steps]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:]
    found = {}
    for file in (tmp_path / "results").glob("*.json"):
        content = json.loads(file.read_text())
        found[content["step"]] = content
    assert set(found) == set(steps)
    assert not any("summary_error" in content for content in found.values())
    assert found["smoke"]["summary"]["worked"] == ["train", "resume", "export", "generate"]
    assert found["cpu-gpu"]["summary"] == {"there": 0.0, "back": 0.0}  # a CPU beside itself
    assert found["estimator"]["summary"]["errors"]["count"] == 4
    (preset,) = (tmp_path / "results").glob("*.preset.yaml")
    assert catalogue.preset(str(preset)).model == "llama32_1b"
    (logs,) = (tmp_path / "results").glob("smoke-*-logs.tar.gz")
    assert logs.stat().st_size > 0
    assert not list((tmp_path / "work").iterdir())


def test_an_unknown_step_or_environment_is_refused(tmp_path: Path) -> None:
    for words, why in (
        (["nonsense"], "invalid choice"),
        (["--env", str(tmp_path / "none"), "smoke"], "install.py"),
    ):
        done = subprocess.run([sys.executable, str(GPU / "run.py"), *words], capture_output=True, text=True)
        assert done.returncode != 0
        assert why in done.stderr


def test_records_hold_what_was_measured_even_where_rows_fail(tmp_path: Path) -> None:
    from bench import Bench, Failed, Row, take

    def fails() -> dict[str, object]:
        raise Failed("no luck", "--- log\nlast words")

    bench = Bench(device="cpu", tiny=True, work=tmp_path, results=tmp_path / "r", env=None, seconds=60)
    rows = [Row("bad", "fails", fails), Row("good", "works", lambda: {"value": 3})]
    record = json.loads(take(bench, "trial", rows, lambda taken: [row["value"] for row in taken]).read_text())
    assert record["rows"][0]["error"] == "no luck"
    assert record["rows"][0]["log"].endswith("last words")
    assert record["rows"][1]["value"] == 3
    assert record["summary"] == [3]
    assert record["versions"]["python"]
