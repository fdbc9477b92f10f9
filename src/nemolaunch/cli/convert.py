"""`nemolaunch convert`: between Hugging Face and NeMo 2 checkpoints."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from nemolaunch.cli.arguments import Parser
from nemolaunch.cli.render import guarded
from nemolaunch.errors import UsageError

DIRECTIONS = {
    "nemo2": "convert a Hugging Face model to a NeMo 2 checkpoint",
    "hf": "convert a NeMo 2 checkpoint to a Hugging Face model",
}


def parser(to: str | None = None, prog: str = "nemolaunch convert") -> argparse.ArgumentParser:
    """Flags of the command; `to` fixes the direction, as the scripts in `ckpt_conversion/` do."""
    about = DIRECTIONS[to] if to else "convert a checkpoint between Hugging Face and NeMo 2"
    p = Parser(
        prog=prog,
        example=f"{prog} --source {'model/' if to == 'nemo2' else 'runs/pretraining/checkpoints/NAME-last'} "
        f"--output-path {'nemo2/' if to == 'nemo2' else 'exported/'}",
        description=f"{about[0].upper()}{about[1:]}. Needs no GPU. The result appears whole or not at all.",
    )
    into = to is None or to == "nemo2"
    source = {
        "nemo2": "Hugging Face model folder, or hub id (HF_TOKEN is read from the environment)",
        "hf": "NeMo 2 checkpoint: the folder with context/ and weights/",
        None: "checkpoint folder, or hub id of a Hugging Face model",
    }[to]
    p.add_argument("--source", required=True, metavar="DIR|ID" if into else "DIR", help=source)
    p.add_argument("--output-path", required=True, metavar="DIR", type=Path, help="folder to write")
    if to is None:
        p.add_argument("--to", choices=DIRECTIONS, help="format to write (default: the other one)")
    if into:
        p.add_argument(
            "--model-name", metavar="CLASS", help="NeMo model class the source must be (default: found)"
        )
        p.add_argument(
            "--model-config-name", metavar="CLASS", help="NeMo config class whose sizes it must have"
        )
    p.add_argument("--overwrite", action="store_true", help="replace a checkpoint at --output-path")
    p.add_argument(
        "--log", metavar="FILE", type=Path, help="keep what NeMo prints here (default: only if it fails)"
    )
    return p


def main(argv: list[str] | None = None, to: str | None = None, prog: str = "nemolaunch convert") -> int:
    """The command under any of its names. Returns the exit code."""
    return guarded(lambda words: _main(words, to, prog))(argv)


def _main(argv: list[str] | None, to: str | None, prog: str) -> int:
    options = parser(to, prog).parse_args(argv)
    # An ordinary `kill` then removes what is half written, as Ctrl-C does
    signal.signal(signal.SIGTERM, _stop)
    if (to or options.to or _other_format(options.source)) == "nemo2":
        _to_nemo2(options)
    else:
        _to_hf(options)
    return 0


def _other_format(source: str) -> str:
    """What a source can be converted to: a folder with weights/ is a NeMo 2 checkpoint."""
    folder = Path(source).expanduser()
    return "hf" if (folder / "weights").is_dir() or folder.name == "weights" else "nemo2"


def _to_nemo2(options: argparse.Namespace) -> None:
    from nemolaunch import catalogue
    from nemolaunch.checkpoint import hub
    from nemolaunch.checkpoint.publish import check_free
    from nemolaunch.nemo2.convert import convert_hf_to_nemo2

    model, config = options.model_name, options.model_config_name
    if config and not model:
        raise UsageError("--model-config-name is given without --model-name; give both or neither")
    if model and config:
        catalogue.conversion_classes(model, config)
    check_free(options.output_path, overwrite=options.overwrite)  # before a download of many gigabytes
    convert_hf_to_nemo2(
        hub.local_folder(options.source),
        options.output_path,
        model_class=model,
        config_class=config,
        overwrite=options.overwrite,
        say=_Progress(),
        log=options.log,
    )


def _to_hf(options: argparse.Namespace) -> None:
    from nemolaunch.nemo2.convert import convert_nemo2_to_hf

    if getattr(options, "model_name", None) or getattr(options, "model_config_name", None):
        raise UsageError("--model-name and --model-config-name belong to --to nemo2")
    convert_nemo2_to_hf(
        Path(options.source),
        options.output_path,
        overwrite=options.overwrite,
        say=_Progress(),
        log=options.log,
    )


class _Progress:
    """One line a step on stderr, with the seconds since the start."""

    def __init__(self) -> None:
        self.begin = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self.begin:6.1f} s  {text}", file=sys.stderr, flush=True)


def _stop(*_: Any) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
