"""`nemolaunch push`: upload a model folder to the Hugging Face Hub, with a model card."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.units import gigabytes
from nemolaunch.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch push`."""
    p = Parser(
        prog="nemolaunch push",
        description="Upload a Hugging Face model folder: weights, configuration, tokenizer and a model card generated "
        "from the training run. Only files that the repository lacks are sent. HF_TOKEN and HF_ENDPOINT are read from "
        "the environment.",
        example="nemolaunch push hf my-team/llama-60m --tag step-7075 --collection 'small Llamas'",
    )
    add = p.add_argument
    add("folder", metavar="DIR", type=Path, help="model folder, as written by `nemolaunch convert --to hf`")
    add("repository", metavar="REPO", help="OWNER/NAME")
    add("--public", action="store_true", help="make a new repository public")
    add(
        "--run",
        metavar="RUN",
        type=Path,
        help="run folder for the model card (default: the run of the converted checkpoint)",
    )
    add("--tag", metavar="NAME", help="tag of the commit (default: step-N of the checkpoint)")
    add("--collection", metavar="SLUG|TITLE", help="collection to add the model to; a new title creates one")
    add("--license", metavar="ID", help="licence for the model card, such as apache-2.0")
    add("--show-card", action="store_true", help="print the model card without uploading")
    add("--json", action="store_true", help="print the result as JSON")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Upload the model. Return the exit code."""
    options = parser().parse_args(argv)
    if "/" not in options.repository:
        raise UsageError(f"REPO {options.repository!r} has no owner: write OWNER/NAME")
    text, tag = _card(options)
    if options.show_card:
        sys.stdout.write(text)
        return 0
    from nemolaunch.publish.upload import upload

    done = upload(
        options.folder,
        options.repository,
        text,
        public=options.public,
        tag=options.tag or tag,
        collection=options.collection,
        message=f"Upload model{f' at {tag}' if tag else ''}",
    )
    if options.json:
        print(json.dumps(asdict(done)))
        return 0
    sent = gigabytes(done.sent) if done.sent else "nothing new"
    visibility = "private" if done.private else "public"
    print(
        f"{done.url} ({visibility}): {sent} in commit {done.commit[:8]}{f', tag {done.tag}' if done.tag else ''}"
    )
    return 0


def _card(options: argparse.Namespace) -> tuple[str, str | None]:
    """Return the model card and the default tag."""
    from nemolaunch.checkpoint.storage.safetensors import read_header
    from nemolaunch.observe.reader import read_history
    from nemolaunch.publish import card
    from nemolaunch.publish.upload import files_of

    config = card.read_config(options.folder)
    checkpoint = card.checkpoint_of(options.folder)
    steps = card.steps_of(checkpoint)
    run = options.run or card.run_of(checkpoint)
    weights = [read_header(path) for path in files_of(options.folder) if path.suffix == ".safetensors"]
    text = card.card(
        options.repository,
        config,
        parameters=sum(info.numel for header in weights for info in header.values()),
        steps=steps,
        history=read_history(run) if run else None,
        benchmarks=card.benchmarks_of(options.folder, checkpoint),
        licence=options.license,
    )
    return text, f"step-{steps}" if steps is not None else None


if __name__ == "__main__":
    sys.exit(main())
