"""Train the tokenizers of the examples: byte-level BPE on ``examples/corpus``, or on the text of ``make demo``.

    python examples/train_tokenizer.py --output examples/tokenizer
    python examples/train_tokenizer.py --corpus examples/bible --vocab-size 4096 --output examples/bible/tokenizer

The same corpus gives the same files, byte for byte. The tokenizer itself adds no special tokens: the end of a
document is marked once, when the data is tokenised.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

# One thread: how ties between equally frequent pairs are broken must not depend on the machine.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"
SPECIAL_TOKENS = [BEGIN, END, PAD, *(f"<|reserved_special_token_{n}|>" for n in range(8))]
# The pre-tokeniser of Llama 3 (tokenizer.json of meta-llama/Meta-Llama-3-8B): digits in groups of three.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def documents(corpus: Path) -> Iterator[str]:
    """Yield the text of each document of the ``*.jsonl`` files in ``corpus``, ordered by file name."""
    for path in sorted(corpus.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line in lines)


def train(corpus: Path, vocab_size: int) -> Tokenizer:
    """Return a tokenizer with ``vocab_size`` entries trained on ``corpus``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(corpus), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three files that ``transformers.AutoTokenizer`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **named,
    }
    contents = {"tokenizer_config.json": config, "special_tokens_map.json": named}
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train on the corpus and write the tokenizer folder."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Train a tokenizer of the examples.")
    parser.add_argument("--corpus", type=Path, default=here / "corpus", help="folder of *.jsonl files")
    parser.add_argument("--output", type=Path, default=here / "tokenizer", help="tokenizer folder to write")
    parser.add_argument("--vocab-size", type=int, default=8192, help="entries (default: 8192)")
    args = parser.parse_args()
    tokenizer = train(args.corpus, args.vocab_size)
    save(tokenizer, args.output)
    print(f"{args.output}: {tokenizer.get_vocab_size()} entries")


if __name__ == "__main__":
    main()
