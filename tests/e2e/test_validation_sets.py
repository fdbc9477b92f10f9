"""Validation sets in real runs: their losses are right, repeatable, and leave the training as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import LLAMA, planned, prepared, train
from forkserver import ForkServer, JobFailed
from held_out import CORPUS, held_out_corpora

from nemolaunch.observe.status import status
from nemolaunch.planning import Plan
from nemolaunch.run import metrics

BATCHES = 2
SAMPLES = BATCHES * 16


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with two corpora, a fifth of each held out by `nemolaunch tokenize`."""
    return str(held_out_corpora(tmp_path_factory.mktemp("corpora")))


def validations(plan: Plan) -> list[dict[str, Any]]:
    return [row for row in metrics.current(metrics.read(plan.run.metrics)) if "val_loss" in row]


def test_losses_are_right_after_a_restart_too_and_training_is_unchanged(
    fork_server: ForkServer, corpora: str, tmp_path: Path
) -> None:
    """With dropout, several micro batches, and sets of one and of two files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held_out = [f"{corpora}/{name}_validation_text_document" for name in ("en", "zh_hant")]
    both = tmp_path / "both"
    both.mkdir()
    for prefix in held_out:
        for ending in (".bin", ".idx"):
            (both / (Path(prefix).name + ending)).symlink_to(prefix + ending)
    model = tmp_path / "dropout.yaml"
    model.write_text(LLAMA + "hidden_dropout: 0.1\n")
    values: dict[str, Any] = {
        "model_name": str(model), "max_steps": 4, "micro_batch_size": 4, "lr": 1e-2, "checkpoint_every": 3,
        "split": None, "limit_val_batches": BATCHES, "val_check_interval": 2,
    }  # fmt: skip
    plain_folder, folder = tmp_path / "plain", tmp_path / "sets"
    plain_folder.mkdir()
    folder.mkdir()
    data = [f"{corpora}/{name}_text_document" for name in ("en", "zh_hant")]
    plain = planned(
        plain_folder, "", **{**values, "dataset_dir": data, "split": "1,0,0", "limit_val_batches": 0}
    )
    sets = [f"en={held_out[0]}", f"both={both}"]
    plan = planned(folder, "", **values, dataset_dir=data, validation_data=sets)
    assert [s.num_batches for s in plan.validation_sets] == [BATCHES, BATCHES]

    expected = train(fork_server, plain)[0]["loss"]
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=4)
    (early,) = validations(plan)
    losses = [row["loss"] for row in metrics.read(plan.run.metrics) if "loss" in row]
    assert losses == expected[:3]  # bitwise, although there was a validation after the second step
    assert train(fork_server, prepared(plan))[0]["step"] == [4]

    early, late = validations(plan)
    assert (early["step"], late["step"]) == (2, 4)
    together = [str(both / Path(prefix).name) for prefix in held_out]
    named = {"en": {"prefixes": held_out[:1]}, "both": {"prefixes": together}}
    checkpoint = plan.run.last_checkpoint()
    assert checkpoint is not None
    (computed,) = fork_server.run(
        "e2e.validation_losses:by_hand",
        {"checkpoint": str(checkpoint.resolve()), "sets": named, "num_samples": SAMPLES, "seq_length": 64},
    )
    for name, loss in computed.items():
        assert late[f"val_loss/{name}"] == pytest.approx(loss, rel=1e-5)
    assert late["val_loss"] == late["val_loss/en"] != late["val_loss/both"]
    assert early["val_loss/en"] > late["val_loss/en"]

    events = EventAccumulator(str(plan.run.tensorboard))
    events.Reload()
    seen = {event.step: event.value for event in events.Scalars("val_loss/both")}
    assert seen == pytest.approx({2: early["val_loss/both"], 4: late["val_loss/both"]})
    assert status(plan.run.root).val_losses == {name: late[f"val_loss/{name}"] for name in ("en", "both")}


def test_held_out_documents_and_a_set_on_a_pipeline(
    fork_server: ForkServer, corpora: str, tmp_path: Path
) -> None:
    """With --split, the documents it holds out are the first set; only the last stage knows the losses."""
    training, held_out = f"{corpora}/zh_hant_text_document", f"{corpora}/en_validation_text_document"
    plan = planned(
        tmp_path, training, max_steps=2, split="80,20,0", validation_data=[f"en={held_out}"], limit_val_batches=BATCHES,
        pipeline_model_parallel_size=2, virtual_pipeline_model_parallel_size=2, micro_batch_size=4, lr=1e-2,
    )  # fmt: skip
    train(fork_server, plan)
    (row,) = validations(plan)
    given = {"num_samples": SAMPLES, "seq_length": 64, "checkpoint": str(plan.run.last_checkpoint())}
    named = {"held-out": {"prefixes": [training], "split": 0.8}, "en": {"prefixes": [held_out]}}
    (computed,) = fork_server.run("e2e.validation_losses:by_hand", {**given, "sets": named})
    for name, loss in computed.items():
        assert row[f"val_loss/{name}"] == pytest.approx(loss, rel=1e-5)
    assert row["val_loss"] == row["val_loss/held-out"]


def test_a_stream_validates_on_files(fork_server: ForkServer, corpora: str, tmp_path: Path) -> None:
    """Two ranks share the batches. Without --split no rows are held out, so the first set is `val_loss`."""
    held_out = {name: f"{corpora}/{name}_validation_text_document" for name in ("en", "zh_hant")}
    plan = planned(
        tmp_path, str(CORPUS / "en.jsonl"), max_steps=2, data_mode="stream", split=None, limit_val_batches=BATCHES,
        validation_data=[f"{name}={prefix}" for name, prefix in held_out.items()], micro_batch_size=4, num_gpus=2,
    )  # fmt: skip
    train(fork_server, plan)
    (row,) = validations(plan)
    given = {"num_samples": SAMPLES, "seq_length": 64, "checkpoint": str(plan.run.last_checkpoint())}
    named = {name: {"prefixes": [prefix]} for name, prefix in held_out.items()}
    (computed,) = fork_server.run("e2e.validation_losses:by_hand", {**given, "sets": named})
    for name, loss in computed.items():
        assert row[f"val_loss/{name}"] == pytest.approx(loss, rel=1e-5)
    assert row["val_loss"] == row["val_loss/en"]


def test_masked_tokens_have_an_accuracy_for_each_set(
    fork_server: ForkServer, corpora: str, tmp_path: Path
) -> None:
    """The first set, in Lightning's loop, and the second, after it, are the same file, and so are their figures."""
    held_out = f"{corpora}/en_validation_text_document"
    plan = planned(
        tmp_path, f"{corpora}/en_text_document", max_steps=2, split=None, objective="mlm", limit_val_batches=BATCHES,
        mask_token="<|reserved_special_token_0|>", validation_data=[f"a={held_out}", f"b={held_out}"], lr=1e-2,
    )  # fmt: skip
    train(fork_server, plan)
    (row,) = validations(plan)
    for key in ("val_loss", "val_masked_accuracy"):
        assert row[f"{key}/a"] == row[key]
        assert row[f"{key}/b"] == pytest.approx(row[key], rel=1e-6)
    assert 0 < row["val_masked_accuracy"] < 1
