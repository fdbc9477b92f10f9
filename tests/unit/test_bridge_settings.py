"""`--set` with Megatron-Bridge: paths are checked against its fields, without importing it."""

from __future__ import annotations

import pytest
from check_jobs import findings, job, resolved

from nemolaunch.facts.interpreter import Interpreter
from nemolaunch.findings import Finding

BRIDGE = {"backend": "bridge", "executor": "local", "num_gpus": 1}
FACTS = {"interpreter": Interpreter(path="/env/bin/python", bridge="0.6.2", megatron="0.19.2")}


def found(*words: str, model: str = "llama3_8b") -> list[Finding]:
    every = findings(model, changed=FACTS, **BRIDGE, set=words)
    return [finding for finding in every if finding.code.startswith("set-")]


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [
        # the nearest name is offered
        ("optimizer.adam_epsilon=1e-8", "set-unknown", "Megatron-Bridge's configuration has no field"),
        # NeMo's path
        ("optim.config.sgd_momentum=0.8", "set-unknown", "optim.config.sgd_momentum"),
        ("model=3", "set-unknown", "part of Megatron-Bridge's configuration"),
        ("ddp.bucket_size=many", "set-type", "takes a whole number or null"),
        ("dist.distributed_backend=mpi", "set-fixed", "the launcher and the layout decide"),
        ("model.activation_func=gelu", "set-fixed", "belongs to the code of the model"),
        ("optimizer.lr=1e-3", "set-owned", "decided by --lr"),
        ("train.train_iters=5", "set-owned", "decided by --max-steps"),
        ("model.hidden_size=64", "set-owned", "`hidden_size` in a YAML file"),
        ("scheduler.lr_decay_style=linear", "set-owned", "decided by --lr-schedule"),
        ("mixed_precision.bf16=false", "set-owned", "decided by --precision"),
        ("checkpoint.save_optim=false", "set-fixed", "resumed"),
        ("ddp.grad_reduce_in_fp32=false", "set-replaced", "by mixed_precision.grad_reduce_in_fp32"),
        ("model.bias_dropout_fusion=false", "set-not-estimated", "model.bias_dropout_fusion"),
        ("model.tp_comm_overlap_cfg=x.yaml", "set-not-estimated", "model.tp_comm_overlap_cfg"),
    ],
)
def test_a_setting_is_checked_against_the_fields_of_bridge(word: str, code: str, text: str) -> None:
    (finding,) = found(word)
    assert finding.code == code
    assert text in finding.message


def test_the_nearest_field_is_offered() -> None:
    (finding,) = found("ddp.bucket_sizes=40000000")
    assert {"set": ("ddp.bucket_size=40000000",)} in [dict(fix.changes) for fix in finding.fixes]


def test_fields_of_the_models_own_class_exist() -> None:
    """Of Bridge's Gemma3ModelProvider."""
    assert found("model.is_vision_language=false")[0].code == "set-unknown"
    assert found("model.is_vision_language=false", model="gemma3_1b")[0].code == "set-not-estimated"


def test_dropout_is_part_of_what_is_planned() -> None:
    asked = job("llama3_8b", **BRIDGE, set=("model.hidden_dropout=0.1",))
    assert resolved(asked, **FACTS).model.architecture.hidden_dropout == 0.1
    assert found("model.hidden_dropout=0.1") == []
