"""Record the output of Megatron-LM's own tool for `traps.jsonl`, and the tokenizer and traps themselves.

    python tests/golden/tokens/record.py inputs
    python tests/golden/tokens/record.py outputs MEGATRON_CHECKOUT

`outputs` runs the checkout's `tools/preprocess_data.py --append-eod` for each variant of the tokenizer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parents[1]))
VARIANTS = ("small", "large", "bos", "prefix", "nfc", "merged")
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def traps() -> list[bytes]:
    """Return lines that have tripped up tools, each valid for Megatron-LM's."""

    def line(text: object, **more: object) -> bytes:
        return json.dumps({"text": text, **more}, ensure_ascii=False).encode()

    return [
        line("The quick brown fox jumps over the lazy dog."),
        line(""),
        line("a"),
        line("<|end|>"),
        line("one <|end|> two<|begin|>three <|end|><|end|> <|END|> <|end"),
        line("𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🙂 👩‍👩‍👧‍👦 🇹🇼 𠀀𪚥 naïve e\u0301 é ﬁ"),
        json.dumps({"text": "surrogate pairs 🙂 𠀀 and \u0000 and \u2028"}).encode(),
        line("windows\r\nline\rends\r\n\r\n"),
        line("   spaces  and\ttabs \n\n\n newlines   "),
        line("古者，聖人以天下為己任。\n「學而時習之，不亦說乎？」"),
        line("12345678901234567890 3.14 1e-5 ١٢٣"),
        line(["two sequences", "in one document"]),
        line(["", "the first of these is empty", ""]),
        line([]),
        line([""]),
        line("other keys", id=7, meta={"nested": [1, None, True]}, big=10**30),
        b'{"text": "twice the same key", "text": "the last one counts"}',
        b'{"id": NaN, "text": "not a number beside it", "x": -Infinity}',
        b'  {"text" : "spaces around"}  \t',
        line("x" * 5000 + " " + "ab" * 3000 + "\n" * 100),
        line("don't DON'T it'S we'll ''s"),
        line(""),
        line("no line end after this"),
    ]


def record_inputs() -> None:
    """Train the tokenizer on this repository's source, and write the traps with LF and with CRLF."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = sorted((ROOT / "src").rglob("*.py"))[:40]
    tokenizer.train_from_iterator((p.read_text(encoding="utf-8") for p in sources), trainer)
    folder = HERE / "tokenizer"
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    lines = traps()
    (HERE / "traps.jsonl").write_bytes(b"\n".join(lines))
    (HERE / "traps_crlf.jsonl").write_bytes(b"\r\n".join(lines) + b"\r\n")


def record_outputs(checkout: str) -> None:
    """Run the tool for each variant."""
    from tokens_support import variant

    runner = ROOT / "benchmarks" / "tokenize" / "megatron_tool.py"
    for kind in VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            tokenizer = variant(kind, Path(work) / "tokenizer")
            prefix = HERE / kind
            command = [
                sys.executable, str(runner), checkout, "preprocess_data.py", "--input", str(HERE /
                "traps.jsonl"), "--output-prefix", str(prefix), "--tokenizer-type", "HuggingFaceTokenizer",
                "--tokenizer-model", str(tokenizer), "--append-eod", "--workers", "1",
            ]  # fmt: skip
            subprocess.run(command, check=True, timeout=300)


if __name__ == "__main__":
    if sys.argv[1] == "inputs":
        record_inputs()
    else:
        record_outputs(sys.argv[2])
