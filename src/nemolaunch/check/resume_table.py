"""What each flag does to a run that resumes: applied from there on, reported before the start, or without effect."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum

from nemolaunch.job import PARTS
from nemolaunch.resolve.resuming import CHANGEABLE, SCHEDULE


class Effect(str, Enum):
    """What another value than the run so far had means."""

    APPLIED = "applied"  # the new value holds from the step reached
    REPORTED = (
        "reported"  # it holds too, but the plan warns, because what was learnt or read so far does not fit it
    )
    REFUSED = "refused"  # the plan has an error
    FREE = "free"  # it changes how the run is started, watched or stored, not what is learnt


@dataclass(frozen=True)
class Row:
    """The effect of one field.

    Attributes:
        effect: what happens.
        text: what the new value means, as a clause with the field's value as its subject.
        code: the finding that reports it; `resume-changes` for those that only need the sentence.
    """

    effect: Effect
    text: str
    code: str = "resume-changes"

    @property
    def finding(self) -> bool:
        """Whether another value can lead to a finding."""
        return self.effect in (Effect.REPORTED, Effect.REFUSED) or self.code != "resume-changes"


def _rows(effect: Effect, text: str, *names: str, code: str = "resume-changes") -> dict[str, Row]:
    return {name: Row(effect, text, code) for name in names}


def _names(part: str) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(PARTS[part]))


_SAME = "changes how fast steps are, and their results only by rounding"

TABLE: dict[str, Row] = {
    # where and how it runs
    **_rows(Effect.FREE, "concerns the start of the job", *_names("launch")),
    **_rows(Effect.FREE, "concerns what is logged", *_names("logging")),
    **_rows(Effect.FREE, "concerns what is watched", *_names("guards")),
    **_rows(Effect.FREE, "concerns what is saved", *_names("checkpoint")),
    **_rows(Effect.FREE, _SAME, *_names("memory"), *_names("speed")),
    **_rows(Effect.FREE, f"{_SAME}; checkpoints are resharded", *_names("parallelism")),
    "expert_model_parallel_size": Row(
        Effect.REFUSED, "shards the optimizer state differently", "run-of-other-optimizer-layout"
    ),
    # the model
    "model_name": Row(
        Effect.REFUSED, "must describe the same architecture, not only the same shapes", "run-of-other-model"
    ),
    "hf_model_id": Row(Effect.REFUSED, "must be the same tokenizer", "run-of-other-tokenizer"),
    "nemo_model": Row(Effect.REPORTED, "is not used: the checkpoint has weights", "weights-not-used"),
    "trust_remote_code": Row(Effect.FREE, "concerns how the tokenizer is loaded"),
    "hf_token": Row(Effect.FREE, "concerns downloads"),
    "set": Row(Effect.REPORTED, "changes fields of the recipe from the step reached"),
    # the data
    "dataset_dir": Row(Effect.REPORTED, "changes what is read, and what is read again", "run-of-other-data"),
    "data_mode": Row(Effect.REFUSED, "has another order of samples", "run-of-other-data-mode"),
    "blend_by": Row(Effect.REPORTED, "changes the shares of the sources", "run-of-other-data"),
    "seq_length": Row(Effect.REPORTED, "cuts the data into other samples, whose order is new"),
    "split": Row(Effect.REFUSED, "moves documents from validation into training", "run-of-other-split"),
    "validation_data": Row(Effect.APPLIED, "is evaluated from the next validation on"),
    "num_workers": Row(Effect.FREE, "changes how fast data are read, not their order"),
    "index_mapping_dir": Row(Effect.FREE, "is where the order of samples is stored"),
    **_rows(
        Effect.REPORTED, "changes how samples are masked", *_names("objective"),
        code="run-of-other-objective",
    ),
    "moe_z_loss_coeff": Row(Effect.REPORTED, "changes the loss of the routers"),
    "reset_attention_mask": Row(Effect.REPORTED, "changes which tokens a token attends to"),
    "reset_position_ids": Row(Effect.REPORTED, "changes the positions of tokens"),
    "eod_mask_loss": Row(Effect.REPORTED, "changes which predictions the loss counts"),
    "objective": Row(Effect.REFUSED, "trains another objective", "run-of-other-objective"),
    **_rows(
        Effect.REFUSED, "changes the order of rows", "text_key", "shard_shuffle", "stream_readers",
        code="stream-changed",
    ),
    **_rows(Effect.REPORTED, "changes which rows come next", "shuffle_buffer", "stopping_strategy", "bad_data"),
    "data_resume": Row(Effect.APPLIED, "is how the stream continues"),
    "data_ledger": Row(Effect.FREE, "concerns what is recorded"),
    # how it is trained
    **_rows(Effect.APPLIED, "is the end of the run", "max_steps", "max_tokens", "tokens_per_param"),
    **_rows(
        Effect.REPORTED, "changes how many samples a step has; reading goes on at the sample reached",
        "global_batch_size", "global_batch_tokens", "rampup_batch_size",
    ),
    "micro_batch_size": Row(Effect.FREE, _SAME),
    **_rows(Effect.REPORTED, "changes the precision of every step", "precision", "fp8", "fp8_recipe"),
    "seed": Row(Effect.REPORTED, "shuffles the data anew, so that some samples are read again and others not at all"),
    "optimizer": Row(Effect.REFUSED, "has another state", "run-of-other-optimizer-layout"),
    "disable_dist_optim": Row(
        Effect.REFUSED, "stores the optimizer state differently", "run-of-other-optimizer-layout"
    ),
    "num_distributed_optimizer_instances": Row(Effect.FREE, _SAME),
    **_rows(
        Effect.APPLIED, "is part of the schedule; a jump of the rate is reported", *SCHEDULE, "warmup_ratio",
        "constant_steps", code="lr-jump",
    ),
    **_rows(
        Effect.REPORTED, "holds from the step reached", *CHANGEABLE, code="run-of-other-optimizer",
    ),
}  # fmt: skip


def generic() -> dict[str, Row]:
    """Return the fields that only need a sentence; the others have rules of their own."""
    return {
        name: row
        for name, row in TABLE.items()
        if row.code == "resume-changes" and row.effect is Effect.REPORTED
    }
