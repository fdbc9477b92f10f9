"""Secrets of a launch, passed separately from the plan: in memory and environments, never in files or command lines."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemolaunch.job import Job


@dataclass(frozen=True)
class Secrets:
    """Values that the job's processes need and no file may contain. Exported variables reach them anyway."""

    hf_token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, job: Job) -> Secrets:
        """Return the secrets of a job."""
        return cls(hf_token=job.model.hf_token)

    def environment(self) -> dict[str, str]:
        """Return the secrets as environment variables."""
        return {"HF_TOKEN": self.hf_token} if self.hf_token else {}
