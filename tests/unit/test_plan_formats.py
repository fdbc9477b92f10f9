"""A plan as YAML, schema, saved file and difference: what is printed says the job, and reproduces it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jobs import TOKENIZER, write_data

from nemolaunch.cli.commands import count_params, diff, estimate_mem, generate_config, plan, pretrain, schema
from nemolaunch.cli.parsing.flags import job_from, origins_from, read_config
from nemolaunch.job import Job, specs
from nemolaunch.planning import Plan, make_plan


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder to work in, with data; returns the data's prefix."""
    monkeypatch.chdir(tmp_path)
    return write_data(tmp_path, num_tokens=4_000_000, num_documents=1000)


def words(data: str, *more: str) -> list[str]:
    return ["-M", "aixsim-60m", "--dataset-dir", data, "--hf-model-id", TOKENIZER, *more]


JOBS = [
    ("-gbs", "8", "-G", "1"),
    ("--global-batch-tokens", "64k", "--max-tokens", "1M", "-G", "2", "-TP", "2", "-SP"),
    ("--tokens-per-param", "0.5", "-gbs", "4", "--lr", "5e-6", "--min-lr", "1e-7", "-G", "1"),
    ("--executor", "slurm", "-N", "2", "--fp8", "-gbs", "64", "--time", "1:00:00", "--gpu", "h200"),
    ("--container-mounts", "/a b:/c", "/d:/e", "-E", "run.1", "--executor", "slurm", "-gbs", "8"),
    ("--recompute-granularity", "full", "--recompute-method", "block", "--recompute-num-layers", "3",
     "-gbs", "8", "--no-async-save", "--split", "9,1,0"),
]  # fmt: skip


@pytest.mark.parametrize("given", JOBS)
def test_the_yaml_reproduces_the_job(
    data: str, given: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    assert generate_config.main([*words(data, *given), "-o", str(file)]) == 0
    first = make_plan(job_from({}, file))
    asked = vars(pretrain.parser().parse_args(words(data, *given)))
    asked = {key: value for key, value in asked.items() if key in {spec.name for spec in specs()}}
    direct = make_plan(job_from(asked, None))
    assert first.job == direct.job
    assert (first.architecture, first.blend, first.world_size) == (
        direct.architecture, direct.blend, direct.world_size,
    )  # fmt: skip
    jsonschema.validate(yaml.safe_load(file.read_text()), schema.schema())


def test_every_value_is_there_with_its_origin(data: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 1e-4\nglobal_batch_size: 8\n")
    file = tmp_path / "job.yaml"
    assert generate_config.main([*words(data, "-G", "1"), "--config", "mine.yaml", "-o", str(file)]) == 0
    lines = {m[1]: m[2] for m in re.finditer(r"^(\w+): .*?# (.*)$", file.read_text(), re.M)}
    assert lines.keys() == Job().values().keys()
    assert lines["model_name"] == "flag"
    assert lines["lr"] == "file mine.yaml"
    assert lines["seq_length"] == "the model aixsim-60m"
    assert lines["max_steps"].startswith("one epoch: ")
    assert lines["adam_beta1"].startswith("as Pythia 70M")
    assert lines["seed"] == "default"


def test_a_wrong_key_gets_the_nearest(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text("global_batchsize: 8\nseq_lenght: 4\nlr: fast\n")
    assert plan.main(["--config", "job.yaml"]) == 2
    said = capsys.readouterr().err
    assert "global_batch_size" in said
    assert "seq_length" in said
    assert "--lr takes a number, not 'fast'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-gbs", "8", "--global-batch-tokens", "4M"), "--global-batch-size and --global-batch-tokens set"),
        (("--max-steps", "8", "--tokens-per-param", "20"), "--max-steps and --tokens-per-param set the same"),
        (("--max-tokens", "many"), "--max-tokens takes a whole number, not 'many'"),
        (("--max-tokens", "-5"), "--max-tokens -5 is out of range: it must be between 1"),
        (("--tokens-per-param", "nan"), "--tokens-per-param nan is out of range: it must be above 0"),
        (("--mfu", "3"), "--mfu 3 is not a share of the peak"),
        (("--speed-from", "nowhere"), "--speed-from nowhere is not a run folder"),
        (("--mfu", "0.4", "--like", "x"), "use one of them"),
        (("--gpu", "h1000"), "there is no GPU 'h1000'"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_line(
    data: str, given: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(words(data, *given)) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_flag_wins_over_the_files_other_way_to_say_it(data: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("max_steps: 7\nglobal_batch_size: 4\n")
    job = job_from({"model_name": "tiny", "max_tokens": "1M"}, tmp_path / "job.yaml")
    assert (job.batch.max_steps, job.batch.max_tokens, job.batch.global_batch_size) == (None, 1_000_000, 4)
    # what was replaced has no origin: the plan must not list it
    assert origins_from({"model_name": "tiny", "max_tokens": "1M"}, tmp_path / "job.yaml") == {
        "global_batch_size": "file job.yaml",
        "model_name": "flag",
        "max_tokens": "flag",
    }


@pytest.mark.parametrize(
    ("word", "number"),
    [("300M", 300_000_000), ("1.4T", 1_400_000_000_000), ("2k", 2000), ("1_000", 1000), ("5e9", 5 * 10**9)],
)  # fmt: skip
def test_token_counts_can_be_written_short(word: str, number: int) -> None:
    assert Job().with_values(max_tokens=word).batch.max_tokens == number


def test_the_schema_refuses_what_the_launcher_refuses() -> None:
    rules = schema.schema()
    for good in ({"lr": 5e-6}, {"max_tokens": "20B"}, {"max_steps": None}, {"dataset_dir": ["a", 0.5, "b"]}):
        jsonschema.validate(good, rules)
    for bad in (
        {"lr": "fast"},
        {"max_tokens": "many"},
        {"executor": "cloud"},
        {"learning_rate": 1},
        {"fp8": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, rules)
    assert "hf_token" not in rules["properties"]


def saved(data: str, folder: str, *given: str) -> Path:
    """A run folder with a plan in it."""
    asked = vars(
        pretrain.parser().parse_args(words(data, "-gbs", "8", "-G", "1", "--output-dir", folder, *given))
    )
    asked = {key: value for key, value in asked.items() if key in {spec.name for spec in specs()}}
    make_plan(job_from(asked, None)).save()
    return Path(folder)


def test_a_saved_plan_is_repeated_also_when_its_model_file_changes(data: str, tmp_path: Path) -> None:
    model = tmp_path / "mine.yaml"
    model.write_text("base: llama3\nnum_layers: 3\n")
    run = saved(data, "runs/a", "-M", str(model), "--max-steps", "5")
    model.write_text("base: llama3\nnum_layers: 4\n")
    from nemolaunch.cli.parsing.saved_plan import job_of_plan

    job, row, origins, _ = job_of_plan(run, {"lr": 2e-3})
    again = make_plan(job, model=row, given=origins)
    before = Plan.load(run / "plan.json")
    assert again.architecture == before.architecture
    assert again.architecture["num_layers"] == 3
    assert again.folder == before.folder
    optimizer = before.job.optimizer
    assert optimizer.lr is not None
    assert optimizer.min_lr is not None
    lowest = optimizer.min_lr / optimizer.lr * 2e-3  # not given, so it follows the peak
    assert again.job == before.job.with_values(lr=2e-3, min_lr=lowest, output_dir=before.folder)
    assert again.origins["lr"] == "flag"


def test_a_plan_knows_the_versions_it_was_made_with(data: str) -> None:
    plan = json.loads((saved(data, "runs/a") / "plan.json").read_text())
    assert {"python", "nemolaunch"} <= plan["versions"].keys()
    assert plan["estimate"]["memory"]["parameters"] > 0


def test_the_json_has_the_keys_of_a_saved_plan(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    written = json.loads((saved(data, "runs/a", "--lr", "1e-3") / "plan.json").read_text())
    capsys.readouterr()
    given = words(data, "-gbs", "8", "-G", "1", "--output-dir", "runs/a", "--lr", "1e-3", "--format", "json")
    assert plan.main(given) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() - {"script"} == written.keys() - {"format"}
    assert printed["values"] == written["values"]


def test_two_runs_are_told_apart(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = saved(data, "runs/a", "--lr", "5e-4"), saved(data, "runs/b", "--lr", "1e-3", "-TP", "2", "-G", "2")
    assert diff.main([str(a), str(a)]) == 0
    capsys.readouterr()
    assert diff.main([str(a), str(b), "--json"]) == 1
    found = {row["name"]: (row["a"], row["b"]) for row in json.loads(capsys.readouterr().out)}
    assert found["lr"] == (5e-4, 1e-3)
    assert found["tensor_model_parallel_size"] == (1, 2)
    assert found["world_size"] == (1, 2)
    assert "adam_beta1" not in found
    assert diff.main([str(a), "nowhere"]) == 2


def test_time_is_estimated_from_an_earlier_run(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(data, "runs/a")
    rows: list[dict[str, Any]] = [{"step": n, "tokens_per_s": 10.0 if n < 3 else 5000.0} for n in range(10)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert plan.main(words(data, "-gbs", "8", "-G", "1", "--like", "runs/a", "--format", "json")) == 0
    time = json.loads(capsys.readouterr().out)["estimate"]["time"]
    assert time["tokens_per_s"] == pytest.approx(5000.0)
    assert time["source"] == "measured in runs/a"


def test_parameters_are_counted_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert count_params.main(["-M", "aixsim-60m", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["without_embedding"] == 63_226_752
    assert counts["per_rank"] == [counts["total"]]
    assert count_params.main(["-M", "mixtral_8x7b", "-PP", "4", "-EP", "8"]) == 0
    assert "12,748,853,248" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["-M", "llama3_8b", "-CP", "2", "-gbs", "512", "--gpu", "h200"], 0, "fits"),
        (["-M", "llama3_70b", "--gpu", "h100"], 1, "does NOT fit"),
        (["-M", "llama3_8b", "--data-parallel-shard-degree", "8"], 0, "fully sharded over 8"),
        (["-M", "llama3_8b", "--data-parallel-shard-degree", "2", "--data-parallel-replicate-degree", "4",
          "-G", "4"], 2, "is not the data parallel size 4"),
        (["-M", "llama3_8b", "--data-parallel-shard-degree", "0"], 2, "is not the data parallel size"),
        (["-M", "llama3_8b", "-TP", "3", "-G", "8"], 2, "are not a multiple of"),
        (["-M", "llama3_8b", "-TP", "0"], 2, "is not within"),
        (["-M", "llama3_8b", "--hf-model-id", "./nowhere"], 2, "there is no folder"),
    ],
)  # fmt: skip
def test_memory_from_the_command_line(
    given: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estimate_mem.main(given) == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err


def test_a_plan_as_text_says_what_it_takes(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(words(data, "-gbs", "8", "-G", "1", "--gpu", "h100", "--max-tokens", "1M")) == 0
    out = capsys.readouterr().out
    for start in ("schedule", "memory", "time", "cost", "disk"):
        assert re.search(rf"^{start} ", out, re.M), start
    assert re.search(r"^--max-steps +\d+ +1,000,000 tokens / ", out, re.M)


def test_a_configuration_is_read_back_as_it_was_written(data: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    assert generate_config.main([*words(data, "-gbs", "8", "-G", "1"), "-o", str(file)]) == 0
    values = read_config(file)
    assert values.keys() == Job().values().keys()
    assert values["lr"] == 1e-3  # Pythia 70M's


def test_times_and_node_names_in_yaml_are_read_as_they_are_written(tmp_path: Path) -> None:
    """YAML 1.1 reads the first as base 60 and the second as octal."""
    file = tmp_path / "job.yaml"
    file.write_text("time: 1:00:00\nexclude: 010\nmax_steps: 1_000\nlr: 3e-4\nfp8: true\n")
    assert read_config(file) == {
        "time": "1:00:00",
        "exclude": "010",
        "max_steps": 1000,
        "lr": 3e-4,
        "fp8": True,
    }
