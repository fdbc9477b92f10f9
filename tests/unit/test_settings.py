"""`--set`: words are read as YAML 1.2, checked without NeMo, merged by path, and shown wherever a plan is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import check_jobs
import pytest

from nemolaunch import catalogue
from nemolaunch.catalogue.recipe_fields import recipe_fields
from nemolaunch.check.setting_owners import FIXED, FREE, OWNED, OWNED_WHILE
from nemolaunch.cli.commands import diff, plan, pretrain
from nemolaunch.cli.parsing.flags import job_from
from nemolaunch.cli.parsing.saved_plan import job_of_plan
from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding, Severity, errors
from nemolaunch.job import Job, spec_of
from nemolaunch.job.settings import merged, parsed
from nemolaunch.planning import Plan, make_plan

DROPOUT = "model.config.hidden_dropout=0.1"
MOMENTUM = "optim.config.sgd_momentum=0.8"
WORDS = ["-M", "llama32_1b", "--hf-model-id", check_jobs.TOKENIZER, "--max-steps", "10"]


# The values are those of YAML 1.2's core schema, and `None` as in Python
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("yes", "yes"),
        ("null", None),
        ("~", None),
        ("None", None),
        ("12", 12),
        ("010", 10),
        ("1:30", "1:30"),
        ("-3", -3),
        ("1e-8", 1e-8),
        (".5", 0.5),
        ("2.", 2.0),
        ("flash", "flash"),
        ("'3'", "3"),
        ("[mlp, core_attn]", ["mlp", "core_attn"]),
        ("[1, 2.5, null]", [1, 2.5, None]),
        ("[]", []),
        ("2024-01-01", "2024-01-01"),
        ("a=b", "a=b"),
    ],
)
def test_values_are_yaml(text: str, value: Any) -> None:
    setting = parsed(f"a.b={text}")
    assert (setting.path, setting.value, setting.problem) == ("a.b", value, "")
    assert type(setting.value) is type(value)


@pytest.mark.parametrize("word", ["a", "a.b", "=3", "a..b=3", "1a=3", "a-b=3", "a={b: 3}", "a=[", "a=1e999"])
def test_words_of_another_form_have_a_problem(word: str) -> None:
    assert parsed(word).problem


def found(*words: str, model: str = "llama3_8b", **values: Any) -> list[Finding]:
    return [f for f in check_jobs.findings(model, set=words, **values) if f.code.startswith("set-")]


@pytest.mark.parametrize(
    ("word", "code", "fix"),
    [
        ("model.config.hiden_dropout=0.1", "set-unknown", DROPOUT),
        ("hidden_dropout=0.1", "set-unknown", DROPOUT),
        ("optim.sgd_momentum=0.8", "set-unknown", MOMENTUM),
        ("trainer.ddp.bucket_size=3", "set-unknown", "trainer.strategy.ddp.bucket_size=3"),
        ("model.config.fp8_margin=1", "set-replaced", "trainer.plugins.fp8_margin=1"),
        (
            "model.config.microbatch_group_size_per_vp_stage=4",
            "set-replaced",
            "trainer.strategy.microbatch_group_size_per_vp_stage=4",
        ),
    ],
)
def test_another_path_is_suggested(word: str, code: str, fix: str) -> None:
    (finding,) = found(word)
    assert finding.code == code
    assert finding.severity is Severity.ERROR
    assert finding.fixes[0].changes == {"set": (fix,)}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("model.config.hidden_dropout=a", "a number"),
        ("model.config.hidden_dropout=null", "a number"),
        ("model.config.bias_dropout_fusion=1", "true or false"),
        ("trainer.strategy.ddp.bucket_size=4.5", "a whole number or null"),
        ("trainer.strategy.ddp.bucket_size=true", "a whole number or null"),
        ("optim.config.exp_avg_dtype=int8", "float32, bfloat16, float16 or uint8"),
        ("log.files_to_copy=a", "a list"),
        ("log.files_to_copy=[1]", "a list"),
        ("data.dataloader_type=random", "single, cyclic, batch or null"),
        ("optim.no_weight_decay_cond=a", "an object"),
    ],
)
def test_the_type_is_checked(word: str, kind: str) -> None:
    (finding,) = found(word)
    assert finding.code == "set-type"
    assert kind in finding.message


@pytest.mark.parametrize(
    "word",
    [
        "trainer.strategy.ddp.bucket_size=4e7",
        "trainer.strategy.ddp.bucket_size=null",
        "optim.config.exp_avg_dtype=bf16",
        "log.files_to_copy=[a, b]",
        "data.dataloader_type=cyclic",
        "data.pin_memory=false",
        "trainer.deterministic=warn",
        "trainer.plugins.grad_reduce_in_fp32=false",
        DROPOUT,
        MOMENTUM,
    ],
)
def test_sound_settings_have_no_errors(word: str) -> None:
    assert errors(found(word)) == ()


@pytest.mark.parametrize("path", [*OWNED, *OWNED_WHILE])
def test_what_a_flag_decides_names_a_flag_that_exists(path: str) -> None:
    for field in OWNED_WHILE.get(path, (OWNED.get(path, ""),)):
        assert spec_of(field).name == field


@pytest.mark.parametrize("path", OWNED)
def test_what_a_flag_decides_is_refused_with_that_flag(path: str) -> None:
    (finding,) = found(f"{path}=1")
    assert finding.code == "set-owned"
    assert spec_of(OWNED[path]).flag in finding.message


def test_the_value_is_given_to_the_flag_if_it_means_the_same() -> None:
    (finding,) = found("trainer.max_steps=12", max_steps=10)
    assert finding.fixes[0].changes == {"set": (), "max_steps": 12}
    assert str(finding).endswith("decided by --max-steps; use --max-steps 12 and drop --set")
    (finding,) = found("trainer.log_every_n_steps=5")
    assert finding.fixes[0].changes == {"set": (), "log_every": 5}
    (finding,) = found("trainer.max_epochs=2")
    assert finding.fixes[0].changes == {"set": ()}


def test_the_architecture_belongs_into_a_file() -> None:
    (finding,) = found("model.config.num_layers=3")
    assert finding.code == "set-owned"
    assert "`num_layers` in a YAML file with `base: llama3_8b`" in finding.message


def test_tables_name_fields_that_nemo_has() -> None:
    """Of any model; `model.tokenizer`, the schedule and the loggers are objects, which no setting reaches."""
    known = {path for recipe in catalogue.recipes() for path in recipe_fields(recipe)}
    parts = {"model.tokenizer", "log.ckpt.train_time_interval"}
    for path in {*OWNED, *OWNED_WHILE, *FIXED, *FREE} - parts:
        replaced = path.startswith(("trainer.plugins", "optim.lr_scheduler"))
        assert path in known or replaced, path


def test_a_flag_decides_some_fields_only_while_it_is_used() -> None:
    word = "model.config.calculate_per_token_loss=true"
    assert errors(found(word)) == ()
    (finding,) = errors(found(word, objective="mlm", mask_token="<|reserved_0|>"))
    assert (finding.code, "--objective" in finding.message) == ("set-owned", True)


def test_null_is_no_value_where_a_callback_has_one() -> None:
    """NeMo's overlap callback sets buckets of 128 MiB unless it is given a size (`_get_optimizer_overlap_cfgs`)."""
    row = next(r for r in catalogue.recipes() if "MegatronCommOverlapCallback" in r.callbacks)
    codes = [f.code for f in found("trainer.strategy.ddp.bucket_size=null", model=row.name)]
    assert codes == ["set-no-effect"]


def test_dropout_is_part_of_the_estimate() -> None:
    """A mask of one byte per value after attention and after the MLP of each layer."""

    def planned(*words: str) -> Plan:
        job = check_jobs.job("llama32_1b", set=words, max_steps=10, num_gpus=8)
        return make_plan(job, facts=check_jobs.facts(job))

    plain, dropped = planned(), planned(DROPOUT)
    assert plain.estimate is not None
    assert dropped.estimate is not None
    assert dropped.architecture["hidden_dropout"] == 0.1
    shape = catalogue.model("llama32_1b").architecture
    masks = 2 * shape.num_layers * shape.seq_length * shape.hidden_size
    assert dropped.estimate.memory.activations - plain.estimate.memory.activations == masks


def test_settings_of_a_file_and_of_flags_are_merged_by_path(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"model_name: llama3_8b\nset: [{DROPOUT}, {MOMENTUM}]\n")
    assert job_from({}, file).recipe.set == (DROPOUT, MOMENTUM)
    assert job_from({"set": ["model.config.hidden_dropout=0.2"]}, file).recipe.set == (
        MOMENTUM,
        "model.config.hidden_dropout=0.2",
    )
    assert job_from({"set": ["model.config.hidden_dropout="]}, file).recipe.set == (MOMENTUM,)
    with pytest.raises(UsageError, match="there is none"):
        job_from({"set": ["model.config.hiden_dropout="]}, file)
    assert merged([], [DROPOUT, DROPOUT]) == (DROPOUT, DROPOUT), "a contradiction is left to the checks"


def test_python_takes_them_as_well() -> None:
    assert Job(model="llama3_8b", set=[DROPOUT]).recipe.set == (DROPOUT,)


def saved(folder: Path, *words: str) -> Path:
    job = check_jobs.job("llama32_1b", set=words, max_steps=10, output_dir=str(folder))
    return make_plan(job, facts=check_jobs.facts(job)).save(folder / "plan.json")


def test_a_saved_plan_keeps_them_and_diff_shows_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    for folder, words in ((one, (DROPOUT, MOMENTUM)), (other, (DROPOUT, "optim.config.sgd_momentum=0.7"))):
        folder.mkdir()
        saved(folder, *words)
    assert json.loads((one / "plan.json").read_text())["values"]["set"] == [DROPOUT, MOMENTUM]
    job, *_ = job_of_plan(one, {"set": ["optim.config.sgd_momentum="]})
    assert job.recipe.set == (DROPOUT,)
    diff.main([str(one), str(other), "--json"])
    rows = {row["name"]: (row["a"], row["b"]) for row in json.loads(capsys.readouterr().out)}
    assert rows.pop("output_dir")
    assert rows == {"set optim.config.sgd_momentum": ("0.8", "0.7")}


def test_a_dropped_setting_does_not_stay_in_the_model(tmp_path: Path) -> None:
    plan_file = saved(tmp_path, DROPOUT)
    job, model, *_ = job_of_plan(plan_file, {"set": ["model.config.hidden_dropout="]})
    again = make_plan(job, facts=check_jobs.facts(job), model=model)
    assert again.architecture["hidden_dropout"] == 0.0


def test_repeated_flags_add_up_and_the_plan_shows_each(capsys: pytest.CaptureFixture[str]) -> None:
    plan.main([*WORDS, "--dataset-dir", "/nowhere", "--set", DROPOUT, "--set", MOMENTUM])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("--set ")]
    assert lines == [["--set", DROPOUT, "flag"], ["--set", MOMENTUM, "flag"]]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["max_steps=10"], "use --max-steps 10"),
        (["--dataset-dir", "data", "max_steps=10"], "use --max-steps 10"),
        (["--dataset-dir", "data", "optim.config.lr=1e-3", "fp8=true"], "use --lr 1e-3 --fp8"),
        (["overlap_grad_reduce=false"], "use --no-overlap-grad-reduce"),
        (["hidden_dropout=0.1"], f"use --set {DROPOUT}"),
        (["--profile-ranks", "0", DROPOUT], f"use --set {DROPOUT}"),
        (["log.name=a b"], "use --set 'log.name=a b'"),
    ],
)
@pytest.mark.parametrize("command", [plan.main, pretrain.main])
def test_a_value_without_a_flag_gets_one(
    command: Any, words: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([*WORDS, *words]) == 2
    assert f"{advice}. " in capsys.readouterr().err


def test_a_path_may_contain_an_equals_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "date=2024"
    folder.mkdir()
    check_jobs.write_data(folder)
    assert plan.main([*WORDS, "--dataset-dir", str(folder), "-gbs", "8"]) == 0
    assert pretrain.main([*WORDS, "foo=bar"]) == 2
    assert "unknown: foo=bar" in capsys.readouterr().err


def test_a_recipe_is_only_shown_where_nemo_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nemo", None)  # as if it were not installed
    check_jobs.write_data(tmp_path)
    words = [*WORDS, "--dataset-dir", str(tmp_path), "-gbs", "8", "--show-recipe"]
    assert plan.main(words) == 1
    assert (
        "error: --show-recipe compiles the recipe with NeMo, which is not installed"
        in capsys.readouterr().err
    )


def test_a_recipe_is_shown_with_a_dry_run_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain.main([*WORDS, "--dataset-dir", "/nowhere", "--show-recipe"]) == 2
    assert "--show-recipe is for --dry-run" in capsys.readouterr().err
    assert plan.main([*WORDS, "--dataset-dir", "/nowhere", "--show-recipe", "--json"]) == 2
    assert "--show-recipe prints text" in capsys.readouterr().err
