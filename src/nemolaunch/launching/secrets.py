"""Secrets of a launch, passed beside the plan: in memory and in environments, never in a file or a command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemolaunch.job import Job


@dataclass(frozen=True)
class Secrets:
    """What the job's processes need to know and no file may hold. What is exported already reaches them anyway."""

    hf_token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, job: Job) -> Secrets:
        """Take the secrets out of a job as it was given."""
        return cls(hf_token=job.model.hf_token)

    def environment(self) -> dict[str, str]:
        """Return the variables that carry them."""
        return {"HF_TOKEN": self.hf_token} if self.hf_token else {}
