"""Make NeMo's Hugging Face converters say what they otherwise lose without a word.

Each function is a context manager that changes NeMo while a conversion runs and puts it back afterwards.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError

# Rotary frequencies are computed from the configuration; old checkpoints carry them all the same.
COMPUTED = ("rotary_emb.inv_freq", "freqs_cis")
OUTPUT_LAYERS = ("lm_head.weight", "output_layer.weight")


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` inside the block."""
    original = owner.__dict__.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)


@contextmanager
def tokenizer_from(folder: Path) -> Iterator[None]:
    """Importers take the tokenizer of `folder`; NeMo's own write it to one fixed path for all conversions."""
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
    from nemo.collections.llm.gpt.model.gemma3 import HFGemma3Importer
    from nemo.lightning.io.connector import ModelConnector

    def save_hf_tokenizer_assets(self: Any, tokenizer_name_or_path: str, save_path: str = "") -> str:
        return str(folder)

    with ExitStack() as stack:
        stack.enter_context(replaced(ModelConnector, "save_hf_tokenizer_assets", save_hf_tokenizer_assets))
        # This one reads the model's folder itself, and would then copy the weights as part of the tokenizer
        gemma3 = property(lambda self: AutoTokenizer(str(folder)))
        stack.enter_context(replaced(HFGemma3Importer, "tokenizer", gemma3))
        yield


@contextmanager
def embedding_rows_kept(exporter: type) -> Iterator[None]:
    """The exporter keeps the model's rows of the embedding; some of NeMo's cut it to the tokenizer's size."""
    from nemo.lightning import io

    original = _getter(exporter, "tokenizer")

    def tokenizer(self: Any) -> Any:
        config = io.load_context(str(self), subpath="model.config")
        found = original(self)
        return _WithRows(found, config.vocab_size or found.vocab_size)

    with replaced(exporter, "tokenizer", property(tokenizer)):
        yield


class _WithRows:
    """A tokenizer whose `vocab_size` is the model's."""

    def __init__(self, tokenizer: Any, rows: int) -> None:
        self._tokenizer, self.vocab_size = tokenizer, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@contextmanager
def whole_config_imported(importer: type, source: Any) -> Iterator[None]:
    """The importer takes what NeMo's leave at their defaults, or get wrong by one.

    That is the sequence length, all of Llama 3's rope scaling, and the sliding window: Transformer Engine's
    counts the keys before the query's own, Hugging Face's the own one too. `source` is the Hugging Face
    configuration.
    """
    original = _getter(importer, "config")
    scaling = getattr(source, "rope_scaling", None) or {}
    values: dict[str, Any] = {"seq_length": getattr(source, "max_position_embeddings", None)}
    if scaling.get("rope_type") == "llama3":
        values["low_freq_factor"] = scaling.get("low_freq_factor")
        values["high_freq_factor"] = scaling.get("high_freq_factor")
        values["old_context_len"] = scaling.get("original_max_position_embeddings")

    def config(self: Any) -> Any:
        found = original(self)
        wanted = dict(values)
        if getattr(found, "window_size", None) and getattr(source, "sliding_window", None):
            wanted["window_size"] = (source.sliding_window - 1, 0)
        for name, value in wanted.items():
            if value is not None and getattr(found, name, value) != value:
                setattr(found, name, value)
                setattr(found.__io__, name, value)  # what the checkpoint's context records
        return found

    with replaced(importer, "config", property(config)):
        yield


@contextmanager
def whole_config_exported(exporter: type) -> Iterator[None]:
    """The exporter writes the checkpoint's sequence length and window; some of NeMo's write a constant."""
    from nemo.lightning import io

    original = _getter(exporter, "config")

    def config(self: Any) -> Any:
        found = original(self)
        source = io.load_context(str(self), subpath="model.config")
        if hasattr(found, "max_position_embeddings"):
            found.max_position_embeddings = source.seq_length
        if getattr(source, "window_size", None) and hasattr(found, "sliding_window"):
            found.sliding_window = source.window_size[0] + 1
        return found

    with replaced(exporter, "config", property(config)):
        yield


def _getter(owner: type, name: str) -> Callable[[Any], Any]:
    """The function behind a property, cached or not."""
    found: Any = getattr(owner, name)
    return getattr(found, "fget", None) or found.func


@contextmanager
def output_layer_tied(*, if_equal: bool) -> Iterator[None]:
    """An exported model that is tied is saved without an output layer of its own.

    NeMo has no tied form of some families (Qwen 2, StarCoder): its importers copy the embedding. With
    `if_equal` a model whose output layer still equals its embedding becomes a tied one again.
    """
    from nemo.lightning import io

    original = io.apply_transforms

    def apply_transforms(*args: Any, **kwargs: Any) -> Any:
        import torch

        done = original(*args, **kwargs)
        head, embedding = done.get_output_embeddings(), done.get_input_embeddings()
        if if_equal and head is not None and torch.equal(head.weight, embedding.weight):
            done.config.tie_word_embeddings = True
        done.tie_weights()
        return done

    with replaced(io, "apply_transforms", apply_transforms):
        yield


@contextmanager
def every_tensor_mapped() -> Iterator[None]:
    """Raises `NemolaunchError` when the block ends with a tensor that was not read, or not written.

    NeMo's converters skip a mapping that matches nothing with a warning, never ask whether a source tensor
    was used, and leave a target tensor that nothing was written to at its random values.
    """
    from nemo.lightning.io import state

    contexts: list[Any] = []

    class RecordedContext(state.TransformCTX):
        def __init__(self, source: Any, source_state: Any, target: Any, target_state: Any) -> None:
            super().__init__(source, _Recorded(source_state), target, _Recorded(target_state))
            contexts.append(self)

    with replaced(state, "TransformCTX", RecordedContext):
        yield
    faults = [fault for context in contexts for fault in _unmapped(context)]
    if faults:
        raise NemolaunchError("NeMo's converter does not fit this model:\n" + "\n".join(faults))


class _Recorded(UserDict):
    """A state dict that remembers which entries were read and which were written."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.data = state  # not a copy: the converter goes on with the original
        self.before = set(state)
        self.read: set[str] = set()
        self.written: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.written.add(name)
        self.data[name] = value


def _unmapped(context: Any) -> list[str]:
    unread = _named(context.source_state.before - context.source_state.read, context.source)
    unwritten = _named(context.target_state.before - context.target_state.written, context.target)
    faults = []
    if unread:
        faults.append(f"  {len(unread)} tensors of the source have no place: {_some(unread)}")
    if unwritten:
        faults.append(f"  {len(unwritten)} tensors of the result would stay random: {_some(unwritten)}")
    return faults


def _named(names: set[str], model: Any) -> list[str]:
    """Those that matter: not Transformer Engine's extra states, not computed, not the embedding again."""
    config = getattr(model, "config", None)
    tied = getattr(config, "tie_word_embeddings", False) or getattr(
        config, "share_embeddings_and_output_weights", False
    )
    return sorted(
        name
        for name in names
        if not name.endswith(("_extra_state", *COMPUTED)) and not (tied and name.endswith(OUTPUT_LAYERS))
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


@contextmanager
def contexts_fit_the_cpu() -> Iterator[None]:
    """Models loaded from a GPU run's context lose what a CPU cannot build."""
    from nemo.lightning.io import api

    from nemolaunch.nemo2.cpu.adapt import adapt_model

    original = api.load_context

    def load_context(*args: Any, **kwargs: Any) -> Any:
        loaded = original(*args, **kwargs)
        if hasattr(loaded, "configure_model") and hasattr(loaded, "config"):
            adapt_model(loaded.config)
        return loaded

    with replaced(api, "load_context", load_context):
        yield


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Says when the converter comes to the slow parts."""
    from nemo.lightning.io.connector import ModelConnector

    steps = {
        "nemo_setup": "building the NeMo model",
        "nemo_save": "writing the NeMo checkpoint",
        "nemo_load": "reading the NeMo checkpoint",
    }

    def saying(name: str, text: str) -> Callable[..., Any]:
        original = getattr(ModelConnector, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            say(text)
            return original(self, *args, **kwargs)

        return method

    with ExitStack() as stack:
        for name, text in steps.items():
            stack.enter_context(replaced(ModelConnector, name, saying(name, text)))
        yield
