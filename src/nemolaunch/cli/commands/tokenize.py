"""`nemolaunch tokenize` and `preprocess_data.sh`: text files to Megatron `.bin/.idx`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.parsing.arguments import Parser, normalise_long_options
from nemolaunch.cli.parsing.cluster_profile import add_cluster_flag, read_profile
from nemolaunch.cli.parsing.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.parsing.trust_flag import add_trust_flag
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError
from nemolaunch.job import Job, Launch
from nemolaunch.job.place import NO_CONTAINER
from nemolaunch.system import remote
from nemolaunch.tokenizer.library import cache_folder

DEFAULTS = Launch()
# How the reasons begin that are about a part of a file, not a record
DAMAGED = ("damaged ", "truncated ", "not a ")
# Sub-folder for shards, so that the folder above can be used as --dataset-dir.
SHARDS = "shards"

if TYPE_CHECKING:
    from nemolaunch.tokenization.request import Result, TokenizeRequest
    from nemolaunch.tokenization.sources import InputFile

EXAMPLE = (
    "nemolaunch tokenize --hf-tokenizer examples/tokenizer --data-prefix sample"
    " --input-dir examples/corpus --output-dir data"
)
DESCRIPTION = (
    "Turn text files into OUT/preprocessed/NAME_text_document.bin and .idx, byte for byte as Megatron-LM's"
    " preprocess_data.py --append-eod does. To resume a killed run, run the same command again."
)


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    p = Parser(prog="nemolaunch tokenize", example=EXAMPLE, description=DESCRIPTION)
    add = p.add_argument
    add(
        "--hf-tokenizer",
        "--ht-tokenizer",
        "--tokenizer",
        required=True,
        metavar="DIR",
        help="tokenizer: folder or Hugging Face id",
    )
    add("--data-prefix", required=True, metavar="NAME", help="first part of the output's name")
    add(
        "--input-dir",
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="folders, files or globs; may be URLs",
    )
    add(
        "--output-dir",
        "--output",
        "-o",
        required=True,
        metavar="DIR",
        help="preprocessed/ is created in it; may be a URL",
    )
    add(
        "--staging-dir",
        metavar="DIR",
        help="with a URL as --output-dir: where the files are made before they are uploaded (default: in ~/.cache)",
    )
    add(
        "--format",
        default="auto",
        choices=("auto", "jsonl", "parquet", "text"),
        help="which files to read; jsonl: also those whose names have no ending",
    )
    add(
        "--text-key",
        "--json-keys",
        dest="text_keys",
        nargs="+",
        default=["text"],
        metavar="KEY",
        help="keys or columns with text; each gets its own output",
    )
    add(
        "--text-key-of",
        "--column",
        dest="text_key_of",
        action="append",
        default=[],
        metavar="GLOB=KEY",
        help="in files that match, the text is under this key instead",
    )
    add("--eod-token", metavar="TOKEN", help="end of each document (default: the tokenizer's eos_token)")
    add_trust_flag(p)
    add("--workers", type=int, metavar="N", help="processes (default: all available cores)")
    add(
        "--engine", default="auto", choices=("auto", "hf", "fastokens", "gigatoken"), help="tokenizer library"
    )
    add(
        "--on-error",
        default="stop",
        choices=("stop", "skip"),
        help="what to do at a record that is not a document",
    )
    add(
        "--validation-share",
        type=float,
        metavar="F",
        help="put this share of documents, by hash, into NAME_validation_…",
    )
    add(
        "--validation-files",
        action="append",
        default=[],
        metavar="GLOB",
        help="put these files into NAME_validation_…",
    )
    add(
        "--shard",
        metavar="I/N",
        help="read only share I (from 1) of N of the files (default: from Slurm's job array, if in one of your own)",
    )
    add(
        "--piece-bytes",
        type=int,
        metavar="BYTES",
        help="input per unit of work (default: depends on the input's size)",
    )
    add(
        "--unit-bytes",
        type=int,
        metavar="BYTES",
        help="with --executor ray or slurm: input per task (default: depends on the input's size)",
    )
    add(
        "--executor",
        choices=("local", "ray", "slurm"),
        help="where to run; ray: on a Ray cluster; slurm: as a job array (default: local, or slurm with --cluster)",
    )
    add(
        "--ray-address",
        metavar="ADDRESS",
        help="with --executor ray: a running cluster, as HOST:PORT or auto (default: RAY_ADDRESS, or a new one here)",
    )
    add(
        "--num-nodes",
        "-N",
        type=int,
        default=1,
        metavar="N",
        help="with --executor slurm: nodes at a time",
    )
    add("--account", "-A", metavar="NAME", help=f"Slurm account (default: {DEFAULTS.account})")
    add("--partition", "-P", metavar="NAME", help=f"Slurm partition (default: {DEFAULTS.partition})")
    add(
        "--container-image",
        metavar="IMAGE",
        help="with --executor slurm: image that the jobs run in (default: the profile's; none: this environment)",
    )
    add_cluster_flag(p)
    add_ssh_flags(p)
    add("--time", metavar="LIMIT", help="Slurm time limit (default: the partition's)")
    add(
        "--dry-run",
        "--dryrun",
        action="store_true",
        help="with --executor slurm: only print the batch scripts",
    )
    add("--json", action="store_true", help="print the outputs' manifests as JSON, by prefix")
    add("--overwrite", action="store_true", help="replace existing outputs")
    add("--restart", action="store_true", help="discard an unfinished run instead of resuming it")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    words = normalise_long_options(argv)
    options = parser().parse_args(words)
    if options.ssh:
        return elsewhere(options, "tokenize", words)
    launch = _launch(options)
    if launch.executor == "slurm":
        return _on_slurm(options, words, launch)
    if options.dry_run:
        raise UsageError("--dry-run needs --executor slurm; a local run can be interrupted and resumed")
    if options.ray_address and options.executor != "ray":
        raise UsageError("--ray-address needs --executor ray")
    if options.unit_bytes is not None and options.executor != "ray":
        raise UsageError("--unit-bytes needs --executor ray or slurm")
    if options.executor != "ray":
        from nemolaunch.tokenization.standby import start_standby

        start_standby(options.hf_tokenizer)
    from nemolaunch.api.tokenize import run_request
    from nemolaunch.cli.views.progress import TokenBar

    request = _request(options, cache_folder())
    total = sum(s.size for s in request.sources)
    bar = TokenBar(total)
    if options.executor == "ray":
        from nemolaunch.tokenization.units import on_ray

        with on_ray.connected(options.ray_address, request.workers) as cluster, bar:
            request = replace(request, unit_bytes=request.unit_bytes or cluster.unit_bytes(total))
            result = run_request(
                request, options.engine, tell=_say, report=bar.advance, execute=cluster.execute
            )
    else:
        with bar:
            result = run_request(request, options.engine, tell=_say, report=bar.advance)
    if options.json:
        made = dict(zip(result.places, result.manifests, strict=True))
        print(json.dumps(made, ensure_ascii=False))
    else:
        _summary(request, result)
    if not result.already_there:
        _say(bar.totals())
    return 0


def _request(options: argparse.Namespace, cache: Path) -> TokenizeRequest:
    from nemolaunch.tokenization import sources
    from nemolaunch.tokenization.request import TokenizeRequest
    from nemolaunch.tokenization.tokenizer import resolve

    files = sources.find(options.input_dir, options.format, _say)
    shard = parse_shard(options.shard) or _slurm_shard()
    name = options.data_prefix
    folder, url = _output(options, cache)
    if shard:
        files = sources.share(files, *shard)
        name = shard_name(name, *shard)
    workers = options.workers if options.workers is not None else len(os.sched_getaffinity(0))
    if workers < 1:
        raise UsageError(f"--workers {workers}: must be 1 or more")
    if options.piece_bytes is not None and options.piece_bytes < 1:
        raise UsageError(f"--piece-bytes {options.piece_bytes}: must be 1 or more")
    if options.unit_bytes is not None and options.unit_bytes < 1:
        raise UsageError(f"--unit-bytes {options.unit_bytes}: must be 1 or more")
    keys = tuple(dict.fromkeys(options.text_keys))
    return TokenizeRequest(
        sources=files,
        spec=resolve(
            options.hf_tokenizer,
            cache,
            eod_token=options.eod_token,
            trust_remote_code=options.trust_remote_code,
            tell=_say,
        ),
        folder=folder / SHARDS if shard else folder,
        destination=remote.join(url, SHARDS) if url and shard else url,
        name=name,
        keys=keys,
        columns=sources.columns(files, keys, options.text_key_of),
        workers=workers,
        on_error=options.on_error,
        piece_bytes=options.piece_bytes,
        unit_bytes=options.unit_bytes,
        shard=f"{shard[0]}/{shard[1]}" if shard else None,
        overwrite=options.overwrite,
        restart=options.restart,
        **_split(options, files),
    )


def _output(options: argparse.Namespace, cache: Path) -> tuple[Path, str | None]:
    """Return the folder of the outputs, and the URL of the one they are uploaded to."""
    from nemolaunch.tokenization import destination

    if not remote.is_url(options.output_dir):
        if options.staging_dir:
            raise UsageError(
                "--staging-dir is for an --output-dir in an object store, such as s3://BUCKET/FOLDER"
            )
        return Path(options.output_dir).expanduser() / "preprocessed", None
    url = remote.join(options.output_dir, "preprocessed")
    above = Path(options.staging_dir).expanduser() if options.staging_dir else cache
    return destination.staging_folder(url, above), url


SLURM_FLAGS = (
    "--executor",
    "--cluster",
    "--num-nodes",
    "-N",
    "--account",
    "-A",
    "--partition",
    "-P",
    "--time",
    "--unit-bytes",
    "--container-image",
)


def _launch(options: argparse.Namespace) -> Launch:
    """Return where to run: the profile's values, which flags override."""
    profile = read_profile(options.cluster) if options.cluster else None
    names = ("executor", "account", "partition", "time", "container_image")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.executor == "ray":
        given["executor"] = DEFAULTS.executor
    here = {"container_image": NO_CONTAINER}  # without a profile or a flag
    return Job().with_values(**{**here, **(profile.values if profile else {}), **given}).launch


def _on_slurm(options: argparse.Namespace, words: list[str], launch: Launch) -> int:
    """Submit a job array that does the units of the run, and a job that joins their results."""
    from nemolaunch.launching import tokenize_array
    from nemolaunch.tokenization.run import prepare_tasks
    from nemolaunch.tokenization.units import tasks
    from nemolaunch.tokenization.units.unit import divide

    if options.num_nodes < 1 or options.shard:
        raise UsageError(
            "--executor slurm needs --num-nodes of 1 or more, and divides the input itself: no --shard"
        )
    request = _request(options, cache_folder())
    tokenizer = Path(request.spec.name)
    if launch.runtime is not None and not tokenizer.is_dir():
        raise UsageError(
            f"--hf-tokenizer {options.hf_tokenizer}: in a container (--container-image {launch.container_image}) it"
            " must be a folder; download it first, or use --container-image none"
        )
    size = options.unit_bytes or tasks.unit_bytes(sum(s.size for s in request.sources), options.num_nodes)
    request = replace(request, engine=options.engine, unit_bytes=size)
    if options.dry_run:
        num_tasks: int | None = min(tasks.MOST_TASKS, len(divide(request, size)))
    else:
        num_tasks = prepare_tasks(request)
    if num_tasks is None:
        print(f"{request.prefixes[0]}.bin and .idx exist already, made from this input with this tokenizer")
        return 0
    array = tokenize_array.Array(
        name=request.name,
        work_folder=request.work_folder,
        num_tasks=num_tasks,
        workers=options.workers or 0,
        words=without([word for word in words if word != "--restart"], SLURM_FLAGS),
        folder=request.folder.absolute() / f"{request.name}.slurm",
        cwd=Path.cwd(),
        folders=(*_folders_of(request), str(tokenizer)),
        cache=cache_folder().absolute(),
        launch=replace(launch, num_nodes=options.num_nodes),
    )
    if options.dry_run:
        print(tokenize_array.array_script(array) + "\n" + tokenize_array.join_script(array), end="")
        return 0
    first, second = tokenize_array.submit(array)
    if first is None:
        print(f"all units are done; submitted job {second}, which joins their results")
    else:
        print(
            f"submitted job array {first} ({num_tasks} tasks, {options.num_nodes} at a time), and job {second},"
            f" which joins their results; logs are in {array.folder}, `nemolaunch status {request.folder}` says how far"
            " they are"
        )
    return 0


def _folders_of(request: TokenizeRequest) -> list[str]:
    """Return the folders that a run reads and writes, also those that links of its input lead to."""
    paths = [os.path.abspath(source.path) for source in request.sources]
    paths += [os.path.realpath(path) for path in paths]
    return [*dict.fromkeys(map(os.path.dirname, paths)), str(request.folder.absolute())]


def without(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """Return a command line without some flags that take one value, and without --dry-run."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in flags:
            skip = True
        elif word not in ("--dryrun", "--dry-run") and word.partition("=")[0] not in flags:
            kept.append(word)
    return kept


def shard_name(name: str, number: int, of: int) -> str:
    """Return the name of a shard's output."""
    return f"{name}-{number:05d}-of-{of:05d}"


def _split(options: argparse.Namespace, files: list[InputFile]) -> dict[str, Any]:
    from nemolaunch.tokenization import sources

    share, patterns = options.validation_share, options.validation_files
    if share is not None and patterns:
        raise UsageError("use --validation-share or --validation-files, not both")
    if share is not None:
        return sources.split_by_hash(share)
    if patterns:
        chosen = {i for i, f in enumerate(files) if any(sources.matches(f.path, p) for p in patterns)}
        if not chosen and options.shard is None:
            raise UsageError(f"--validation-files {' '.join(patterns)} matches no input file")
        return {
            "validation_sources": frozenset(chosen),
            "split": {"rule": "files", "validation_files": patterns},
        }
    return {}


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Parse `2/8` into (2, 8). Raises UsageError for anything that is not a share from 1 to N."""
    if text is None:
        return None
    number, _, of = text.partition("/")
    if number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of):
        return int(number), int(of)
    raise UsageError(f"--shard {text!r} is not I/N with I from 1 to N, as in 1/4")


def _slurm_shard() -> tuple[int, int] | None:
    """Return this task's share in a Slurm job array of several tasks; None outside one."""
    task, count = os.environ.get("SLURM_ARRAY_TASK_ID"), os.environ.get("SLURM_ARRAY_TASK_COUNT")
    first = os.environ.get("SLURM_ARRAY_TASK_MIN", "0")
    if task is None or count is None or int(count) < 2:
        return None
    step = os.environ.get("SLURM_ARRAY_TASK_STEP", "1")
    return (int(task) - int(first)) // int(step) + 1, int(count)


def _summary(request: TokenizeRequest, result: Result) -> None:
    for prefix, made in zip(result.places, result.manifests, strict=True):
        print(
            f"{prefix}.bin: {made['documents']:,} documents, {made['tokens']:,} tokens ({made['dtype']})"
            + (", existed already" if result.already_there else f", tokenised by {made['engine']}")
        )
    rejects = max((made["rejects"] for made in result.manifests), default=0)
    if rejects and result.urls:
        _say(
            f"{rejects:,} records were skipped; {request.destination}/{request.rejects.name} lists them with the reason"
        )
    elif rejects:
        _say(f"{rejects:,} records were skipped; {request.rejects} lists them with the reason")
        for text in _damages(request.rejects):
            _say(text)


def _damages(rejects: Path) -> list[str]:
    """Return what is wrong with each file of which a part could not be read."""
    with open(rejects, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return [
        f"{r['file']}, after record {r['line'] - 1:,}: {r['reason']}"
        for r in found
        if r["reason"].startswith(DAMAGED)
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(None))
