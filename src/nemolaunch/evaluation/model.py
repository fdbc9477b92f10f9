"""A language model and its tokenizer, loaded from a Hugging Face folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.hf import bidirectional
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


@dataclass(frozen=True)
class MaskedModel(LanguageModel):
    """A model that predicts masked tokens from both sides of them."""

    @property
    def mask_token(self) -> int:
        """What stands for a masked token."""
        return int(self.tokenizer.mask_token_id)

    def scores(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Scores [batch, sequence, vocabulary] of the token in each place; `attention_mask` is 0 for padding."""
        out = self.model(ids.to(self.device), attention_mask=attention_mask.to(self.device))
        scores: torch.Tensor = out.logits
        return scores


def load(folder: Path, *, dtype: str = "auto", tokenizer: Path | None = None) -> LanguageModel:
    """Load a causal model: over all GPUs (`device_map="auto"`) where there are any, else on the CPU.

    Args:
        dtype: one of DTYPES; `auto` is the one it was saved in, on a CPU float32.
        tokenizer: folder of the tokenizer, by default the model's.

    Raises:
        UsageError: the model predicts masked tokens.
        NemolaunchError: transformers is missing, or the folder cannot be loaded.
    """
    check_causal(folder)
    return LanguageModel(*_loaded(folder, "AutoModelForCausalLM", dtype, tokenizer))


def load_masked(folder: Path, *, dtype: str = "auto", tokenizer: Path | None = None) -> MaskedModel:
    """Load a model that predicts masked tokens: one that was pretrained here, or BERT and its relatives.

    Arguments as of `load`. A folder's own code is run only if it is the code that is written here.

    Raises:
        UsageError: it predicts the next token, its code is not ours, or the tokenizer has no mask token.
        NemolaunchError: transformers is missing, or the folder cannot be loaded.
    """
    config = _config(folder)
    family = bidirectional.family_of(config)
    if family is None and not _is_masked(config):
        raise UsageError(
            "this model predicts the next token, not masked ones: `nemolaunch eval ppl` and `nemolaunch generate` are "
            "for it"
        )
    if family is not None and not bidirectional.is_ours(folder, family):
        raise UsageError(
            f"{folder}/{bidirectional.MODULE}.py is not what this version of nemolaunch writes, and is not run "
            "unseen; export the checkpoint again"
        )
    model, words = _loaded(
        folder, "AutoModelForMaskedLM", dtype, tokenizer, trust_remote_code=family is not None
    )
    if words.mask_token_id is None:
        raise UsageError(
            f"the tokenizer of {tokenizer or folder} names no mask token; give another with --tokenizer"
        )
    return MaskedModel(model, words)


def check_causal(folder: Path) -> None:
    """Raise `UsageError` for a model that predicts masked tokens, where the next one is asked for."""
    if _is_masked(_config(folder)):
        raise UsageError(
            "this model predicts masked tokens, not the next one: `nemolaunch eval mlm` and `nemolaunch fill-mask` "
            "are for it"
        )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _is_masked(config: dict[str, Any]) -> bool:
    return any(str(name).endswith("ForMaskedLM") for name in config.get("architectures") or ())


def _loaded(folder: Path, kind: str, dtype: str, tokenizer: Path | None, **more: Any) -> tuple[Any, Any]:
    """Model, in evaluation mode, and tokenizer."""
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
    options: dict[str, Any] = {"dtype": "auto" if dtype == "auto" and on_gpu else chosen, **more}
    if on_gpu:
        options["device_map"] = "auto"
    try:
        model: Any = getattr(transformers, kind).from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise NemolaunchError(f"{folder} cannot be loaded as a language model: {_short(error)}") from None
    rows = model.get_input_embeddings().weight.shape[0]
    if len(words) > rows:
        raise UsageError(
            f"the tokenizer has {len(words)} tokens but the embedding {rows} rows; they do not match. "
            "Give the model's own with --tokenizer"
        )
    return model.eval(), words


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
