"""Real trainings started in other ways than by a task a rank outside containers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from slurm.test_container import SYSTEM
from slurm.training import ROOT, Training, finish, same_as

from nemolaunch.run.attempts import attempts

pytestmark = pytest.mark.long


@pytest.mark.parametrize("signal", ["TERM", "USR1"])
def test_torchrun_lets_the_ranks_save_and_leave(quiet: Training, run: Training, signal: str) -> None:
    run.flags["launcher"] = "torchrun"
    process = run.start()
    run.wait_for_step(6)
    run.cluster.run("scancel", f"--signal={signal}", run.job())
    code, said = finish(process)
    assert code == 0, said
    assert "exited cleanly" in said, said
    assert f"signal SIG{signal}" in run.run.rank_log(0).read_text()
    assert [attempt.restart for attempt in attempts(run.run)] == ["0", "1"]
    same_as(quiet, run)


def test_a_rank_that_dies_under_torchrun_is_named(quiet: Training, run: Training) -> None:
    run.flags["launcher"] = "torchrun"
    process = run.start()
    run.wait_for_step(6)
    run.order(1, "raise ValueError a sample is not what it should be")
    code, said = finish(process)
    assert code == 0, said
    assert "failed  rank 1: ValueError: a sample is not what it should be" in said, said
    same_as(quiet, run)


def test_in_a_container_the_losses_are_the_same(quiet: Training, run: Training, tmp_path: Path) -> None:
    """An image with nothing but the variables of one; its programs are mounted."""
    if not run.cluster.spank:
        pytest.skip("needs a C compiler and libslurm-dev")
    image = tmp_path / "image"
    image.mkdir()
    programs = Path(str(run.flags.pop("python", sys.executable))).parent
    (image / "environment").write_text(f"PATH={programs}:/usr/bin:/bin\nHF_HUB_OFFLINE=0\n")
    packages = {str(Path(path).resolve()) for path in sys.path if path.endswith("site-packages")}
    environment = {str(programs.parent), str(programs.parent.resolve())}
    inject = Path(__file__).with_name("inject")
    run.flags["container_image"] = image
    mounts = {*SYSTEM, *packages, *environment, str(ROOT / "src"), str(inject), str(run.faults)}
    words = [f"{path}:{path}" for path in sorted(mounts)]
    process = run.start("--container-mounts", *words)
    code, said = finish(process)
    assert code == 0, said
    same_as(quiet, run)
