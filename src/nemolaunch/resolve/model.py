"""The model that a job names."""

from __future__ import annotations

from nemolaunch import catalogue
from nemolaunch.errors import UsageError
from nemolaunch.job import Job
from nemolaunch.tokenizer.inspection import Tokenizer


def model_of(job: Job, tokenizer: Tokenizer | None) -> catalogue.ModelSpec:
    """Return the model that a job names; `hf` is the architecture of `--hf-model-id`.

    Raises:
        UsageError: there is no such model, or the file that describes it is missing or not valid.
    """
    if job.model.model_name != "hf":
        return catalogue.model(job.model.model_name)
    if tokenizer is None or tokenizer.model_config is None:
        where = (
            f"{tokenizer.folder or tokenizer.source} has none on this machine"
            if tokenizer
            else "that flag is not set"
        )
        raise UsageError(
            f"--model-name hf takes the architecture from the config.json of --hf-model-id, but {where}; "
            "use the model's local folder, or download it first"
        )
    from nemolaunch.catalogue.hf_config import model_from_hf_config  # with all families, which few plans need

    return model_from_hf_config(tokenizer.model_config, tokenizer.source)
