"""Documents that do not depend on each other: models, layouts and data that allow it."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.catalogue.bridge_models import is_plain_gemma4
from nemolaunch.check.support import error, fix, flag, no_effect, shown, sizes, warning, without
from nemolaunch.facts.data_files import DataFile
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.backend import trains_with_bridge
from nemolaunch.tokenizer.vocabulary import end_token

ATTENTION, POSITIONS, LOSS = "reset_attention_mask", "reset_position_ids", "eod_mask_loss"
FLAGS = (ATTENTION, POSITIONS, LOSS)


def given(resolved: Resolved) -> tuple[str, ...]:
    """Return those of the three flags that are set."""
    return tuple(name for name in FLAGS if resolved.job.get(name))


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check model and layout."""
    names = given(resolved)
    refused = {name: reason for name in names if (reason := _unsupported(resolved, name))}
    if refused:
        reasons = "; ".join(f"{flag(name)} is not possible: {reason}" for name, reason in refused.items())
        yield error("documents-unsupported", reasons, without(resolved, *refused))
    if POSITIONS in names and POSITIONS not in refused:
        yield from _positions(resolved)
    if ATTENTION in names and ATTENTION not in refused:
        yield from _as_sequences(resolved)


def _unsupported(resolved: Resolved, name: str) -> str | None:
    """Return why a flag does not support the model or the objective, as a clause; None if it does."""
    model = resolved.model
    a = model.architecture
    if resolved.job.objective.objective == "mlm" or a.kind == "bert":
        if name == LOSS:
            return (
                "masked language modelling never masks the end of a document, so the loss does not contain it"
            )
        return "masked language modelling reads samples as one text"
    if a.kind in ("t5", "hyena"):
        return f"{model.name} is a {model.recipe.model_class}, which builds its samples differently"
    if a.mtp_num_layers:
        reason = "do not support packed sequences" if name == ATTENTION else "ignore the ends of documents"
        return f"the multi-token-prediction layers of {model.name} {reason} (multi_token_prediction.py)"
    return _unsupported_attention(resolved) if name == ATTENTION else None


def _unsupported_attention(resolved: Resolved) -> str | None:
    """Return why the model's layers do not take packed sequences, as a clause; None if they do."""
    model = resolved.model
    name = model.recipe.model_class
    if model.architecture.kind == "mamba":
        return f"the state of {model.name}'s Mamba layers passes from one document to the next (ssm_forward_step)"
    if name == "Gemma2Model":
        return "Gemma 2's own attention rejects packed sequences (Gemma2DotProductAttention)"
    if name == "GPTModel" and not trains_with_bridge(resolved.job):
        return f"the layers of {model.name} are Transformer Engine's own, to which NeMo passes no document boundaries"
    if is_plain_gemma4(model):
        return (
            f"the attention of {model.name}, Megatron's own, rejects packed sequences (DotProductAttention)"
        )
    if model.recipe.bridge_fields.get("softmax_type", "vanilla") != "vanilla":
        return (
            f"Transformer Engine computes the attention sinks of {model.name} in packed sequences with cuDNN 9.18 and "
            "newer only (get_attention_backend), which has not been tried"
        )
    if model.recipe.name.startswith("llama4"):
        return "the chunked attention of Llama 4 needs padded boundaries (chunkify_cu_seqlens)"
    return None


def _positions(resolved: Resolved) -> Iterator[Finding]:
    """Check that position ids are used. Rotary positions restart in packed sequences in any case."""
    model, kind = resolved.model, resolved.model.architecture.position_embedding_type
    if kind == "learned_absolute" or (kind == "rope" and resolved.job.data.reset_attention_mask):
        return
    what = {"rope": "rotary position embeddings, which depend on the place in the sample"}.get(
        kind, "no position embeddings"
    )
    fixes = (
        [fix(reset_attention_mask=True)] if kind == "rope" and not _unsupported_attention(resolved) else []
    )
    yield error(
        "position-ids-not-used",
        f"{no_effect([POSITIONS])}: {model.name} has {what}"
        + (f"; with {flag(ATTENTION)} they restart with each document" if fixes else ""),
        *fixes,
        fix(reset_position_ids=False),
    )


def _as_sequences(resolved: Resolved) -> Iterator[Finding]:
    """Check what packed sequences require of batch and layout; attention kernels are checked elsewhere."""
    found: dict[str, tuple[object, str]] = {}
    micro, cp = resolved.job.batch.micro_batch_size, sizes(resolved).cp
    if micro > 1:
        found["micro_batch_size"] = 1, f"{shown('micro_batch_size', micro)}: one sample is packed at a time"
    if cp > 1:
        reason = f"{shown('context_parallel_size', cp)}: every document would have to be split over the ranks"
        found["context_parallel_size"] = 1, reason
    if resolved.job.speed.cuda_graphs:
        found["cuda_graphs"] = False, f"{flag('cuda_graphs')}: samples differ in their number of documents"
    if found:
        yield error(
            "documents-as-sequences",
            f"{flag(ATTENTION)} cannot be combined with {'; '.join(reason for _, reason in found.values())}",
            fix(**{name: value for name, (value, _) in found.items()}),
            without(resolved, ATTENTION, POSITIONS),
        )


def ends(resolved: Resolved) -> Iterator[Finding]:
    """Check that the data's documents end with the token by which NeMo finds their ends."""
    names = given(resolved)
    tokenizer = resolved.facts.tokenizer
    if not names or tokenizer is None or tokenizer.words is None:
        return  # reported elsewhere, or checked by the training processes
    flags, drop = ", ".join(map(flag, names)), without(resolved, *names)
    if tokenizer.end_id is None:
        token = end_token(tokenizer.roles)
        named = f"its eos_token {token!r} is not in its vocabulary" if token else "it names no eos_token"
        yield error("document-ends", f"{flags}: the tokenizer {tokenizer.source} has no end: {named}", drop)
        return
    for file in resolved.facts.data:
        last = _last_tokens(file)
        if last and tokenizer.end_id not in last:
            yield error(
                "document-ends",
                f"{flags}: documents of {file.prefix} end with token {last[0]}, not with {tokenizer.end_id}, the "
                f"tokenizer's eos_token {end_token(tokenizer.roles)!r}",
                drop,
            )
            return


def _last_tokens(file: DataFile) -> tuple[int, ...]:
    """Return the token that ends the documents of a file, or those that were found at the ends of some."""
    return (file.end_token,) if file.end_token is not None else file.last_tokens


def padding(resolved: Resolved) -> Iterator[Finding]:
    """Check that the token that ends documents is not the one that Megatron takes for padding."""
    tokenizer = resolved.facts.tokenizer
    if resolved.job.data.data_mode != "indexed" or tokenizer is None or tokenizer.end_id is None:
        return
    end = end_token(tokenizer.roles)
    if tokenizer.roles.get("pad_token") != end or not any(
        tokenizer.end_id in _last_tokens(file) for file in resolved.facts.data
    ):
        return
    text = (
        f"the tokenizer {tokenizer.source} pads with {end!r}, which ends the documents of the data: Megatron leaves it "
        "out of the loss and puts token 0 in its place, so the model does not learn where texts end"
    )
    other = 'name another "pad_token" in its tokenizer_config.json'
    if names := given(resolved):
        drop = without(resolved, *names)
        yield error(
            "end-is-padding", f"{text}, and {', '.join(map(flag, names))} finds no ends; {other}", drop
        )
    else:
        yield warning("end-is-padding", f"{text}; {other}")
