"""Each pair of NeMo and Megatron-Core in the table trains, resumes and exports, and all compute the same.

The pairs are laid over the ordinary environment. `make test` tries that of the default container, `make test-versions`
and `make test-long` all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import planned, prepared
from forkserver import ForkServer, JobFailed
from versions.overlays import CannotDownloadError, overlay, proven

from nemolaunch.catalogue.containers import container, nemo_tag
from nemolaunch.catalogue.version_pairs import Pair, patches_for, release
from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.job import spec_of
from nemolaunch.planning import Plan
from nemolaunch.run import metrics

JOB: dict[str, Any] = {"max_steps": 6, "num_gpus": 2, "global_batch_size": 4, "checkpoint_every": 3}
ROUNDING = 1e-6


def is_default(pair: Pair) -> bool:
    """Whether the default container has this pair."""
    default = container(nemo_tag(str(spec_of("container_image").default)) or "")
    return default is not None and (pair.nemo, pair.megatron) == (default.nemo, default.megatron)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tokens of the sample corpus."""
    import subprocess

    root, folder = Path(__file__).parents[2], tmp_path_factory.mktemp("data")
    words = ["--hf-tokenizer", "examples/tokenizer", "--data-prefix", "sample"]
    words += ["--input-dir", "examples/corpus", "--output-dir", str(folder)]
    subprocess.run(["bash", "preprocess_data.sh", *words], cwd=root, check=True, capture_output=True)
    return str(folder)


class Trained:
    """A run in one environment: interrupted after the first checkpoint, and resumed."""

    def __init__(self, server: ForkServer, folder: Path, data: str) -> None:
        self.server, self.folder, self.data = server, folder, data
        self.plan = planned(folder, data, output_dir=str(folder / "run"), **JOB)
        with pytest.raises(JobFailed, match="-9"):
            self._train(self.plan, kill_after=5)
        rows = [row for row in metrics.read(self.plan.run.metrics) if "loss" in row]
        self.first = [row["loss"] for row in rows if row["step"] <= 3]
        (self.checkpoint,) = self.plan.run.checkpoints.glob("*-step=2-*[!t]")
        self.rest = self._train(prepared(self.plan))

    def continued(self, checkpoint: Path, name: str) -> dict[str, Any]:
        """The rest of a run that starts from a checkpoint of another environment."""
        output = str(self.folder / name)
        plan = planned(self.folder, self.data, output_dir=output, resume=str(checkpoint), **JOB)
        return self._train(plan)

    def _train(self, plan: Plan, **kwargs: Any) -> dict[str, Any]:
        arguments = {"plan_file": str(plan.run.plan), **kwargs}
        return dict(self.server.run("versions.pair_job:train", arguments, nproc=2)[0])


@pytest.fixture(scope="module")
def ordinary(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run in the ordinary environment."""
    return Trained(fork_server, tmp_path_factory.mktemp("ordinary"), data)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(pair, id=str(pair), marks=() if is_default(pair) else pytest.mark.long)
        for pair in proven()
    ],
)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each pair that the table calls proven."""
    return request.param


@pytest.fixture(scope="module")
def trained(pair: Pair, data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The same run with a pair."""
    try:
        packages = overlay(pair)
    except CannotDownloadError as error:
        pytest.skip(f"{pair} cannot be downloaded: {error}")
    folder = tmp_path_factory.mktemp("pair")
    server = ForkServer(folder / "server", packages)
    yield Trained(server, folder, data)
    server.close()


def test_it_computes_what_the_ordinary_environment_does(
    pair: Pair, trained: Trained, ordinary: Trained
) -> None:
    assert trained.rest["releases"] == [pair.nemo, pair.megatron]
    assert trained.first == ordinary.first
    assert trained.rest["step"] == [4, 5, 6]
    for key in ("loss", "grad_norm", "lr", "optimizer", "samples"):
        assert trained.rest[key] == ordinary.rest[key], key


def test_the_same_parameters_are_exempt_from_weight_decay(trained: Trained, ordinary: Trained) -> None:
    found = trained.rest["multipliers"]
    assert found == ordinary.rest["multipliers"]
    exempt = {name for name, (decay, _) in found.items() if decay == 0}
    assert exempt == {
        name for name in found if name.endswith(("layer_norm_weight", "final_layernorm.weight"))
    }


def test_the_ordinary_environment_continues_its_checkpoint(trained: Trained, ordinary: Trained) -> None:
    assert ordinary.continued(trained.checkpoint, trained.folder.name)["loss"] == ordinary.rest["loss"]


def test_it_continues_a_checkpoint_of_the_ordinary_environment(
    pair: Pair, trained: Trained, ordinary: Trained
) -> None:
    if release(pair.megatron) < (0, 15):
        pytest.skip(
            "Megatron-Core 0.14 cannot read newer checkpoints: their metadata is of a class added in 0.15"
        )
    assert trained.continued(ordinary.checkpoint, "theirs")["loss"] == ordinary.rest["loss"]


def test_its_checkpoint_is_exported(trained: Trained, tmp_path: Path) -> None:
    """NeMo's model, loaded with this pair, computes what the exported one does in transformers."""
    last = trained.plan.run.last_checkpoint()
    assert last is not None
    convert(last, tmp_path / "hf", "hf")
    arguments = {"hf": str(tmp_path / "hf"), "nemo": str(last)}
    (logits,) = trained.server.run("nemo2.convert_job:logits", arguments)
    assert logits["difference"] <= ROUNDING * max(logits["size"], 1)


def test_the_plan_lists_the_patches_that_are_applied(pair: Pair, trained: Trained) -> None:
    (applied,) = trained.server.run("versions.pair_job:applied")
    assert applied == [patch.name for patch in patches_for(pair.megatron)]


def test_conditions_of_weight_decay_and_learning_rate_keep_their_meaning(
    pair: Pair, trained: Trained
) -> None:
    """As in `_get_param_groups` of Megatron-Core 0.15: a condition replaces the standard one."""
    if not pair.megatron.startswith("0.16"):
        pytest.skip("this Megatron-Core takes NeMo's conditions as they are")
    arguments = {"keep": ["a.weight"], "scaled": ["b.weight"], "lr_mult": 0.5}
    (groups,) = trained.server.run("versions.pair_job:overridden_groups", arguments)
    assert groups == [[0.0, 1.0, ["a.weight"]], [1.0, 0.5, ["b.weight"]], [1.0, 1.0, ["a.bias", "b.bias"]]]
    (groups,) = trained.server.run(
        "versions.pair_job:overridden_groups", {**arguments, "keep": [], "scaled": ["a.bias"]}
    )
    assert groups == [[0.0, 0.5, ["a.bias"]], [0.0, 1.0, ["b.bias"]], [1.0, 1.0, ["a.weight", "b.weight"]]]
