"""Every code has a job that triggers it, and an entry in docs/errors.md that explains it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from check_jobs import facts, findings, job

from nemolaunch.check import RULES
from nemolaunch.data.old_index_caches import OldCache
from nemolaunch.facts import EarlierRun, Host
from nemolaunch.facts.accounting import Accounting, Association, Limits, Qos
from nemolaunch.facts.checkpoint import StartPoint
from nemolaunch.facts.container_engine import Engine
from nemolaunch.facts.data_files import DataFile
from nemolaunch.facts.gres import Gres
from nemolaunch.facts.interpreter import Interpreter
from nemolaunch.facts.partitions import NodeKind, Partition
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.facts.setup_file import SetupFile
from nemolaunch.facts.stream_sources import SourceFacts
from nemolaunch.facts.submission import Submission
from nemolaunch.facts.unfinished_data import UnfinishedData
from nemolaunch.facts.upload_target import UploadTarget
from nemolaunch.facts.validation_files import ValidationFiles
from nemolaunch.tokenizer.inspection import Tokenizer

A100 = Host(gpus=("NVIDIA A100-SXM4-80GB",) * 8)
V100 = Host(gpus=("Tesla V100-SXM2-32GB",) * 8)
BARE = Host(gpus=("NVIDIA H100 80GB HBM3",) * 8, transformer_engine=False)
H100 = Host(gpus=("NVIDIA H100 80GB HBM3",) * 8)
PRESET = str(Path(__file__).with_name("preset_for_h200.yaml"))
FOUR_GPUS = NodeKind(num_nodes=64, gres=(Gres(name="gpu", count=4),))
BIG_CLUSTER = (Partition(name="gpu", kinds=(FOUR_GPUS,), time_limit_s=4 * 3600),)
LIMITED = Accounting(
    enforced=frozenset({"associations", "limits", "qos"}),
    associations=(Association(account="physics", qos=("normal",), default_qos="normal"),),
    qualities=(Qos(name="normal", limits=Limits(most_nodes=2)),),
)
LOCAL = {"executor": "local", "num_gpus": 8}

BRIDGE = {**LOCAL, "backend": "bridge"}


def interpreter(bridge: str = "0.6.2", megatron: str = "0.19.2") -> Interpreter:
    return Interpreter(path="/env/bin/python", bridge=bridge, megatron=megatron)


def data_file(**values: Any) -> DataFile:
    return DataFile(
        **{"prefix": "/data/text_document", "num_tokens": 5000, "split_tokens": (5000, 0, 0), **values}
    )


def made_by(digest: str, max_id: int | None = None) -> DataFile:
    return data_file(
        num_tokens=10**12,
        split_tokens=(10**12, 10**9, 10**9),
        tokenizer={"name": "/other", "digest": digest},
        max_token_id=max_id,
    )


def words(*tokens: str, **roles: str) -> Tokenizer:
    return Tokenizer(
        source="/x", folder="/x", vocab_size=len(tokens), words=frozenset(tokens), roles=dict(roles)
    )


def earlier(**values: Any) -> dict[str, Any]:
    run = EarlierRun(
        folder="/runs/pretraining", last_checkpoint="/runs/x-last", next_step=50, saved=SavedRun(**values)
    )
    return {"run": run}


def validation(**values: Any) -> dict[str, Any]:
    """Facts with a validation set `news` of one file."""
    whole = {"num_tokens": 10**9, "split_tokens": (0, 10**9, 0)}
    file = data_file(**{"prefix": "/data/news_text_document", **whole, **values.pop("file", {})})
    return {"validation": (ValidationFiles(name="news", path="/data/news", files=(file,), **values),)}


NEWS = {"validation_data": ("news=/data/news",)}
SAMPLES = {**LOCAL, "sample_every": 5, "sample_prompt": ("It was",)}
DOCKER = {"executor": "docker"}
STREAM: dict[str, Any] = {"data_mode": "stream", "dataset_dir": ("/data/texts",), "max_steps": 10}


def setting(*words: str, **values: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "llama3_8b", {"set": words, **values}, {}


# code -> (model, values of the job, facts)
TRIGGERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "out-of-range": ("llama3_8b", {"micro_batch_size": 0}, {}),
    "experiment-name": ("llama3_8b", {"experiment": "my run; rm -rf /"}, {}),
    "local-nodes": ("llama3_8b", {"executor": "local", "num_nodes": 2}, {}),
    "path-unprintable": ("llama3_8b", {"dataset_dir": ("/data/a\nb",)}, {}),
    "path-with-variable": ("llama3_8b", {"executor": "local"}, {"run": EarlierRun(folder="/runs/$HOME/a")}),
    "path-in-shell": ("llama3_8b", {}, {"run": EarlierRun(folder="/my runs/a")}),
    "path-in-mount": ("llama3_8b", {"dataset_dir": ("/data/a,b",)}, {}),
    "cpu-unsupported": ("hyena_1b", {"executor": "local"}, {}),
    "cpu-despite-gpus": ("llama3_8b", {**LOCAL, "device": "cpu"}, {"host": H100}),
    "bridge-missing": ("llama3_8b", BRIDGE, {"interpreter": Interpreter(path="/env/bin/python")}),
    "bridge-untested": ("llama3_8b", BRIDGE, {"interpreter": interpreter("0.6.2", "0.18.0")}),
    "bridge-too-old": ("llama3_8b", BRIDGE, {"interpreter": interpreter("0.3.1", "0.16.1")}),
    "bridge-only": ("gpt_oss_20b", {}, {}),
    "bridge-model": ("hyena_1b", BRIDGE, {"interpreter": interpreter()}),
    "bridge-differs": ("llama4_e16", BRIDGE, {"interpreter": interpreter()}),
    "checkpoint-of-other-backend": (
        "llama3_8b",
        {},
        {
            "run": EarlierRun(
                folder="/runs/a", last_checkpoint="/runs/a/checkpoints/iter_0000010", next_step=10
            )
        },
    ),
    "python-without-bridge": ("llama3_8b", {"python": "/env/bin/python"}, {}),
    "slow-bf16": ("llama3_8b", {**LOCAL, "device": "cpu"}, {"host": Host(slow_bf16=True)}),
    "heads-by-tp": ("qwen25_500m", {"tensor_model_parallel_size": 4}, {}),
    "query-groups-by-tp": ("llama3_8b", {"tensor_model_parallel_size": 16}, {}),
    "ffn-by-tp": ("llama3_8b", {"tensor_model_parallel_size": 3}, {}),
    "shared-expert-by-tp": ("deepseek_v3", {"tensor_model_parallel_size": 3}, {}),
    "vocabulary-by-tp": ("phi3_mini_4k_instruct", {"tensor_model_parallel_size": 128}, {}),
    "global-groups-by-tp": ("gemma4_31b", {**BRIDGE, "tensor_model_parallel_size": 8}, {}),
    "delta-by-tp": ("qwen3_next_80b_a3b", {**BRIDGE, "tensor_model_parallel_size": 32}, {}),
    "mamba-by-tp": ("mamba2_130m", {"tensor_model_parallel_size": 2}, {}),
    "hyena-by-tp": ("hyena_1b", {"tensor_model_parallel_size": 7}, {}),
    "sequence-parallel-without-tp": ("llama3_8b", {"sequence_parallel": True}, {}),
    "sequence-by-tp": (
        "llama3_8b",
        {"sequence_parallel": True, "tensor_model_parallel_size": 8, "seq_length": 4100},
        {},
    ),
    "sequence-by-cp": ("llama3_8b", {"context_parallel_size": 4, "seq_length": 4100}, {}),
    "sequence-too-long": ("t5_220m", {"seq_length": 1024}, {}),
    "cp-unsupported": ("gemma2_9b", {"context_parallel_size": 2}, {}),
    "cp-by-heads": ("nemotronh_8b", {"context_parallel_size": 256, "num_nodes": 32}, {}),
    "pp-unsupported": ("t5_220m", {"pipeline_model_parallel_size": 2}, {}),
    "layers-by-pp": ("llama3_8b", {"pipeline_model_parallel_size": 3}, {}),
    "vpp-without-pp": ("llama3_8b", {"virtual_pipeline_model_parallel_size": 2}, {}),
    "vpp-unsupported": (
        "gemma3_1b",
        {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 13},
        {},
    ),
    "layers-by-vpp": (
        "llama3_8b",
        {"pipeline_model_parallel_size": 4, "virtual_pipeline_model_parallel_size": 3},
        {},
    ),
    "more-processes-than-gpus": ("llama3_8b", {"executor": "local", "num_gpus": 16}, {"host": A100}),
    "world-by-layout": ("llama3_8b", {"tensor_model_parallel_size": 8, "num_gpus": 12}, {}),
    "world-by-experts": ("mixtral_8x7b", {"expert_model_parallel_size": 8, "num_gpus": 4}, {}),
    "experts-by-ep": ("mixtral_8x7b", {"expert_model_parallel_size": 3}, {}),
    "expert-channels-by-etp": ("mixtral_8x7b", {"expert_tensor_parallel_size": 3}, {}),
    "expert-bias-by-etp": ("BIASED", {"expert_tensor_parallel_size": 2}, {}),
    "ep-without-experts": ("llama3_8b", {"expert_model_parallel_size": 2}, {}),
    "etp-without-experts": ("llama3_8b", {"expert_tensor_parallel_size": 2}, {}),
    "experts-need-sequence-parallel": ("mixtral_8x7b", {"tensor_model_parallel_size": 2}, {}),
    "batch-by-data-parallel": ("llama3_8b", {"global_batch_size": 2047, "num_nodes": 2}, {}),
    "microbatches-by-pp": (
        "llama3_8b",
        {
            "pipeline_model_parallel_size": 4,
            "virtual_pipeline_model_parallel_size": 2,
            "global_batch_size": 12,
        },
        {},
    ),
    "pipeline-mostly-idle": (
        "llama3_8b",
        {"pipeline_model_parallel_size": 8, "global_batch_size": 2},
        {},
    ),
    "recompute-without-granularity": ("llama3_8b", {"recompute_num_layers": 4}, {}),
    "recompute-incomplete": ("llama3_8b", {"recompute_granularity": "full"}, {}),
    "recompute-beyond-layers": (
        "llama3_8b",
        {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 64},
        {},
    ),
    "recompute-prediction-layers": (
        "deepseek_v3",
        {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 2},
        {},
    ),
    "recompute-layers-with-selective": (
        "llama3_8b",
        {"recompute_granularity": "selective", "recompute_num_layers": 2},
        {},
    ),
    "recompute-method-with-selective": (
        "llama3_8b",
        {"recompute_granularity": "selective", "recompute_method": "block"},
        {},
    ),
    "recompute-core-attention": ("llama3_8b", {"recompute_granularity": "selective"}, {}),
    "recompute-with-fp8": ("deepseek_v3", {"fp8": True}, {}),
    "gpu-memory": ("llama3_70b", {"gpu": "h100"}, {}),
    "gpu-memory-tight": ("llama3_8b", {"gpu": "h100", "seq_length": 6144}, {}),
    "training-packages": ("llama32_1b", LOCAL, {"host": Host(gpus=H100.gpus, missing=("torch",))}),
    "host-memory": ("llama3_8b", {"executor": "local", "num_gpus": 4}, {}),
    "offload-layers": ("llama3_8b", {"cpu_offloading": True, "cpu_offloading_layers": 32}, {}),
    "offload-with-pp": ("llama3_8b", {"cpu_offloading": True, "pipeline_model_parallel_size": 2}, {}),
    "offload-with-recompute": (
        "llama3_8b",
        {"cpu_offloading": True, "recompute_granularity": "selective"},
        {},
    ),
    "offload-nothing": ("llama3_8b", {"cpu_offloading": True, "cpu_offloading_layers": 4}, {}),
    "offload-weights": (
        "llama3_8b",
        {
            "cpu_offloading": True,
            "cpu_offloading_layers": 4,
            "cpu_offloading_activations": True,
            "cpu_offloading_weights": True,
        },
        {},
    ),
    "offload-not-switched-on": ("llama3_8b", {"cpu_offloading_layers": 4}, {}),
    "offload-fraction": ("llama3_8b", {"optim_cpu_offloading": True, "optim_cpu_offloading_frac": 0.0}, {}),
    "optimizer-offload-not-switched-on": ("llama3_8b", {"optim_cpu_offloading_frac": 0.5}, {}),
    "optimizer-offload-needs-adam": (
        "llama3_8b",
        {"optim_cpu_offloading": True, "optimizer": "sgd", "disable_dist_optim": True},
        {},
    ),
    "optimizer-offload-needs-sharding": (
        "llama3_8b",
        {"optim_cpu_offloading": True, "disable_dist_optim": True},
        {},
    ),
    "fp8-with-fp32": ("llama3_8b", {"fp8": True, "precision": "fp32"}, {}),
    "fp32-with-cp": ("llama3_8b", {"precision": "fp32", "context_parallel_size": 2}, {}),
    "fp8-hardware": ("llama3_8b", {**LOCAL, "fp8": True}, {"host": A100}),
    "bf16-hardware": ("llama3_8b", LOCAL, {"host": V100}),
    "fp8-not-switched-on": ("llama3_8b", {"fp8_recipe": "blockwise"}, {}),
    "optimizer-offload-with-fp8": (
        "llama3_8b",
        {"fp8": True, "fp8_recipe": "tensorwise", "optim_cpu_offloading": True},
        {},
    ),
    "fp8-shapes": ("llama3_8b", {"fp8": True, "seq_length": 1000}, {}),
    "sgd-is-not-sharded": ("llama3_8b", {"optimizer": "sgd"}, {}),
    "instances-not-sharded": (
        "llama3_8b",
        {"num_distributed_optimizer_instances": 2, "disable_dist_optim": True},
        {},
    ),
    "instances-by-data-parallel": ("llama3_8b", {"num_distributed_optimizer_instances": 3}, {}),
    "min-lr-above-lr": ("llama3_8b", {"lr": 1e-4, "min_lr": 1e-3}, {}),
    "sgd-cannot-resume": ("llama3_8b", {"optimizer": "sgd", "disable_dist_optim": True}, {}),
    "lr-implausible": ("llama3_8b", {"lr": 1.0}, {}),
    "warmup-too-long": ("llama3_8b", {"max_steps": 100, "warmup_steps": 100}, {}),
    "ramp-form": ("llama3_8b", {"rampup_batch_size": "16:16"}, {}),
    "ramp-increments": ("llama3_8b", {"rampup_batch_size": "64:100:10000"}, {}),
    "ramp-by-data-parallel": ("llama3_8b", {"rampup_batch_size": "4:4:10000"}, {}),
    "ramp-beyond-run": ("llama3_8b", {"rampup_batch_size": "64:64:100000", "max_steps": 20}, {}),
    "ramp-unsupported": ("llama3_8b", {"rampup_batch_size": "64:64:10000", "cuda_graphs": True}, {}),
    "decay-ends-early": ("llama3_8b", {"max_steps": 1000, "decay_steps": 500}, {}),
    "wsd-decay-too-long": (
        "llama3_8b",
        {"max_steps": 100, "warmup_steps": 50, "lr_schedule": "wsd", "wsd_decay_steps": 60},
        {},
    ),
    "schedule-flags": ("llama3_8b", {"wsd_decay_steps": 10}, {}),
    "lr-jump": (
        "llama3_8b",
        {"max_steps": 1000},
        earlier(values={"max_steps": 60, "lr": 3e-4, "min_lr": 3e-5, "warmup_steps": 1}),
    ),
    "run-of-other-optimizer": ("llama3_8b", {}, earlier(values={"weight_decay": 0.3})),
    "schedule-unknown": ("llama3_8b", {"resume_schedule": "checkpoint"}, {"resume": StartPoint(path="/x")}),
    "data-missing": ("llama3_8b", {"dataset_dir": ()}, {}),
    "data-in-object-store": ("llama3_8b", {"dataset_dir": ("s3://bucket/corpus",)}, {}),
    "data-unreadable": ("llama3_8b", {}, {"data": (data_file(error="cannot read /x.idx: no such file"),)}),
    "data-unfinished": (
        "llama3_8b",
        {},
        {"unfinished": (UnfinishedData("data", "/data/x.unfinished", "x", 0.4, 60),)},
    ),
    "data-empty": ("llama3_8b", {}, {"data": (data_file(num_tokens=0, split_tokens=(0, 0, 0)),)}),
    "index-cache": ("llama3_8b", {}, {"index_cache_error": "/data cannot be written"}),
    "index-cache-old": (
        "llama3_8b",
        {},
        {"old_caches": (OldCache(pattern="/data/cache/0123456789abcdef", num_bytes=10**6),)},
    ),
    "split": ("llama3_8b", {"split": "90%,10%"}, {}),
    "blend-weight-unpaired": ("llama3_8b", {"dataset_dir": ("/data/a", "0.5")}, {}),
    "blend-weights-mixed": ("llama3_8b", {"dataset_dir": ("0.5", "/data/a", "/data/b")}, {}),
    "blend-weights": ("llama3_8b", {"dataset_dir": ("0", "/data/a", "1", "/data/b")}, {}),
    "blend-unreadable": ("llama3_8b", {"dataset_dir": ("/data/a:0.5,/data/b",)}, {}),
    "blend-total": ("llama3_8b", {"dataset_dir": ("/data/a:0.7,/data/b:0.4",)}, {}),
    "blend-twice": ("llama3_8b", {"dataset_dir": ("/data/a:0.5,/data/a:0.5",)}, {}),
    "blend-by-rows": ("llama3_8b", {"blend_by": "rows"}, {}),
    "stream-unsupported": ("t5_220m", {**STREAM, "max_steps": 10, "seq_length": 512}, {}),
    "stream-flags": ("llama3_8b", {"shuffle_buffer": 10}, {}),
    "stream-source": (
        "llama3_8b",
        STREAM,
        {"sources": (SourceFacts(error="there is no /data/texts", instead="/data/text"),)},
    ),
    "stream-column": ("llama3_8b", STREAM, {"sources": (SourceFacts(columns=("id", "content")),)}),
    "stream-files-not-read": (
        "llama3_8b",
        STREAM,
        {"sources": (SourceFacts(not_read="1 file (a.csv)"),)},
    ),
    "stream-few-files": ("llama3_8b", STREAM, {"sources": (SourceFacts(num_files=3, num_packed=3),)}),
    "stream-length": ("llama3_8b", {**STREAM, "max_steps": None}, {}),
    "stream-readers": ("llama3_8b", {**STREAM, "stream_readers": 7}, {}),
    "stream-workers": ("llama3_8b", {**STREAM, "stream_readers": 16, "num_workers": 3, "num_nodes": 2}, {}),
    "stream-changed": ("llama3_8b", STREAM, earlier(values={"data_mode": "stream", "seed": 7})),
    "run-of-other-data-mode": ("llama3_8b", STREAM, earlier(values={"data_mode": "indexed"})),
    "validation-data-name": ("llama3_8b", {"validation_data": ("/data/news",)}, {}),
    "validation-data-unreadable": ("llama3_8b", NEWS, validation(file={"error": "there is no /data/news"})),
    "validation-data-trained-on": ("llama3_8b", NEWS, validation(trained_on=("/data/text_document",))),
    "validation-data-tokenizer": (
        "llama3_8b",
        NEWS,
        {"data": (made_by("a"),), **validation(file={"tokenizer": {"name": "/other", "digest": "b"}})},
    ),
    "validation-data-too-short": ("llama3_8b", NEWS, validation(file={"split_tokens": (0, 5000, 0)})),
    "validation-data-unsupported": ("t5_220m", NEWS, validation()),
    "validation-data-unused": ("llama3_8b", {**NEWS, "limit_val_batches": 0}, validation()),
    "validation-data-found": ("llama3_8b", {}, validation(found=True)),
    "held-out-trained-on": ("llama3_8b", {"dataset_dir": ("/data/news_validation_text_document",)}, {}),
    "data-too-short": ("llama3_8b", {}, {"data": (data_file(),)}),
    "batch-beyond-data": ("llama3_8b", {"seq_length": 1024, "max_steps": 1}, {"data": (data_file(),)}),
    "data-too-small": ("llama3_8b", {"seq_length": 1024}, {"data": (data_file(),)}),
    "validation-left-out": (
        "llama3_8b",
        {"max_steps": 10},
        {"data": (data_file(num_tokens=10**9, split_tokens=(10**9, 5000, 0)),)},
    ),
    "data-repeated": ("llama3_8b", {"seq_length": 1024, "max_steps": 500}, {"data": (data_file(),)}),
    "data-of-several-tokenizers": ("llama3_8b", {}, {"data": (made_by("a"), made_by("b"))}),
    "tokenizer-not-of-data": (
        "llama3_8b",
        {},
        {"data": (made_by("a"),), "tokenizer": Tokenizer(source="x", folder="/x", vocab_size=9, digest="b")},
    ),
    "token-width": (
        "llama3_8b",
        {},
        {
            "data": (data_file(id_code="H"),),
            "tokenizer": Tokenizer(source="x", folder="/x", vocab_size=128256),
        },
    ),
    "token-ids": ("llama3_8b", {}, {"data": (made_by("a", max_id=99999),)}),
    "vocabulary-too-small": (
        "phi3_mini_4k_instruct",
        {},
        {"tokenizer": Tokenizer(source="x", folder="/x", vocab_size=128256)},
    ),
    "tokenizer-missing": ("llama3_8b", {}, {"tokenizer": None}),
    "tokenizer-unusable": (
        "llama3_8b",
        {},
        {"tokenizer": Tokenizer(source="/x", error="there is no folder /x")},
    ),
    "tokenizer-code": (
        "llama3_8b",
        {},
        {"tokenizer": Tokenizer(source="x", folder="/x", code="own.Own", has_code="own.Own")},
    ),
    "checkpoint-trusted": (
        "llama3_8b",
        {"trust_remote_code": True, "nemo_model": "/x"},
        {"weights": StartPoint(path="/x"), "tokenizer": Tokenizer(source="x", folder="/x", vocab_size=9)},
    ),
    "tokenizer-code-runs": (
        "llama3_8b",
        {"trust_remote_code": True},
        {"tokenizer": Tokenizer(source="x", folder="/x", vocab_size=9, code="own.Own", has_code="own.Own")},
    ),
    "tokenizer-without-code": (
        "llama3_8b",
        {"trust_remote_code": True},
        {"tokenizer": Tokenizer(source="x", folder="/x", vocab_size=9)},
    ),
    "tokenizer-completed": (
        "llama3_8b",
        {},
        {"tokenizer": Tokenizer(source="x", folder="/x", vocab_size=9, completed="no file names its class")},
    ),
    "tokenizer-on-hub": ("llama3_8b", {}, {"tokenizer": Tokenizer(source="a/b")}),
    "hf-token": ("llama3_8b", {}, {"tokenizer": Tokenizer(source="a/b")}),
    "objective-unsupported": ("mamba2_130m", {"objective": "mlm"}, {}),
    "masking-without-mlm": ("llama3_8b", {"mlm_probability": 0.15}, {}),
    "mask-token-missing": ("llama3_8b", {"objective": "mlm"}, {"tokenizer": words("<s>", "<unused0>")}),
    "mask-token-unknown": (
        "llama3_8b",
        {"objective": "mlm", "mask_token": "<mask>"},
        {"tokenizer": words("<s>", "<unused0>")},
    ),
    "mask-token-in-use": (
        "llama3_8b",
        {"objective": "mlm", "mask_token": "<s>"},
        {"tokenizer": words("<s>", "<unused0>", bos_token="<s>")},
    ),
    "documents-unsupported": ("mamba2_130m", {"reset_attention_mask": True}, {}),
    "documents-as-sequences": ("llama3_8b", {"reset_attention_mask": True, "micro_batch_size": 2}, {}),
    "model-differs": (
        "hf",
        {"seq_length": 512},
        {
            "tokenizer": Tokenizer(
                source="/qwen",
                folder="/qwen",
                vocab_size=9,
                model_config={"model_type": "qwen2", "tie_word_embeddings": True},
            )
        },
    ),
    "document-ends": ("llama3_8b", {"eod_mask_loss": True}, {"data": (data_file(last_tokens=(7,)),)}),
    "end-is-padding": (
        "llama3_8b",
        {},
        {
            "data": (data_file(last_tokens=(1,)),),
            "tokenizer": Tokenizer(
                source="/x",
                folder="/x",
                vocab_size=9,
                words=frozenset("ab"),
                roles={"eos_token": "a", "pad_token": "a"},
                end_id=1,
            ),
        },
    ),
    "position-ids-not-used": ("llama3_8b", {"reset_position_ids": True}, {}),
    "recompute-modules": (
        "llama3_8b",
        {"recompute_granularity": "selective", "recompute_modules": ("mla_up_proj",)},
        {},
    ),
    "gemma4-layers": (
        "gemma4_e2b",
        {**BRIDGE, "recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
        {},
    ),
    "recompute-modules-not-selective": ("llama3_8b", {"recompute_modules": ("mlp",)}, {}),
    "recompute-modules-not-used": (
        "llama3_8b",
        {"recompute_granularity": "selective", "recompute_modules": ("mlp", "moe")},
        {},
    ),
    "router-loss-without-experts": ("llama3_8b", {"moe_z_loss_coeff": 1e-3}, {}),
    "adam-eps-not-used": (
        "llama3_8b",
        {"adam_eps": 1e-8, "optimizer": "sgd", "disable_dist_optim": True},
        {},
    ),
    "upload-library": (
        "llama3_8b",
        {"upload": "gs://b"},
        {"upload": UploadTarget("gs://b", library="gs://b needs gcsfs")},
    ),
    "upload-unreachable": ("llama3_8b", {"upload": "s3://b"}, {"upload": UploadTarget("s3://b", error="no")}),
    "upload-of-values": (
        "llama3_8b",
        {"upload": "s3://b", "env": ("A=1",)},
        {"upload": UploadTarget("s3://b")},
    ),
    "checkpoint-unusable": (
        "llama3_8b",
        {},
        {"weights": StartPoint(path="/x", error="there is no folder /x")},
    ),
    "checkpoint-other-model": ("llama3_8b", {}, {"weights": StartPoint(path="/x", shape={"num_layers": 16})}),
    "checkpoint-other-function": (
        "llama3_8b",
        {},
        {"weights": StartPoint(path="/x", fields={"rotary_base": 10000})},
    ),
    "checkpoint-other-objective": ("llama3_8b", {}, {"resume": StartPoint(path="/x", both_sides=True)}),
    "run-of-other-objective": ("llama3_8b", {}, earlier(values={"objective": "mlm"})),
    "weights-not-used": ("llama3_8b", {"nemo_model": "/x"}, earlier()),
    "disk": ("llama3_8b", {}, {"run": EarlierRun(folder="/runs/x", free_bytes=10**9)}),
    "disk-tight": (
        "llama3_8b",
        {"max_steps": 100, "checkpoint_every": 10},
        {"run": EarlierRun(folder="/runs/x", free_bytes=3 * 10**11)},
    ),
    "run-folder": ("llama3_8b", {}, {"run": EarlierRun(folder="/runs", error="/runs is not a folder")}),
    "run-of-other-model": ("llama3_8b", {}, earlier(architecture={"hidden_size": 2048})),
    "run-of-other-tokenizer": (
        "llama3_8b",
        {},
        {
            **earlier(tokens_digest="b"),
            "tokenizer": Tokenizer(source="x", folder="/x", vocab_size=9, tokens_digest="a"),
        },
    ),
    "run-of-other-split": ("llama3_8b", {"split": "98,1,1"}, earlier(values={"split": "90,9,1"})),
    "resume-changes": ("llama3_8b", {}, earlier(values={"seed": 7})),
    "run-of-other-optimizer-layout": ("llama3_8b", {}, earlier(values={"disable_dist_optim": True})),
    "run-of-other-data": (
        "llama3_8b",
        {"dataset_dir": ("/data/a:0.7,/data/b:0.3",), "max_steps": 100},
        earlier(blend=((0.3, "/data/a"), (0.7, "/data/b"))),
    ),
    "run-beyond-steps": ("llama3_8b", {"max_steps": 10}, earlier()),
    "slurm-account": ("llama3_8b", {"account": ""}, {}),
    "slurm-image": ("llama3_8b", {"container_image": " "}, {}),
    "image-without-nemo2": (
        "llama3_8b",
        {"container_image": "nvcr.io/nvidia/nemo:26.04", "backend": "nemo2"},
        {},
    ),
    "image-unknown": ("llama3_8b", {"container_image": "nvcr.io/nvidia/nemo:25.07"}, {}),
    "versions-incompatible": (
        "llama3_8b",
        LOCAL,
        {"host": Host(gpus=H100.gpus, nemo="2.5.3", megatron="0.15.3")},
    ),
    "versions-untested": (
        "llama3_8b",
        LOCAL,
        {"host": Host(gpus=H100.gpus, nemo="2.7.3", megatron="0.18.0")},
    ),
    "recipe-not-in-release": ("mistral_small3_24b", {"container_image": "nvcr.io/nvidia/nemo:25.09"}, {}),
    "field-not-in-release": (
        "llama3_8b",
        {"container_image": "nvcr.io/nvidia/nemo:25.09", "set": ("model.config.fused_single_qkv_rope=true",)},
        {},
    ),
    "slurm-mount": ("llama3_8b", {"container_mounts": ("/data",)}, {}),
    "slurm-mount-missing": ("llama3_8b", {}, {"mounts_missing": ("/scratch",)}),
    "container-engine": ("llama32_1b", DOCKER, {"engine": Engine(name="docker", installed=False)}),
    "container-image": ("llama32_1b", DOCKER, {"engine": Engine(name="docker", has_image=False)}),
    "container-gpus": (
        "llama32_1b",
        DOCKER,
        {"engine": Engine(name="docker", gives_gpus=False), "host": Host(gpus=("NVIDIA H100 80GB HBM3",))},
    ),
    "container-disk": (
        "llama32_1b",
        DOCKER,
        {"engine": Engine(name="docker", has_image=False, storage="/var/lib/docker", free_bytes=10**9)},
    ),
    "container-runtime": ("llama3_8b", {"container_runtime": "podman", "launcher": "torchrun"}, {}),
    "slurm-unprintable": ("llama3_8b", {"comment": "two\nlines"}, {}),
    "slurm-option": ("llama3_8b", {"sbatch": ("nice=a\nb",)}, {}),
    "slurm-option-reserved": ("llama3_8b", {"sbatch": ("export=NONE",)}, {}),
    "slurm-array": ("llama3_8b", {"array": "1-5"}, {}),
    "no-transformer-engine": ("llama32_1b", LOCAL, {"host": BARE}),
    "needs-transformer-engine": ("llama32_1b", {**LOCAL, "fp8": True}, {"host": BARE}),
    "attention-backend": (
        "llama3_8b",
        {"attention_backend": "unfused", "context_parallel_size": 2},
        {},
    ),
    "attention-backend-not-used": ("gemma2_9b", {"attention_backend": "flash"}, {}),
    "attention-variables": (
        "llama3_8b",
        {"attention_backend": "flash", "env_preset": ("fused-attention",)},
        {},
    ),
    "cuda-graphs-unsupported": ("mixtral_8x7b", {"cuda_graphs": True}, {}),
    "cuda-graphs-with-offload": (
        "llama3_8b",
        {"cuda_graphs": True, "cpu_offloading": True, "cpu_offloading_layers": 1},
        {},
    ),
    "cuda-graphs-with-recompute": ("llama3_8b", {"cuda_graphs": True, "recompute_granularity": "full"}, {}),
    "cuda-graphs-allocator": ("llama3_8b", {"cuda_graphs": True, "env_preset": ("save-memory",)}, {}),
    "tp-overlap-ignored": (
        "llama3_8b",
        {"tp_comm_overlap": True, "tensor_model_parallel_size": 2},
        {},
    ),
    "tp-overlap-impossible": (
        "llama3_8b",
        {
            "tp_comm_overlap": True,
            "tensor_model_parallel_size": 8,
            "sequence_parallel": True,
            "num_gpus": 4,
            "num_nodes": 2,
        },
        {},
    ),
    "grad-reduce-unsupported": ("bert_110m", {"overlap_grad_reduce": True}, {}),
    "param-gather-not-sharded": (
        "llama3_8b",
        {"overlap_param_gather": True, "disable_dist_optim": True},
        {},
    ),
    "param-gather-with-mxfp8": (
        "llama3_8b",
        {"overlap_param_gather": True, "fp8": True, "fp8_recipe": "mxfp8"},
        {},
    ),
    "param-gather-in-one": ("llama3_8b", {"overlap_grad_reduce": False}, {}),
    "preset-gpu": ("llama32_1b", {"preset": PRESET, "gpu": "h100"}, {}),
    "preset-model": ("llama3_8b", {"preset": PRESET, "gpu": "h200"}, {}),
    "env-preset": ("llama3_8b", {"env_preset": ("slingshott",)}, {}),
    "env-variable": ("llama3_8b", {"env": ("NCCL_DEBUG",)}, {}),
    "slurm-dependency": ("llama3_8b", {"dependency": "afterok:12?afterok:13"}, {}),
    "slurm-interface": ("llama3_8b", {"network_interface": "eth0;id"}, {}),
    "slurm-folder": ("llama3_8b", {}, {"run": EarlierRun(folder="/runs/100%")}),
    "slurm-partition": ("llama3_8b", {"partition": "gpus"}, {"partitions": BIG_CLUSTER}),
    "slurm-nodes": ("llama3_8b", {"partition": "gpu", "num_nodes": 65}, {"partitions": BIG_CLUSTER}),
    "slurm-partition-down": (
        "llama3_8b",
        {"partition": "gpu"},
        {"partitions": (Partition(name="gpu", kinds=(NodeKind(num_nodes=4),), state="down"),)},
    ),
    "slurm-nodes-down": (
        "llama3_8b",
        {"partition": "gpu", "num_nodes": 4},
        {"partitions": (Partition(name="gpu", kinds=(NodeKind(num_nodes=4, usable_nodes=3),)),)},
    ),
    "slurm-gpus": ("llama3_8b", {"partition": "gpu", "num_gpus": 8}, {"partitions": BIG_CLUSTER}),
    "slurm-gres-form": ("llama3_8b", {"gres": "h100:8"}, {}),
    "slurm-gres": ("llama3_8b", {"gres": "gpu:4", "num_gpus": 8}, {}),
    "slurm-slices": ("llama3_8b", {"gres": "gpu:1g.10gb:7"}, {}),
    "slurm-setup": (
        "llama3_8b",
        {"setup": "/s.sh"},
        {"setup": SetupFile(path="/s.sh", error="no such file")},
    ),
    "preflight-unused": ("llama3_8b", {"exclude_slow": True, **LOCAL}, {}),
    "preflight-excludes": (
        "llama3_8b",
        {"exclude_slow": True},
        {"submission": Submission(number=2, bin="/usr/bin", unfit=("n2",))},
    ),
    "setup-local": ("llama3_8b", {"modules": ("cuda/12.8",), **LOCAL}, {}),
    "slurm-qos": ("llama3_8b", {"qos": "hgih"}, {"accounting": LIMITED}),
    "slurm-limit": ("llama3_8b", {"num_nodes": 4}, {"accounting": LIMITED, "partitions": BIG_CLUSTER}),
    "slurm-not-given": ("llama3_8b", {"account": "root"}, {}),
    "slurm-shell-variables": ("llama3_8b", {}, {"slurm_variables": {"SBATCH_EXPORT": "NONE"}}),
    "slurm-time": ("llama3_8b", {"time": "soon"}, {}),
    "slurm-time-limit": ("llama3_8b", {"partition": "gpu", "time": "5:00:00"}, {"partitions": BIG_CLUSTER}),
    "slurm-time-short": ("llama3_8b", {"time": "5"}, {}),
    "profile-steps": ("llama3_8b", {"profile": "pytorch", "profile_steps": "12:10"}, {}),
    "profile-ranks": ("llama3_8b", {"profile": "nsys", "profile_ranks": ("0", "99999")}, {}),
    "profile-nsys-on-cpu": ("llama3_8b", {"profile": "nsys", "device": "cpu", "executor": "local"}, {}),
    "mlflow-uri": ("llama3_8b", {"mlflow": True}, {}),
    "keep-warm-elsewhere": ("llama3_8b", {"keep_warm": 10.0, "executor": "slurm"}, {}),
    "notify-url": ("llama3_8b", {"notify": True}, {}),
    "evaluation-incomplete": ("llama3_8b", {"sample_every": 5, "checkpoint_every": 5}, {}),
    "evaluation-elsewhere": ("llama3_8b", {**SAMPLES, "checkpoint_every": 5, "executor": "slurm"}, {}),
    "evaluation-without-checkpoint": ("llama3_8b", {**SAMPLES, "checkpoint_every": 4}, {}),
    "evaluation-of-masked": ("llama3_8b", {**SAMPLES, "checkpoint_every": 5, "objective": "mlm"}, {}),
    "wandb-key": ("llama3_8b", {"wandb": True}, {}),
    "secret-in-file": ("llama3_8b", {"pre_commands": ("export HF_TOKEN=hf_x",)}, {}),
    "token-on-command-line": ("llama3_8b", {"hf_token": "hf_x"}, {}),
    "set-form": setting("hidden_dropout"),
    "set-twice": setting("model.config.hidden_dropout=0.1", "model.config.hidden_dropout=0.2"),
    "set-unknown": setting("model.config.hiden_dropout=0.1"),
    "set-type": setting("model.config.hidden_dropout=yes"),
    "set-owned": setting("trainer.max_steps=10"),
    "set-fixed": setting("log.ckpt.filename=mine"),
    "set-replaced": setting("trainer.strategy.ddp.grad_reduce_in_fp32=false"),
    "set-no-effect": setting("data.pin_memory=false", **STREAM),
    "set-not-on-cpu": setting("model.config.moe_router_fusion=true", executor="local"),
    "set-not-estimated": setting("trainer.strategy.ddp.bucket_size=1000000"),
}
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BIASED = """
base: mixtral_8x7b
num_layers: 32
add_bias_linear: true
"""


@pytest.mark.parametrize("code", TRIGGERS)
def test_each_code_is_triggered_by_a_job(code: str, tmp_path: Path) -> None:
    model, values, changed = TRIGGERS[code]
    if model == "BIASED":
        path = tmp_path / "biased.yaml"
        path.write_text(BIASED)
        model = str(path)
    found = [f for f in findings(model, changed=changed, **values) if f.code == code]
    assert found
    assert found[0].rule == RULES[code]


def test_codes_page_and_triggers_are_the_same() -> None:
    entries = re.findall(r"^### (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(entries) == sorted(RULES) == sorted(TRIGGERS)


def test_a_valid_job_has_no_findings() -> None:
    assert findings("llama32_1b") == []
    assert facts(job()).data[0].error is None
