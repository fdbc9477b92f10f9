"""Lower rooms never import higher ones, no module imports itself round a corner, and planning imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "nemolaunch"

# From the bottom up; CONTRIBUTING.md says what each is for
ROOMS = [
    "errors",
    "findings",
    "system",
    "trust",
    "families",
    "catalogue",
    "job",
    "run",
    "data",
    "tokenizer",
    "arithmetic",
    "facts",
    "resolve",
    "check",
    "estimate",
    "planning",
    "tokenization",
    "download",
    "stream",
    "checkpoint",
    "containers",
    "slurm",
    "ranks",
    "preflight",
    "cpu",
    "nemo2",
    "bridge",
    "launching",
    "observe",
    "sweeps",
    "evaluation",
    "publish",
    "doctor",
    "api",
    "cli",
]
CHECKPOINT_ROOMS = [
    "storage",
    "hf",
    "meta",
    "megatron",
    "nemo2",
    "bridge",
    "megatron_lm",
    "migrate",
    "convert",
]
CLI_ROOMS = ["views", "parsing", "commands", "main", "manual", "resume_table", "backend_table"]
# What acts and what reads know nothing of each other; neither do neighbours that serve different steps
STRANGERS = {
    ("observe", "launching"),
    ("estimate", "check"),
    ("download", "tokenization"),
    ("slurm", "checkpoint"),
    ("ranks", "slurm"),
    ("bridge", "nemo2"),
    ("preflight", "slurm"),
}
# Frameworks and the rooms that may import them
FRAMEWORKS = {
    "nemo": {"nemo2"},
    "lightning": {"nemo2"},
    "nemo_run": {"nemo2", "launching"},
    "megatron": {"cpu", "nemo2", "bridge"},
    "megatron.bridge": {"bridge"},
}
LOOSE = {"__init__", "__main__", "errors", "findings"}
HEAVY = [
    "torch",
    "numpy",
    "nemo",
    "nemo_run",
    "lightning",
    "megatron",
    "transformers",
    "tokenizers",
    "rich",
    "jinja2",
]


def name_of(path: Path) -> str:
    """The dotted name below the package: `plan`, `checkpoint.hf.folder`; empty for the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, at any depth and also for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> Iterator[str]:
    """Names below the package of the modules that a file imports."""
    for name in imports(path):
        root, _, rest = name.partition(".")
        if root == "nemolaunch":
            yield rest if rest in MODULES else rest.rpartition(".")[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("", "__main__")])
def test_imports_point_down(module: str) -> None:
    room = module.partition(".")[0]
    assert room in ROOMS, f"{room} has no place in the house: put it into ROOMS and CONTRIBUTING.md"
    for other in own_imports(MODULES[module]):
        target = other.partition(".")[0]
        if target == room:
            continue
        assert target in ROOMS[: ROOMS.index(room)], f"nemolaunch.{other} is not below nemolaunch.{module}"
        assert (room, target) not in STRANGERS, f"{room} and {target} do not know each other"


@pytest.mark.parametrize(("house", "rooms"), [("checkpoint", CHECKPOINT_ROOMS), ("cli", CLI_ROOMS)])
def test_imports_point_down_inside(house: str, rooms: list[str]) -> None:
    for module, path in MODULES.items():
        if not module.startswith(house + "."):
            continue
        room = module.split(".")[1]
        assert room in rooms
        for other in own_imports(path):
            parts = other.split(".")
            if parts[0] == house and len(parts) > 1 and parts[1] != room:
                assert parts[1] in rooms[: rooms.index(room)], f"{other} is not below {module}"


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_are_imported_in_their_rooms_only(module: str) -> None:
    room = module.partition(".")[0]
    for name in imports(MODULES[module]):
        for framework, rooms in FRAMEWORKS.items():
            assert room in rooms or not f"{name}.".startswith(f"{framework}."), (
                f"{name} in nemolaunch.{module}"
            )


# Programs that answer the process which started them, on their standard output
ANSWER_A_PARENT = {
    "preflight.rank",
    "tokenization.proof",
    "tokenizer.library",
    "launching.login_node",
    "launching.experiment",
    "launching.torchrun",
    "launching.container_watch",
}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("cli")])
def test_only_the_command_line_prints(module: str) -> None:
    """Everything else returns, raises, calls back or logs."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert "print" not in calls or module in ANSWER_A_PARENT


def test_no_circles() -> None:
    """Not even among imports inside functions or for type checkers."""
    graph = {module: set(own_imports(path)) - {module, ""} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            visit(other, (*way, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_nothing_lies_loose() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} == LOOSE


def test_no_public_name_is_that_of_a_room() -> None:
    """A package holds a submodule or a function of one name: the first import of the room would hide the function."""
    import nemolaunch

    assert not set(nemolaunch.__all__) & set(ROOMS)


def test_planning_imports_nothing_heavy() -> None:
    """`--help` and a dry run answer at once because of this."""
    code = (
        "import sys; import nemolaunch.planning, nemolaunch.cli.commands.pretrain, nemolaunch.cli.main;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
