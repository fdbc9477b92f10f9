"""Masked predictions of a small random model, compared with transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import write_llama, write_texts

from nemolaunch.checkpoint.hf.bidirectional import make_bidirectional
from nemolaunch.cli.commands import eval as eval_command
from nemolaunch.cli.commands import fill_mask, generate
from nemolaunch.tokenizer.vocabulary import name_mask_token

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "examples" / "tokenizer"
CORPUS = ROOT / "examples" / "corpus"
MASK = "<|reserved_special_token_5|>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bidirectional Llama with two layers, as it is exported."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_llama(folder, extra_rows=64, initializer_range=0.3)
    make_bidirectional(folder)
    name_mask_token(folder, MASK)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl", 500)


def loaded(model: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    options = {"dtype": torch.float32, "trust_remote_code": True}
    return AutoModelForMaskedLM.from_pretrained(model, **options).eval(), AutoTokenizer.from_pretrained(model)


def told(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert eval_command.main(["mlm", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_loss_and_accuracy_are_those_computed_by_hand(
    model: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    import torch

    from nemolaunch.data.masking import Masking

    found = told(capsys, model, "--data", texts, "--mlm-probability", "0.2", "--seed", "3")
    lm, tokenizer = loaded(model)
    masking = Masking(
        probability=0.2, replacement="mask", mask_token=tokenizer.mask_token_id, vocab_size=len(tokenizer),
        protected=(0, 1, 2), seed=3,
    )  # fmt: skip
    nats, right, count, number = 0.0, 0, 0, 0
    for line in texts.read_text("utf-8").splitlines():
        ids = tokenizer(json.loads(line)["text"])["input_ids"]
        for start in range(0, len(ids), 64):
            window = torch.tensor(ids[start : start + 64])
            made = masking(window.numpy(), sample=number)
            labels = torch.where(torch.from_numpy(made.predicted), window, -100)
            with torch.inference_mode():
                out = lm(torch.from_numpy(made.inputs)[None], labels=labels[None])
            nats += float(out.loss) * int(np.sum(made.predicted))
            right += int((out.logits[0].argmax(-1) == labels).sum())
            count += int(np.sum(made.predicted))
            number += 1
    assert (found["masked_tokens"], found["documents"], found["context_length"]) == (count, 2, 64)
    assert found["masked_loss"] == pytest.approx(nats / count, rel=1e-5)
    assert found["masked_perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert found["masked_accuracy"] == right / count


def test_the_batch_changes_nothing_and_the_seed_does(
    model: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = told(capsys, model, "--data", texts)
    several = told(capsys, model, "--data", texts, "--batch-size", 5)
    other = told(capsys, model, "--data", texts, "--seed", 1)
    assert several["masked_loss"] == pytest.approx(one["masked_loss"], rel=1e-6)
    assert several["masked_accuracy"] == one["masked_accuracy"]
    assert other["masked_loss"] != one["masked_loss"]
    assert one["mlm_probability"] == 0.3


def test_masks_are_filled_as_by_transformers(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import FillMaskPipeline

    words = ["--text", "It was a [MASK] morning", "--text", "春眠<mask>覺曉,處處[MASK]啼鳥", "--top-k", "3"]
    assert fill_mask.main([str(model), *words, "--json"]) == 0
    english, chinese = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    lm, tokenizer = loaded(model)
    pipeline = FillMaskPipeline(lm, tokenizer, top_k=3)
    # the space is part of the masked token
    (expected,) = [pipeline(f"It was a{MASK} morning")]
    assert [c["id"] for c in english["places"][0]] == [row["token"] for row in expected]
    for candidate, row in zip(english["places"][0], expected, strict=True):
        assert candidate["probability"] == pytest.approx(row["score"], rel=1e-4)
    assert english["filled"].startswith("It was a")
    assert english["filled"].endswith(" morning")
    assert len(chinese["places"]) == 2
    by_place: Any = pipeline(f"春眠{MASK}覺曉,處處{MASK}啼鳥")
    assert [c["id"] for c in chinese["places"][1]] == [row["token"] for row in by_place[1]]


def test_a_bert_model_of_transformers_is_scored_too(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    name_mask_token(tmp_path, MASK)
    assert told(capsys, tmp_path, "--data", texts)["masked_loss"] == pytest.approx(math.log(8192), rel=0.05)


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (eval_command, ["mlm", "MODEL", "--data", "TEXTS", "--mlm-probability", "1"], "--mlm-probability 1"),
        (eval_command, ["ppl", "MODEL", "--data", "TEXTS"], "predicts masked tokens, not the next token"),
        (eval_command, ["lm", "MODEL", "--tasks", "hellaswag"], "predicts masked tokens, not the next token"),
        (generate, ["MODEL", "--prompt", "It was"], "nemolaunch fill-mask"),
        (fill_mask, ["MODEL", "--text", "It was a morning"], "has no masked position: mark one with [MASK]"),
        (fill_mask, ["MODEL", "--text", "[MASK]", "--top-k", "0"], "--top-k 0"),
        (fill_mask, ["MODEL", "--text", "[MASK] " * 70], "exceed the context of 64"),
    ],
)
def test_mistakes_are_reported(
    command: Any, words: list[str], said: str, model: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"MODEL": str(model), "TEXTS": str(texts)}.get(word, word) for word in words]
    assert command.main(given) in (1, 2)
    assert said in capsys.readouterr().err


def test_causal_models_and_code_that_is_not_ours_are_refused(
    model: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(model, changed)
    with open(changed / "modeling_bidirectional.py", "a") as file:
        file.write("raise SystemExit('it ran')\n")
    assert eval_command.main(["mlm", str(changed), "--data", str(texts)]) == 2
    assert "is not run for safety" in capsys.readouterr().err
    causal = tmp_path / "causal"
    shutil.copytree(model, causal)
    config = json.loads((causal / "config.json").read_text())
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    config.pop("auto_map")
    (causal / "config.json").write_text(json.dumps(config))
    assert eval_command.main(["mlm", str(causal), "--data", str(texts)]) == 2
    assert "predicts the next token" in capsys.readouterr().err
