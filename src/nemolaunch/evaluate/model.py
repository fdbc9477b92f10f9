"""A causal language model and its tokenizer, loaded from a Hugging Face folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError, UsageError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LanguageModel:
    """A transformers model in evaluation mode, with its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """Where inputs go; of a model spread over GPUs, the first."""
        device: torch.device = self.model.device
        return device

    @property
    def context_length(self) -> int | None:
        """Tokens the model was made for, None where its configuration does not say."""
        length = getattr(self.model.config, "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def prefix_token(self) -> int | None:
        """What stands before a document: the token the tokenizer begins texts with, else its end-of-text."""
        begins = self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        token = self.tokenizer.bos_token_id if begins else self.tokenizer.eos_token_id
        return None if token is None else int(token)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Scores [batch, sequence, vocabulary] of the token after each of `ids` [batch, sequence]."""
        scores: torch.Tensor = self.model(ids.to(self.device), use_cache=False).logits
        return scores


def load(folder: Path, *, dtype: str = "auto", tokenizer: Path | None = None) -> LanguageModel:
    """Load a model: over all GPUs (`device_map="auto"`) where there are any, else on the CPU.

    Args:
        dtype: one of DTYPES; `auto` is the one it was saved in, on a CPU float32.
        tokenizer: folder of the tokenizer, by default the model's.

    Raises:
        NemolaunchError: transformers is missing, or the folder cannot be loaded.
    """
    # torch warns of this at every start where the older of the two packages is installed
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated")
    try:
        import torch
        import transformers
    except ImportError:
        raise NemolaunchError("this needs torch and transformers: pip install 'nemolaunch[train]'") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    words = load_tokenizer(tokenizer or folder)
    on_gpu = torch.cuda.is_available()
    chosen = getattr(torch, "float32" if dtype == "auto" else dtype)
    options: dict[str, Any] = {"dtype": "auto" if dtype == "auto" and on_gpu else chosen}
    if on_gpu:
        options["device_map"] = "auto"
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise NemolaunchError(f"{folder} cannot be loaded as a language model: {_short(error)}") from None
    rows = model.get_input_embeddings().weight.shape[0]
    if len(words) > rows:
        raise UsageError(
            f"the tokenizer has {len(words)} tokens but the embedding {rows} rows; they do not match. "
            "Give the model's own with --tokenizer"
        )
    return LanguageModel(model.eval(), words)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        NemolaunchError: there is none in it.
    """
    import transformers

    if not folder.is_dir():
        raise UsageError(f"--tokenizer {folder}: there is no such folder")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"no tokenizer can be read from {folder}: {_short(error)}. Give --tokenizer"
        raise NemolaunchError(message) from None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
