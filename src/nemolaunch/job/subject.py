"""What is trained, on what, and what it learns.

Each field carries its command-line form; see `nemolaunch.job.fields.flag`. `None` means "not given".
"""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.job.fields import flag


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained, and from which weights."""

    model_name: str = flag(
        "",
        "NeMo 2 recipe, built-in configuration, YAML file, or hf: the architecture of --hf-model-id (required)",
        short="-M",
        aliases=("--model",),
    )
    hf_model_id: str | None = flag(
        None,
        "tokenizer: Hugging Face id or local folder (default: the one recorded with the data)",
        aliases=("--tokenizer", "--hf-tokenizer"),
    )
    nemo_model: str | None = flag(
        None,
        "checkpoint of the backend, NeMo 2 or Megatron-Bridge, to take the initial weights from",
        aliases=("--pretrained-checkpoint",),
        metavar="DIR",
    )
    trust_remote_code: bool = flag(
        False,
        "run the tokenizer's own code, if its folder has any, and load checkpoints that name more than NeMo's own do; "
        "such code may do anything on this machine",
    )
    hf_token: str | None = flag(
        None,
        "Hugging Face token, kept in memory only; exporting HF_TOKEN also keeps it out of the process list",
        metavar="TOKEN",
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the model is trained on."""

    dataset_dir: tuple[str, ...] = flag(
        (),
        "folders or prefixes of .bin/.idx files, or a blend: a:0.7,b:0.3, YAML, or Megatron's 0.7 a 0.3 b (required)",
        aliases=("--dataset-path", "--data"),
        metavar="PATH",
    )
    data_mode: str = flag(
        "indexed",
        "what --dataset-dir holds: .bin/.idx files, or text (local files or hub datasets) tokenised on the fly",
        choices=("indexed", "stream"),
    )
    blend_by: str | None = flag(
        None,
        "whether blend weights are shares of tokens or of rows, i.e. documents (default: tokens, or the YAML file's)",
        choices=("tokens", "rows"),
    )
    seq_length: int | None = flag(None, "sequence length in tokens (default: the model's)")
    split: str | None = flag(
        None,
        "shares of documents for training, validation and test (default: 998,1,1; 1,0,0 if there are validation "
        "sets)",
    )
    validation_data: tuple[str, ...] = flag(
        (),
        "validation sets, each evaluated and logged by its name: a prefix of .bin/.idx files, or a folder, whose "
        "files are one set; may be repeated",
        metavar="NAME=PATH",
    )
    num_workers: int = flag(0, "data loading processes per rank (default for streams: 2)")
    index_mapping_dir: str | None = flag(
        None,
        "folder for the dataset's index cache, shared by all nodes (default: next to the data)",
        metavar="DIR",
    )
    reset_attention_mask: bool = flag(
        False, "let tokens attend to their own document only (documents end with the tokenizer's eos_token)"
    )
    reset_position_ids: bool = flag(False, "restart learned positions with each document")
    eod_mask_loss: bool = flag(
        False, "leave predictions at a document's end, of the next document's first token, out of the loss"
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the model learns."""

    objective: str = flag(
        "clm",
        "clm: predict the next token; mlm: predict masked tokens from both sides (always used for BERT)",
        choices=("clm", "mlm"),
    )
    mlm_probability: float = flag(0.3, "share of tokens to mask, between 0 and 1")
    mlm_replacement: str = flag(
        "mask",
        "replacement of masked tokens; mask: the mask token; bert: the mask token for 80 %, a random token for 10 %, "
        "the token itself for 10 %; span: the mask token, over contiguous spans",
        choices=("mask", "bert", "span"),
    )
    mlm_span_length: float = flag(3.0, "mean span length in tokens with --mlm-replacement span")
    mask_token: str | None = flag(
        None, "mask token, e.g. a reserved token (default: the tokenizer's)", metavar="TOKEN"
    )
    moe_z_loss_coeff: float | None = flag(
        None,
        "weight of the loss that keeps the logits of expert routers small, e.g. 1e-3 (default: the recipe's)",
    )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How rows are read, with --data-mode stream."""

    text_key: str = flag(
        "text",
        "key or column that holds the text, for sources that do not set one",
        aliases=("--text-column",),
    )
    stopping_strategy: str = flag(
        "fixed-tokens",
        "when to stop: after --max-steps or --max-tokens, or earlier once the first source, or every source, is "
        "exhausted",
        choices=("fixed-tokens", "first-exhausted", "all-exhausted"),
    )
    shuffle_buffer: int = flag(100_000, "number of rows each reader shuffles at a time; 1 keeps their order")
    shard_shuffle: bool = flag(True, "shuffle the order of files")
    stream_readers: int | None = flag(
        None,
        "number of fixed partitions of the rows, spread over data-parallel ranks and workers (default: at least 4 "
        "per rank)",
    )
    data_resume: str = flag(
        "exact",
        "which rows a restart reads; exact: continue with the next row; fresh: a new order with a new seed",
        choices=("exact", "fresh"),
    )
    bad_data: str = flag(
        "skip-rows",
        "what to do about bad data; skip-rows: skip rows without text; stop: end the run; skip: also skip damaged "
        "files and row groups",
        choices=("skip-rows", "stop", "skip"),
    )
    data_ledger: bool = flag(True, "record which rows were read, for `nemolaunch data-audit`")
