"""Loading of language models and tokenizers from Hugging Face folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf.loading import loadable
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.installation import how_to_install
from nemolaunch.system.json_files import read_json
from nemolaunch.tokenizer import library

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
        """The device for inputs; the first one of a model spread over several GPUs."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype_name(self) -> str:
        """The number format of the weights, such as `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int | None:
        """The model's maximum sequence length, None if its configuration does not say."""
        length = getattr(self.model.config, "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def prefix_token(self) -> int | None:
        """The token before a document: the tokenizer's beginning-of-text token if it adds one, else end-of-text."""
        begins = self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        token = self.tokenizer.bos_token_id if begins else self.tokenizer.eos_token_id
        return None if token is None else int(token)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, sequence, vocabulary] for the token after each of `ids` [batch, sequence]."""
        scores: torch.Tensor = self.model(ids.to(self.device), use_cache=False).logits
        return scores


@dataclass(frozen=True)
class MaskedModel(LanguageModel):
    """A masked language model, which predicts masked tokens from the context on both sides."""

    @property
    def mask_token(self) -> int:
        """The id of the mask token."""
        return int(self.tokenizer.mask_token_id)

    def scores(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, sequence, vocabulary] for each position; `attention_mask` is 0 for padding."""
        out = self.model(ids.to(self.device), attention_mask=attention_mask.to(self.device))
        scores: torch.Tensor = out.logits
        return scores


def load(
    folder: Path, *, dtype: str = "auto", tokenizer: Path | None = None, trust_remote_code: bool = False
) -> LanguageModel:
    """Load a causal model, on all GPUs (`device_map="auto"`) or, without a GPU, on the CPU.

    Args:
        dtype: one of DTYPES; `auto` means as saved, and float32 on the CPU.
        tokenizer: folder of the tokenizer, by default the model folder.
        trust_remote_code: run code in the folders of the model and the tokenizer.

    Raises:
        UsageError: the model is a masked language model, or needs code that is not trusted.
        NemolaunchError: transformers is not installed, or the folder cannot be loaded.
    """
    check_causal(folder)
    return LanguageModel(*_loaded(folder, "AutoModelForCausalLM", dtype, tokenizer, trust_remote_code))


def load_masked(
    folder: Path, *, dtype: str = "auto", tokenizer: Path | None = None, trust_remote_code: bool = False
) -> MaskedModel:
    """Load a masked language model: one pretrained with nemolaunch, or a BERT-like model.

    The arguments are those of `load`. Code in the folder is run if it is identical to what nemolaunch writes, or
    trusted.

    Raises:
        UsageError: the model is causal, its code is not ours, or the tokenizer has no mask token.
        NemolaunchError: transformers is not installed, or the folder cannot be loaded.
    """
    config = _config(folder)
    family = bidirectional.family_of(config)
    if family is None and not _is_masked(config):
        raise UsageError(
            "this model predicts the next token, not masked tokens: use `nemolaunch eval ppl` or `nemolaunch generate`"
        )
    if family is not None and not trust_remote_code and not bidirectional.is_ours(folder, family):
        raise UsageError(
            f"{folder}: {bidirectional.MODULE}.py, or auto_map in config.json, differs from what this version of "
            "nemolaunch writes, and its code is not run for safety; export the checkpoint again, or read it and set "
            "--trust-remote-code"
        )
    model, words = _loaded(
        folder, "AutoModelForMaskedLM", dtype, tokenizer, trust_remote_code, ours=family is not None
    )
    if words.mask_token_id is None:
        raise UsageError(
            f"the tokenizer in {tokenizer or folder} defines no mask token; use another one with --tokenizer"
        )
    return MaskedModel(model, words)


def check_causal(folder: Path) -> None:
    """Raise UsageError if the model is a masked language model."""
    if _is_masked(_config(folder)):
        raise UsageError(
            "this model predicts masked tokens, not the next token: use `nemolaunch eval mlm` or `nemolaunch fill-mask`"
        )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _is_masked(config: dict[str, Any]) -> bool:
    return any(str(name).endswith("ForMaskedLM") for name in config.get("architectures") or ())


def _loaded(
    folder: Path,
    kind: str,
    dtype: str,
    tokenizer: Path | None,
    trust_remote_code: bool,
    *,
    ours: bool = False,
) -> tuple[Any, Any]:
    """Return the model, in evaluation mode, and its tokenizer. `ours`: the model's code is what nemolaunch writes."""
    try:
        import torch
        import transformers
    except ImportError:
        raise NemolaunchError(
            f"this command requires torch and transformers: {how_to_install('train')}"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    words = load_tokenizer(tokenizer or folder, trust_remote_code=trust_remote_code)
    on_gpu = torch.cuda.is_available()
    chosen = getattr(torch, "float32" if dtype == "auto" else dtype)
    options: dict[str, Any] = {"dtype": "auto" if dtype == "auto" and on_gpu else chosen}
    if on_gpu:
        options["device_map"] = "auto"
    try:
        # without a value, transformers would ask on the terminal
        options["trust_remote_code"] = trust_remote_code or ours
        with loadable(folder) as readable:
            model: Any = getattr(transformers, kind).from_pretrained(
                readable, local_files_only=True, **options
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(
                f"the model in {folder} has code of its own, which transformers would have to run, and which may do "
                "anything on this machine: read it, then set --trust-remote-code"
            ) from None
        raise NemolaunchError(f"cannot load {folder} as a language model: {_short(error)}") from None
    rows = model.get_input_embeddings().weight.shape[0]
    if len(words) > rows:
        raise UsageError(
            f"the tokenizer has {len(words)} tokens, but the embedding has only {rows} rows. Use the model's own "
            "tokenizer with --tokenizer"
        )
    return model.eval(), words


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer in a folder.

    Raises:
        UsageError: the folder does not exist, or its tokenizer needs code that is not trusted.
        NemolaunchError: it contains no readable tokenizer.
    """
    if not folder.is_dir():
        raise UsageError(f"--tokenizer {folder}: no such folder")
    try:
        return library.load(folder, trust_remote_code=trust_remote_code)
    except UsageError:
        raise
    except NemolaunchError as error:
        raise NemolaunchError(f"{error}. Set --tokenizer") from None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
