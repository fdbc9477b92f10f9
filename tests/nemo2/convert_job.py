"""Conversions in the fork server's process, and what NeMo computes from their result."""

from __future__ import annotations

from pathlib import Path

PROMPT = [[0, 17, 300, 5, 42, 42, 7, 199, 23, 8, 64, 128]]


def round_trip(hf: str, work: str, model_class: str) -> dict[str, float]:
    """Hugging Face → NeMo 2 → Hugging Face, in `work`/nemo and `work`/hf; largest differences of logits."""
    from nemolaunch.checkpoint.hf import copy_tokenizer
    from nemolaunch.nemo2.convert_worker import export_hf, import_hf

    folder = Path(work)
    folder.mkdir()
    copy_tokenizer(Path(hf), folder / "tokenizer")
    import_hf(hf, str(folder / "tokenizer"), str(folder / "nemo"), model_class)
    nemo = nemo_logits(str(folder / "nemo"))
    export_hf(str(folder / "nemo"), str(folder / "hf"))
    before, after = (hf_logits(path) for path in (hf, str(folder / "hf")))
    return {
        "nemo and hf": float((nemo - before).abs().max()),
        "hf and hf": float((after - before).abs().max()),
        "size": float(before.abs().max()),
    }


def hf_logits(folder: str):
    """[batch, sequence, vocabulary] in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor(PROMPT)).logits.float()


def nemo_logits(checkpoint: str):
    """As `hf_logits`, by Megatron's model with the CPU's layers."""
    import torch
    from nemo.lightning.base import teardown
    from nemo.lightning.io.connector import ModelConnector

    model, trainer = ModelConnector(checkpoint).nemo_load(checkpoint)
    model = model.eval()
    tokens = torch.tensor(PROMPT)
    positions = torch.arange(tokens.size(1))[None]
    with torch.no_grad():
        logits = model(input_ids=tokens, position_ids=positions, attention_mask=None).float()
    teardown(trainer)
    return logits


def export(nemo: str, hf: str) -> dict[str, float]:
    """NeMo 2 → Hugging Face; largest difference of logits between the two."""
    from nemolaunch.nemo2.convert_worker import export_hf

    export_hf(nemo, hf)
    ours, theirs = nemo_logits(nemo), hf_logits(hf)
    rows = theirs.size(-1)  # NeMo's are padded
    return {
        "nemo and hf": float((ours[..., :rows] - theirs).abs().max()),
        "size": float(theirs.abs().max()),
    }


def refused_config(hf: str, work: str, config_class: str) -> str:
    """What is said when the source does not have the sizes of a named configuration."""
    from nemolaunch.checkpoint.hf import copy_tokenizer
    from nemolaunch.errors import UsageError
    from nemolaunch.nemo2.convert_worker import import_hf

    folder = Path(work)
    copy_tokenizer(Path(hf), folder / "tokenizer")
    try:
        import_hf(hf, str(folder / "tokenizer"), str(folder / "nemo"), "LlamaModel", config_class)
    except UsageError as error:
        return str(error)
    raise AssertionError("not refused")
