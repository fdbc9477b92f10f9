"""Measure how fast samples are masked, compared with transformers' collator on the same samples, in turns.

python benchmarks/masking.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from nemolaunch.data.masking import Masking

LENGTH, SAMPLES, ROUNDS = 8192, 20, 15
TOKENIZER = Path(__file__).parents[1] / "examples" / "tokenizer"


def main() -> None:
    """Print tokens per second of one process, and the ratio to the peer."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, mask_token="<|reserved_special_token_0|>")
    samples = np.random.default_rng(0).integers(20, len(tokenizer), (SAMPLES, LENGTH))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    # The special tokens mask is precomputed: without it, the collator inspects each token in Python
    rows = [
        {
            "input_ids": torch.from_numpy(sample),
            "special_tokens_mask": torch.from_numpy(np.isin(sample, (0, 1, 2))),
        }
        for sample in samples
    ]
    work: dict[str, Callable[[], object]] = {
        "transformers' collator (80/10/10)": lambda: [collator([dict(row)]) for row in rows]
    }
    for policy in ("bert", "mask", "span"):
        work[f"nemolaunch, {policy}"] = _with(_masking(policy, tokenizer), samples)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    peer = statistics.median(next(iter(seconds.values())))
    print(f"{SAMPLES} samples of {LENGTH} tokens, one thread, medians of {ROUNDS}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:<36} {SAMPLES * LENGTH / median / 1e6:6.1f} M tokens/s  {peer / median:5.2f}")


def _masking(policy: str, tokenizer: AutoTokenizer) -> Masking:
    return Masking(
        probability=0.3,
        replacement=policy,
        mask_token=tokenizer.mask_token_id,
        vocab_size=len(tokenizer),
        protected=(0, 1, 2),
        seed=1234,
    )


def _with(masking: Masking, samples: np.ndarray) -> Callable[[], object]:
    return lambda: [masking(sample, sample=number) for number, sample in enumerate(samples)]


if __name__ == "__main__":
    main()
