"""`nemolaunch convert`: convert a checkpoint to another format."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.trust_flag import add_trust_flag
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.waiting import Waiting
from nemolaunch.errors import UsageError
from nemolaunch.system.stop_signals import exit_on_signals

ABOUT = {
    "nemo2": "convert a Hugging Face model to a NeMo 2 checkpoint",
    "hf": "convert a NeMo 2 checkpoint to a Hugging Face model",
}
EXAMPLES = {
    "nemo2": "{prog} model/ nemo2/",
    "hf": "{prog} runs/pretraining/checkpoints/NAME-last exported/",
    None: "{prog} runs/pretraining/checkpoints/NAME-last exported/ --to hf\n{prog} org/model nemo2/ --to nemo2",
}
TARGETS = ("hf", "nemo2", "bridge", "megatron-lm", "torch", "meta", "safetensors", "dcp")
VERIFY = {
    "full": "compare every bit of every tensor, the configuration, the tokenizer, and both models' logits if possible",
    "bits": "the same without logits",
    "none": "compare nothing",
}


def parser(to: str | None = None, prog: str = "nemolaunch convert") -> argparse.ArgumentParser:
    """Return the command's parser; `to` fixes the target format, as in the scripts of `ckpt_conversion/`."""
    about = (
        ABOUT[to]
        if to
        else "convert a checkpoint to another format; the source's format is detected automatically"
    )
    p = Parser(
        prog=prog,
        example=EXAMPLES[to].format(prog=prog),
        description=f"{about[0].upper()}{about[1:]}. Needs no GPU, no NeMo, and little memory. "
        "The result is compared with the source and written atomically.",
    )
    add = p.add_argument
    add(
        "paths",
        nargs="*",
        metavar="SRC DST",
        help="the checkpoint, or a run folder for its newest one, and the folder or file to write",
    )
    add("--source", metavar="DIR|ID", help="SRC; a Hub id like org/model is downloaded (HF_TOKEN is used)")
    add("--output-path", "--output", "-o", metavar="DIR", type=Path, help="DST")
    if to is None:
        add("--to", choices=TARGETS, help="format to write (default: nemo2 if SRC is hf, else hf)")
    add("--verify", choices=VERIFY, default="full", help="; ".join(f"{k}: {v}" for k, v in VERIFY.items()))
    add("--no-verify", dest="verify", action="store_const", const="none", help="the same as --verify none")
    add("--overwrite", action="store_true", help="replace a checkpoint at DST")
    add("--weights-only", action="store_true", help="drop the optimizer state and other training state")
    add(
        "--tokenizer",
        "--hf-tokenizer",
        metavar="DIR",
        type=Path,
        help="folder with the tokenizer, if the checkpoint does not have it",
    )
    add_trust_flag(p)
    if to is None:
        add(
            "--config-from",
            "--like",
            metavar="DIR",
            type=Path,
            help="folder with the model's config.json (or params.json) and tokenizer, if SRC has only tensors: "
            "torch.save, safetensors or a distributed checkpoint",
        )
    if to in (None, "nemo2"):
        add("--model-name", metavar="CLASS", help="NeMo model class that SRC must have (default: detected)")
        add("--model-config-name", metavar="CLASS", help="NeMo config class whose sizes SRC must have")
    add("--json", action="store_true", help="print the report as JSON")
    return p


def main(argv: list[str] | None = None, to: str | None = None, prog: str = "nemolaunch convert") -> int:
    """Run the command under any of its names, and return the exit code."""
    return guarded(lambda words: _main(words, to, prog))(argv)


def _main(argv: list[str] | None, to: str | None, prog: str) -> int:
    from nemolaunch.api.convert import convert
    from nemolaunch.cli.views.progress import byte_bar

    options = parser(to, prog).parse_args(argv)
    exit_on_signals()
    source, output = _paths(options)
    with Waiting("converting") as wait:
        report = convert(
            source,
            output,
            to=to or options.to,
            verify=options.verify,
            overwrite=options.overwrite,
            weights_only=options.weights_only,
            tokenizer=options.tokenizer,
            config_from=getattr(options, "config_from", None),
            model_name=getattr(options, "model_name", None),
            model_config_name=getattr(options, "model_config_name", None),
            trust_remote_code=options.trust_remote_code,
            tell=wait.over(_say),
            progress=wait.around(byte_bar),
        )
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0


def _paths(options: argparse.Namespace) -> tuple[str, Path]:
    given = list(options.paths)
    source = options.source or (given.pop(0) if given else None)
    output = options.output_path or (Path(given.pop(0)) if given else None)
    if source is None or output is None or given:
        raise UsageError("expected a checkpoint and where to write: SRC DST, or --source and --output-path")
    return source, output


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
