"""The flags users know, with their short forms, aliases and defaults; and the same names in YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemolaunch.cli.commands.pretrain import main, parser
from nemolaunch.cli.parsing.arguments import normalise_long_options
from nemolaunch.cli.parsing.flags import job_from
from nemolaunch.errors import UsageError
from nemolaunch.job import Job, specs

# (spelling, value as typed, field, value, default)
FLAGS: list[tuple[str, str | None, str, Any, Any]] = [
    ("--executor", "slurm", "executor", "slurm", "local"),
    ("-E", "x", "experiment", "x", "pretraining"),
    ("--experiment", "x", "experiment", "x", "pretraining"),
    ("-A", "me", "account", "me", "root"),
    ("--account", "me", "account", "me", "root"),
    ("-P", "gpu", "partition", "gpu", "defq"),
    ("--partition", "gpu", "partition", "gpu", "defq"),
    ("-I", "none", "container_image", "none", "nvcr.io/nvidia/nemo:26.02"),
    ("--container-image", "none", "container_image", "none", "nvcr.io/nvidia/nemo:26.02"),
    ("--backend", "bridge", "backend", "bridge", "auto"),
    ("--python", "/env/bin/python", "python", "/env/bin/python", None),
    ("--container-runtime", "podman", "container_runtime", "podman", "pyxis"),
    ("--modules", "cuda/12.8", "modules", ("cuda/12.8",), ()),
    ("--setup", "site.sh", "setup", "site.sh", None),
    ("--pre-commands", "ulimit -l unlimited", "pre_commands", ("ulimit -l unlimited",), ()),
    ("--preflight", None, "preflight", True, False),
    ("--preflight-tolerance", "0.1", "preflight_tolerance", 0.1, 0.15),
    ("--exclude-slow", None, "exclude_slow", True, False),
    ("--container-mounts", "/a:/b", "container_mounts", ("/a:/b",), ()),
    ("--time", "1:00:00", "time", "1:00:00", None),
    ("-N", "2", "num_nodes", 2, 1),
    ("--num-nodes", "2", "num_nodes", 2, 1),
    ("-G", "4", "num_gpus", 4, None),
    ("--num_gpus", "4", "num_gpus", 4, None),
    ("-M", "llama3_8b", "model_name", "llama3_8b", ""),
    ("--model-name", "llama3_8b", "model_name", "llama3_8b", ""),
    ("--hf-model-id", "a/b", "hf_model_id", "a/b", None),
    ("--nemo-model", "dir", "nemo_model", "dir", None),
    ("--hf-token", "t", "hf_token", "t", None),
    ("--dataset-dir", "d", "dataset_dir", ("d",), ()),
    ("--dataset-path", "d", "dataset_dir", ("d",), ()),
    ("--dataset_path", "d", "dataset_dir", ("d",), ()),
    ("--preset", "fast.yaml", "preset", "fast.yaml", None),
    ("--seq-length", "128", "seq_length", 128, None),
    ("--max-steps", "9", "max_steps", 9, None),
    ("-gbs", "8", "global_batch_size", 8, 2048),
    ("--global-batch-size", "8", "global_batch_size", 8, 2048),
    ("-mbs", "2", "micro_batch_size", 2, 1),
    ("--micro_batch_size", "2", "micro_batch_size", 2, 1),
    ("--fp8", None, "fp8", True, False),
    ("-TP", "2", "tensor_model_parallel_size", 2, 1),
    ("--tensor_model_parallel_size", "2", "tensor_model_parallel_size", 2, 1),
    ("-PP", "2", "pipeline_model_parallel_size", 2, 1),
    ("--pipeline_model_parallel_size", "2", "pipeline_model_parallel_size", 2, 1),
    ("-VPP", "2", "virtual_pipeline_model_parallel_size", 2, None),
    ("--virtual-pipeline-model-parallel-size", "2", "virtual_pipeline_model_parallel_size", 2, None),
    ("-CP", "2", "context_parallel_size", 2, 1),
    ("--context_parallel_size", "2", "context_parallel_size", 2, 1),
    ("-SP", None, "sequence_parallel", True, False),
    ("--sequence-parallel", None, "sequence_parallel", True, False),
    ("-EP", "2", "expert_model_parallel_size", 2, 1),
    ("--recompute-granularity", "full", "recompute_granularity", "full", None),
    ("--recompute-method", "block", "recompute_method", "block", None),
    ("--recompute-num-layers", "1", "recompute_num_layers", 1, None),
    ("--recompute-modules", "moe_act", "recompute_modules", ("moe_act",), ()),
    ("--trust-remote-code", None, "trust_remote_code", True, False),
    ("--reset-attention-mask", None, "reset_attention_mask", True, False),
    ("--reset-position-ids", None, "reset_position_ids", True, False),
    ("--eod-mask-loss", None, "eod_mask_loss", True, False),
    ("--moe-z-loss-coeff", "1e-3", "moe_z_loss_coeff", 1e-3, None),
    ("--adam-eps", "1e-8", "adam_eps", 1e-8, None),
    ("--cpu-offloading", None, "cpu_offloading", True, False),
    ("--cpu-offloading-layers", "1", "cpu_offloading_layers", 1, None),
    ("--cpu-offloading-activations", None, "cpu_offloading_activations", True, False),
    ("--cpu-offloading-weights", None, "cpu_offloading_weights", True, False),
    ("--optim-cpu-offloading", None, "optim_cpu_offloading", True, False),
    ("--optim-cpu-offloading-frac", "0.5", "optim_cpu_offloading_frac", 0.5, 1.0),
    ("--attention-backend", "fused", "attention_backend", "fused", None),
    ("--cuda_graphs", None, "cuda_graphs", True, False),
    ("--tp-comm-overlap", None, "tp_comm_overlap", True, None),
    ("--no-tp-comm-overlap", None, "tp_comm_overlap", False, None),
    ("--overlap-grad-reduce", None, "overlap_grad_reduce", True, None),
    ("--no-overlap-grad-reduce", None, "overlap_grad_reduce", False, None),
    ("--overlap-param-gather", None, "overlap_param_gather", True, None),
    ("--no-overlap-param-gather", None, "overlap_param_gather", False, None),
    ("--optimizer", "sgd", "optimizer", "sgd", "adam"),
    ("--lr", "1e-3", "lr", 1e-3, None),
    ("--min-lr", "1e-4", "min_lr", 1e-4, None),
    ("--lr-schedule", "wsd", "lr_schedule", "wsd", "cosine"),
    ("--adam-beta1", "0.8", "adam_beta1", 0.8, None),
    ("--adam-beta2", "0.8", "adam_beta2", 0.8, None),
    ("--adam-eps", "1e-6", "adam_eps", 1e-6, None),
    ("--weight-decay", "0.1", "weight_decay", 0.1, None),
    ("--clip-grad", "2", "clip_grad", 2.0, None),
    ("--warmup-steps", "5", "warmup_steps", 5, None),
    ("--warmup-ratio", "0.1", "warmup_ratio", 0.1, None),
    ("--decay-steps", "5", "decay_steps", 5, None),
    ("--constant-steps", "5", "constant_steps", 5, None),
    ("--wsd-decay-steps", "5", "wsd_decay_steps", 5, None),
    ("--rampup-batch-size", "4:4:64", "rampup_batch_size", "4:4:64", None),
    ("--wsd-decay-style", "cosine", "wsd_decay_style", "cosine", "minus-sqrt"),
    ("--resume-schedule", "checkpoint", "resume_schedule", "checkpoint", "flags"),
    ("--disable-dist-optim", None, "disable_dist_optim", True, False),
    ("--seed", "5", "seed", 5, 1234),
    ("--wandb", None, "wandb", True, False),
    ("--wandb-project", "p", "wandb_project", "p", None),
    ("--wandb-name", "n", "wandb_name", "n", None),
    ("--keep-warm", "10", "keep_warm", 10.0, None),
    ("--notify", None, "notify", True, False),
    ("--sample-every", "5", "sample_every", 5, None),
    ("--sample-prompt", "It was", "sample_prompt", ("It was",), ()),
    ("--eval-every", "5", "eval_every", 5, None),
    ("--eval-tasks", "hellaswag,mmlu", "eval_tasks", "hellaswag,mmlu", None),
    ("--eval-include-path", "tasks", "eval_include_path", "tasks", None),
    ("--checkpoint-every", "5", "checkpoint_every", 5, None),
    ("--keep-latest", "5", "keep_latest", 5, 3),
    ("--upload", "s3://bucket/runs", "upload", "s3://bucket/runs", None),
    ("--no-async-save", None, "no_async_save", True, False),
    ("--resume", "never", "resume", "never", "auto"),
    ("--set", "log.verbose=true", "set", ("log.verbose=true",), ()),
]


def parsed(*words: str) -> dict[str, Any]:
    return vars(parser().parse_args(normalise_long_options(list(words))))


@pytest.mark.parametrize(
    ("spelling", "word", "field", "value", "default"), FLAGS, ids=[flag[0] for flag in FLAGS]
)
def test_flag(spelling: str, word: str | None, field: str, value: Any, default: Any) -> None:
    given = {name: v for name, v in parsed(spelling, *([word] if word else [])).items() if name == field}
    assert Job().with_values(**given).get(field) == value
    assert Job().get(field) == default
    assert field not in parsed()


def test_the_known_readme_command_is_accepted() -> None:
    given = parsed(
        *"--executor slurm --experiment llama31_pretraining --account a --partition p --container_image i".split(),
        *"--num_nodes 2 --num_gpus 8 --model_name llama31_8b --hf_model_id m/n --hf_token t --max_steps 10".split(),
        *"--global_batch_size 16 --micro_batch_size 1 --tensor_model_parallel_size 8".split(),
        *"--pipeline_model_parallel_size 2 --context_parallel_size 1 --dataset_path d".split(),
    )
    assert given["tensor_model_parallel_size"] == 8
    assert given["dataset_dir"] == ["d"]


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model-name: llama3_8b\nTP: 4\ngbs: 64\nlr: 5e-6\nfp8: true\ndataset_path: [a, b]\n")
    job = job_from({"tensor_model_parallel_size": 2, "fp8": False}, file)
    assert job.model.model_name == "llama3_8b"
    assert job.parallelism.tensor_model_parallel_size == 2
    assert job.batch.global_batch_size == 64
    assert job.optimizer.lr == 5e-6
    assert job.batch.fp8 is False
    assert job.data.dataset_dir == ("a", "b")


def test_every_wrong_key_of_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model_name: llama3_8b\nseq_lenght: 3\nmax_steps: many\n")
    with pytest.raises(UsageError, match=r"(?s)seq_lenght.*seq_length.*max.steps"):
        job_from({}, file)


def test_a_switch_can_be_taken_back() -> None:
    assert parsed("--no-fp8")["fp8"] is False
    assert parsed("--async-save")["no_async_save"] is False


def test_a_switch_that_the_recipe_has_as_well_is_on_off_or_not_given(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model_name: llama3_8b\noverlap_grad_reduce: false\noverlap-param-gather: true\n")
    speed = job_from({}, file).speed
    assert (speed.overlap_grad_reduce, speed.overlap_param_gather, speed.tp_comm_overlap) == (
        False,
        True,
        None,
    )
    given = {
        n: v
        for n, v in parsed("--overlap-grad-reduce", "--no-overlap-param-gather").items()
        if "overlap" in n
    }
    speed = job_from(given, file).speed
    assert (speed.overlap_grad_reduce, speed.overlap_param_gather) == (True, False)
    file.write_text("model_name: llama3_8b\noverlap_grad_reduce: maybe\n")
    with pytest.raises(UsageError, match="--overlap-grad-reduce takes true or false"):
        job_from({}, file)


def test_every_field_survives_json() -> None:
    job = Job().with_values(model_name="llama3_8b", dataset_dir=["a"], lr=1e-3, hf_token="secret")
    values = json.loads(json.dumps(job.values()))
    assert "secret" not in json.dumps(values)
    assert Job().with_values(**values) == job.with_values(hf_token=None)
    assert set(values) == {spec.name for spec in specs()} - {"hf_token"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-steps", "x"], "--max-steps"),
        (["--executor", "k8s"], "local, docker, podman, apptainer, slurm"),
        (["--tensor-model-paralel-size", "2"], "--tensor-model-parallel-size"),
        (["-M", "llama3_8c"], "llama3_8b"),
        ([], "--model-name is required"),
        (["-M", "llama3_8b", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_a_bad_word_gives_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error.replace("'", "")
    assert error.count("\n") == 1
    assert "Traceback" not in error
