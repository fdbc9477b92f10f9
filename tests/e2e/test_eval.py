"""Generation, perplexity, benchmarks and chat with a small random Llama."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import write_llama, write_texts

from nemolaunch.cli.commands import eval as eval_command
from nemolaunch.cli.commands import generate

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "examples" / "tokenizer"
CORPUS = ROOT / "examples" / "corpus"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a Hugging Face model with two layers, a context of 64 tokens and the sample tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    return write_llama(
        tmp_path_factory.mktemp("model") / "tiny",
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a few real documents, English and Chinese."""
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl", 600)


def told(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Return the JSON output of `nemolaunch eval`."""
    assert eval_command.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def by_hand(model: Path, texts: Path) -> tuple[float, int]:
    """Return nats and tokens from transformers' own loss, with each document in one window after end-of-text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    nats, count = 0.0, 0
    for line in texts.read_text(encoding="utf-8").splitlines():
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(json.loads(line)["text"])["input_ids"]]])
        with torch.inference_mode():
            nats += float(lm(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return nats, count


def test_perplexity_is_that_of_transformers(
    model: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "ppl", model, "--data", texts, "--context-length", 4096)
    nats, count = by_hand(model, texts)
    num_bytes = sum(len(json.loads(line)["text"].encode()) for line in texts.read_text("utf-8").splitlines())
    assert found["tokens"] == count
    assert found["bytes"] == num_bytes
    assert found["documents"] == 2
    assert found["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)


def test_windows_count_every_token_once_whatever_the_stride_and_batch(
    model: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = told(capsys, "ppl", model, "--data", texts)
    strided = told(capsys, "ppl", model, "--data", texts, "--stride", 16)
    batched = told(capsys, "ppl", model, "--data", texts, "--stride", 16, "--batch-size", 5)
    assert (whole["context_length"], whole["stride"]) == (64, 64)
    assert whole["tokens"] == strided["tokens"] == batched["tokens"]
    assert batched["nats_per_token"] == pytest.approx(strided["nats_per_token"], rel=1e-6)
    assert strided["nats_per_token"] != whole["nats_per_token"]


def test_tokenised_data_and_datasets_score_like_their_text(
    model: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    whole = told(capsys, "ppl", model, "--data", texts)
    words = ["--hf-tokenizer", str(model), "--data-prefix", "t", "--input-dir", str(texts)]
    from nemolaunch.cli.commands import tokenize

    assert tokenize.main([*words, "--output-dir", str(tmp_path)]) == 0
    capsys.readouterr()
    indexed = told(capsys, "ppl", model, "--data", tmp_path / "preprocessed" / "t_text_document")
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "set"))
    saved = told(capsys, "ppl", model, "--data", tmp_path / "set", "--split", "test")
    folder = told(capsys, "ppl", model, "--data", tmp_path / "preprocessed")
    for other in (indexed, folder, saved):
        for key in ("tokens", "bytes", "documents", "perplexity"):
            assert other[key] == whole[key]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere.jsonl"], "--data nowhere.jsonl: no such file"),
        (
            ["--data", "no-such-set"],
            "is not a PREFIX of .idx, a file or a folder, and cannot be loaded as a dataset",
        ),
        (
            ["--data", "TEXTS", "--stride", "100", "--context-length", "64"],
            "--stride 100: must be between 1 and the context length, 64",
        ),
        (["--data", "TEXTS", "--text-key", "body"], "no key 'body'; it has 'text'"),
        (["--data", "TEXTS", "--batch-size", "0"], "--batch-size 0"),
    ],
)
def test_mistakes_are_reported(
    model: Path,
    texts: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = [str(texts) if word == "TEXTS" else word for word in words]
    assert eval_command.main(["ppl", str(model), *given]) in (1, 2)
    assert said in capsys.readouterr().err


def continued(capsys: pytest.CaptureFixture[str], model: Path, *words: str) -> list[dict[str, Any]]:
    assert generate.main([str(model), *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_greedy_is_the_most_likely_token_each_time(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (made,) = continued(capsys, model, "--prompt", "It was", "--greedy", "--max-new-tokens", "8")
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = tokenizer("It was")["input_ids"]
    begin = len(ids)
    for _ in range(8):
        with torch.inference_mode():
            ids.append(int(lm(torch.tensor([ids])).logits[0, -1].argmax()))
    assert made["text"] == tokenizer.decode(ids[begin:], skip_special_tokens=True)


def test_a_seed_gives_a_prompt_the_same_text_whatever_the_other_prompts(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = continued(capsys, model, "--prompt", "春眠不覺曉", "--prompt", "It was", "--seed", "7")
    (alone,) = continued(capsys, model, "--prompt", "It was", "--seed", "7")
    (other,) = continued(capsys, model, "--prompt", "It was", "--seed", "8")
    assert two == alone
    assert other["text"] != alone["text"]
    assert one["prompt"] == "春眠不覺曉"


def test_a_prompt_beyond_the_context_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([str(model), "--prompt", "It was", "--max-new-tokens", "64"]) == 2
    assert "exceed the context of 64 tokens" in capsys.readouterr().err


TASK = """\
task: continues
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{start}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def test_benchmarks_give_what_lm_eval_gives_by_hand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = json.loads((CORPUS / "en.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"].split()
    rows = []
    for i in range(20):
        at = 30 * i
        choices = [" " + " ".join(words[at + k : at + k + 3]) for k in (8, 12, 17)]
        rows.append({"start": " ".join(words[at : at + 8]), "choices": choices, "answer": i % 3})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "continues.yaml").write_text(TASK.format(file=tmp_path / "data.jsonl"))
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model}"]
    command += [
        "--tasks",
        "continues",
        "--include_path",
        str(tmp_path),
        "--device",
        "cpu",
        "--batch_size",
        "4",
    ]
    command += ["--output_path", str(tmp_path / "hand")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **cache})
    (file,) = (tmp_path / "hand").rglob("results*.json")
    expected = json.loads(file.read_text())["results"]["continues"]

    for name, value in cache.items():
        monkeypatch.setenv(name, value)
    found = told(capsys, "lm", model, "--tasks", "continues", "--include-path", tmp_path, "--batch-size", "4")
    for metric in ("acc", "acc_norm"):
        assert found["tasks"]["continues"][metric] == expected[f"{metric},none"]
        assert found["tasks"]["continues"][f"{metric}_stderr"] == expected[f"{metric}_stderr,none"]
    assert json.loads(model.with_name("tiny.lm-eval.json").read_text()) == found


def test_an_unknown_benchmark_is_reported_with_similar_names(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eval_command.main(["lm", str(model), "--tasks", "hellaswagg"]) == 2
    assert "Did you mean hellaswag" in capsys.readouterr().err


def chatting(model: Path, *words: str) -> subprocess.Popen[str]:
    """Start `nemolaunch chat` with pipes instead of a terminal."""
    command = [sys.executable, "-m", "nemolaunch.cli.main", "chat", str(model), "--greedy", *words]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_chat_keeps_the_history_until_it_is_reset(model: Path) -> None:
    """Check that a repeated turn gets the same reply only in a new conversation."""
    process = chatting(model, "--max-new-tokens", "6")
    out, err = process.communicate("It was\nIt was\n/new\nIt was\n/exit\n")
    first, second, again = out.splitlines()
    assert process.returncode == 0
    assert first == again
    assert second != first
    assert "no chat template" in err


def test_ctrl_c_interrupts_a_reply_and_not_the_program(tmp_path: Path, model: Path) -> None:
    """Check that a reply that would take minutes is interrupted and the next input is handled."""
    long = tmp_path / "long"
    long.mkdir()
    for file in model.iterdir():
        (long / file.name).write_bytes(file.read_bytes())
    config = json.loads((long / "config.json").read_text())
    (long / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": 100_000, "eos_token_id": None})
    )
    process = chatting(long, "--max-new-tokens", "90000")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("It was\n")
    process.stdin.flush()
    process.stdout.read(1)  # the reply has begun
    process.send_signal(signal.SIGINT)
    _, err = process.communicate("/exit\n")
    assert process.returncode == 0
    assert "interrupted" in err
