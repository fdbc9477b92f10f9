"""Bidirectional models as Hugging Face folders: the same numbers as NeMo's, and never a causal model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.small_models import write_model

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.hf import bidirectional

ROUNDING = 1e-6  # of float32 logits up to about 1
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True, "rope_scaling": LLAMA3}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 128}),
    "mixtral": ("mixtral", {"num_local_experts": 8}),
    "gemma": ("gemma", {"head_dim": 256}),
    "starcoder2": ("starcoder2", {}),
    "nemotron": ("nemotron", {}),
}


@pytest.mark.parametrize(("kind", "changes"), MODELS.values(), ids=MODELS)
def test_round_trip(fork_server: ForkServer, tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    source, nemo, back = (tmp_path / name for name in ("source", "nemo", "back"))
    write_model(source, kind, **changes)
    bidirectional.make_bidirectional(source)
    convert(source, nemo, "nemo2")
    convert(nemo, back, "hf")
    assert_same_tensors(tensors(source), tensors(back))
    before, after = (json.loads((path / "config.json").read_text()) for path in (source, back))
    assert {name: after.get(name) for name in before} == before
    (logits,) = fork_server.run("nemo2.convert_job:logits", {"hf": str(back), "nemo": str(nemo)})
    assert logits["difference"] <= ROUNDING * max(1.0, logits["size"])


def test_the_first_token_sees_the_last(tmp_path: Path) -> None:
    from nemolaunch.nemo2.logits import hf_logits

    write_model(tmp_path, "llama")
    causal = [hf_logits(tmp_path, [5, 6, 7, last])[0] for last in (8, 9)]
    assert causal[0].equal(causal[1])
    bidirectional.make_bidirectional(tmp_path)
    both = [hf_logits(tmp_path, [5, 6, 7, last])[0] for last in (8, 9)]
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_nothing_loads_it_as_a_causal_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    write_model(tmp_path, "llama")
    bidirectional.make_bidirectional(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["is_causal"] is False
    with pytest.raises(ValueError, match="LlamaBidirectionalConfig"):
        AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForMaskedLM.from_pretrained(tmp_path, trust_remote_code=False)
    config["is_causal"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="both sides"):
        AutoModelForMaskedLM.from_pretrained(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_changes_nothing_and_labels_are_not_shifted(tmp_path: Path, attention: str) -> None:
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM

    write_model(tmp_path, "llama")
    bidirectional.make_bidirectional(tmp_path)
    options: dict[str, Any] = {"trust_remote_code": True, "attn_implementation": attention}
    model = AutoModelForMaskedLM.from_pretrained(tmp_path, **options).eval()
    ids = torch.randint(2, 384, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:, 8:] = 0
    labels = torch.where(torch.arange(12) % 3 == 0, ids, -100)
    with torch.no_grad():
        short, padded = model(ids[:, :8]).logits, model(ids, attention_mask=mask).logits
        out = model(ids, labels=labels)
        states = AutoModel.from_pretrained(tmp_path, **options).eval()(ids).last_hidden_state
    torch.testing.assert_close(padded[:, :8], short)
    by_hand = torch.nn.functional.cross_entropy(out.logits[:, ::3].flatten(0, 1), ids[:, ::3].flatten())
    torch.testing.assert_close(out.loss, by_hand)
    torch.testing.assert_close(model.lm_head(states), out.logits)


def test_a_family_that_transformers_has_no_such_model_of_is_refused(tmp_path: Path) -> None:
    from nemolaunch.errors import NemolaunchError

    write_model(tmp_path, "gpt_bigcode", num_key_value_heads=1)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(NemolaunchError, match=r"bidirectional attention.*gpt_bigcode"):
        bidirectional.make_bidirectional(tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def test_metas_layout_which_cannot_say_it_is_refused(tmp_path: Path) -> None:
    """Without this the weights would come out as those of a causal Llama."""
    from nemolaunch.errors import NemolaunchError

    source, nemo = tmp_path / "source", tmp_path / "nemo"
    write_model(source, "llama")
    bidirectional.make_bidirectional(source)
    convert(source, nemo, "nemo2")
    for checkpoint in (source, nemo):
        with pytest.raises(NemolaunchError, match="llama_bidirectional"):
            convert(checkpoint, tmp_path / "meta", "meta")
        assert not (tmp_path / "meta").exists()


def test_the_model_card_says_how_to_fill_masks(tmp_path: Path) -> None:
    from nemolaunch.publish.card import card, read_config

    write_model(tmp_path, "llama")
    assert "pipeline_tag: text-generation" in card("me/model", read_config(tmp_path), parameters=1)
    bidirectional.make_bidirectional(tmp_path)
    text = card("me/model", read_config(tmp_path), parameters=1)
    assert "pipeline_tag: fill-mask" in text
    assert "AutoModelForMaskedLM" in text
    assert "AutoModelForCausalLM" not in text
