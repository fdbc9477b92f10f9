"""Random command lines and configuration files, for hypothesis: a mix of valid, odd and meaningless words."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from check_jobs import TOKENIZER, write_data
from hypothesis import strategies as st

from nemolaunch import catalogue
from nemolaunch.cli.commands import count_params, estimate_mem, plan, pretrain, suggest
from nemolaunch.cli.parsing.layout_flags import LAYOUT_FIELDS
from nemolaunch.job import spec_of, specs
from nemolaunch.job.fields import FieldSpec

LAUNCH_COMMANDS = ("pretrain", "plan", "generate-config")
# The flags of each command that takes only some of a job's
LAYOUT_COMMANDS = {
    "estimate-mem": LAYOUT_FIELDS,
    "count-params": count_params.FIELDS,
    "suggest": suggest.FIELDS,
}

ODD_NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "8",
    "2048",
    "1e3",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1.5",
    "9" * 30,
    "9" * 5000,
    "٣",
    "0x10",
    "",
)
ODD_WORDS = (
    "",
    " ",
    "a b",
    "../..",
    "/",
    "/dev/null",
    "/proc/self/mem",
    "~nobody/x",
    "\x00",
    "a\nb",
    "💥",
    "-",
    "--",
    "none",
    "null",
    "true",
    "{}",
    "[1]",
    "%s",
    "$(id)",
    "a" * 5000,
    "\udcff",
    "0.5",
    "never",
)
MODELS = (
    *[recipe.name for recipe in catalogue.recipes()][::3],
    *catalogue.flavours(),
    "llama",
    "nope",
    "/tmp",
    "x.yaml",
)


BASES = [recipe.name for recipe in catalogue.recipes()]
SOUND = {
    "dataset_dir": st.just("text_document"),
    "hf_model_id": st.just(TOKENIZER),
    "split": st.just("90,9,1"),
    "validation_data": st.sampled_from(
        ("a=text_document", "b=.", "a b=text_document", "text_document", "=x", "x=")
    ),
    "rampup_batch_size": st.sampled_from(
        ("4:4:64", "1:1:1", "64:64:100000", "8:0:8", "4:4", "1:1:" + "9" * 18, "-1:2:3")
    ),
    "experiment": st.just("run"),
    "executor": st.sampled_from(("local", "docker", "slurm")),
    "set": st.sampled_from(
        (
            "optim.config.adam_eps=1e-5",
            "model.config.hidden_dropout=",
            "log.x=[1, a]",
            "trainer.max_steps=3",
            "lr=3",
        )
    ),
}


def value_of(spec: FieldSpec, kinds: int = 6) -> st.SearchStrategy[str]:
    """Return a strategy for a flag's value, an odd one in one of `kinds` cases."""
    odd = st.sampled_from(ODD_NUMBERS) | st.sampled_from(ODD_WORDS) | st.text(max_size=8)
    if spec.name == "model_name":
        sound: st.SearchStrategy[str] = st.sampled_from(MODELS)
    elif spec.name in SOUND:
        sound = SOUND[spec.name]
    elif spec.choices:
        sound = st.sampled_from(spec.choices)
    elif spec.kind is int:
        sound = st.sampled_from((1, 2, 4, 8, 64, 2048)).map(str) | st.integers(-3, 70).map(str)
    elif spec.kind is float:
        sound = st.floats(0, 2).map(str)
    else:
        sound = st.sampled_from(ODD_WORDS)
    return st.integers(1, kinds).flatmap(lambda n: odd if n == 1 else sound)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw words for `pretrain --dry-run` and `plan`: flags under any of their names, with any value."""
    words: list[str] = []
    kinds = draw(st.sampled_from((4, 30, 100)))  # most lines get past the parser, to the checks
    if draw(st.integers(0, kinds)):
        words += ["-M", draw(st.sampled_from(MODELS))]
    if draw(st.booleans()):
        words += ["--dataset-dir", "text_document", "--hf-model-id", TOKENIZER]
    words += _flags(draw, specs(), kinds)
    if not draw(st.integers(0, kinds)):
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(ODD_WORDS) | st.text(max_size=6)))
    return [word for word in words if word not in ("-h", "--help")]


def _flags(draw: st.DrawFn, of: Sequence[FieldSpec], kinds: int) -> list[str]:
    """Draw up to eight of these flags, under any of their names."""
    words = []
    for spec in draw(st.lists(st.sampled_from(of), max_size=8)):
        name = draw(st.sampled_from([n for n in (spec.short, spec.flag, *spec.aliases) if n]))
        spelt = [name, "--" + name[2:].replace("-", "_") if name.startswith("--") else name]
        words.append(draw(st.sampled_from(spelt)))
        if spec.kind is not bool:
            words += [draw(value_of(spec, kinds)) for _ in range(draw(st.integers(0, 3)) if spec.many else 1)]
    return words


@st.composite
def layout_lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Draw a command about layouts, and words for it."""
    command = draw(st.sampled_from(sorted(LAYOUT_COMMANDS)))
    kinds = draw(st.sampled_from((4, 30, 100)))
    words = ["-M", draw(st.sampled_from(MODELS))]
    words += _flags(draw, [spec_of(name) for name in LAYOUT_COMMANDS[command]], kinds)
    more = ["--vocab-size"]
    if command == "estimate-mem":
        more += ["--data-parallel-shard-degree", "--data-parallel-replicate-degree"]
    for name in draw(st.lists(st.sampled_from(more), max_size=2)):
        words += [name, draw(st.sampled_from(ODD_NUMBERS) | st.integers(1, 64).map(str))]
    return command, words


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(ODD_WORDS)
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3)
)


@st.composite
def configurations(draw: st.DrawFn) -> str:
    """Draw a YAML file with some keys of a job, some others, and any kind of value; or invalid YAML."""
    import yaml

    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.text(max_size=60)
            | st.sampled_from(
                ("a: [", "- - -", "&a *a", "? x", "!!python/object:os.system {}", "a: &a [*a]", "%", "\t")
            )
        )
    content: dict[Any, Any] = {}
    kinds = draw(st.sampled_from((4, 30, 100)))
    for spec in draw(st.lists(st.sampled_from(specs()), max_size=8)):
        sound = draw(st.integers(0, kinds))
        content[spec.name] = _typed(draw(value_of(spec, kinds)), spec) if sound else draw(TREES)
    if not draw(st.integers(0, kinds)):
        content[draw(st.text(max_size=6))] = draw(TREES)
    if draw(st.integers(0, 5)):
        content["model_name"] = draw(st.sampled_from(MODELS))
    return str(yaml.safe_dump(content, allow_unicode=draw(st.booleans())))


def _typed(word: str, spec: FieldSpec) -> Any:
    """Return the word as a YAML value."""
    if spec.kind is bool:
        return word not in ("0", "-1")
    try:
        return spec.kind(word)
    except ValueError:
        return word


@st.composite
def architectures(draw: st.DrawFn) -> str:
    """Draw the text of a YAML file that more or less describes a model."""
    import dataclasses

    import yaml

    fields = [field.name for field in dataclasses.fields(catalogue.Architecture)]
    numbers = (
        st.sampled_from((1, 2, 4, 8, 32, 64, 4096)) | st.integers(-1, 70) | st.floats(0, 2) | st.booleans()
    )
    content: dict[str, Any] = {"base": draw(st.sampled_from(BASES if draw(st.integers(0, 9)) else MODELS))}
    for name in draw(st.lists(st.sampled_from(fields), max_size=8)):
        content[name] = draw(numbers) if draw(st.integers(0, 4)) else draw(TREES)
    return str(yaml.safe_dump(content))


def told(words: list[str], command: str) -> tuple[int, str]:
    """Run a command as from a terminal. Return the exit code and what it printed to stderr."""
    run = {
        "pretrain": pretrain.main,
        "plan": plan.main,
        "generate-config": plan.generate_config,
        "estimate-mem": estimate_mem.main,
        "count-params": count_params.main,
        "suggest": suggest.main,
    }[command]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*words, "--dry-run"] if command == "pretrain" else words)
    return code, err.getvalue()


def survives(words: list[str], command: str) -> int:
    """Check that a command exits with a code from 0 to 2, with a message unless it is 0. Return the code."""
    code, said = told(words, command)
    assert code in (0, 1, 2)
    assert "Traceback" not in said
    assert code == 0 or said.strip() or command in ("plan", "estimate-mem")
    return code


def furnish(folder: Path) -> None:
    """Write the data that valid words name into a folder."""
    write_data(folder)


def write(folder: Path, text: str) -> Path:
    """Write a configuration to a file. Return its path."""
    path = folder / "job.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path
