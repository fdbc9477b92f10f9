"""Small jobs for the end-to-end tests: a Llama of a few thousand parameters on the sample corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forkserver import ForkServer

from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.launching.prepare import prepare
from nemolaunch.planning import Plan, make_plan

ROOT = Path(__file__).parents[2]
TOKENIZER = str(ROOT / "examples" / "tokenizer")
LLAMA = """\
base: llama3_8b
num_layers: 4
hidden_size: 64
num_attention_heads: 4
num_query_groups: 2
ffn_hidden_size: 128
seq_length: 64
init_method_std: 0.02
"""


def llama(folder: Path) -> str:
    """A YAML of the small Llama, as a user would write one."""
    path = folder / "small-llama.yaml"
    path.write_text(LLAMA)
    return str(path)


def planned(folder: Path, data: str, **values: Any) -> Plan:
    """A prepared plan: fp32, 16 sequences a step, a learning rate that shows."""
    defaults: dict[str, Any] = {
        "model_name": llama(folder),
        "hf_model_id": TOKENIZER,
        "dataset_dir": [data],
        "output_dir": str(folder / "run"),
        "precision": "fp32",
        "global_batch_size": 16,
        "max_steps": 5,
        "lr": 1e-3,
        "min_lr": 1e-4,
        "warmup_steps": 1,
        "split": "90,9,1",
        "limit_val_batches": 0,
        "no_async_save": True,
    }
    plan = make_plan(Job().with_values(**{**defaults, **values}))
    assert not errors(plan.findings), [str(finding) for finding in plan.findings]
    return prepared(plan)


def prepared(plan: Plan) -> Plan:
    """The plan, with its run folder made."""
    prepare(plan)
    return plan


def train(server: ForkServer, plan: Plan, **kwargs: Any) -> list[dict[str, Any]]:
    """Run the plan in as many ranks as it says. Returns what each recorded."""
    return server.run(
        "e2e.train_plan:train", {"plan_file": str(plan.run.plan), **kwargs}, nproc=plan.world_size
    )
