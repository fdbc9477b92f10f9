"""The command line as a whole: help, mistakes, pipes, completion, the manual."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemolaunch.cli import main as top
from nemolaunch.cli.commands.completion import script
from nemolaunch.cli.parsing.tree import parser_of, sub_commands

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "nemolaunch.cli.main"]
REPORTING = (
    "pretrain", "status", "follow", "diagnose", "plan", "diff", "models", "count-params", "estimate-mem", "suggest",
    "inspect data", "inspect checkpoint", "data-audit", "generate", "doctor", "eval ppl", "eval lm", "eval watch",
)  # fmt: skip


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command and what it is divided into, by the words that call it."""
    found: dict[str, argparse.ArgumentParser] = {}

    def add(words: str, parser: argparse.ArgumentParser) -> None:
        found[words] = parser
        for name, sub in sub_commands(parser):
            add(f"{words} {name}", sub)

    for name in top.COMMANDS:
        add(name, parser_of(name))
    return found


ALL = commands()


@pytest.mark.parametrize("words", ALL)
def test_help_has_an_example_that_is_understood(words: str) -> None:
    examples = getattr(ALL[words], "examples", [])
    assert examples, "give the parser an example"
    for example in examples:
        assert example.startswith(f"nemolaunch {words.split()[0]}")
        given = shlex.split(example.split(" > ")[0])[1:]
        parser_of(given[0]).parse_args(given[1:])
    assert examples[0] in ALL[words].format_help()


@pytest.mark.parametrize("words", ALL)
def test_help_fits_into_a_narrow_terminal(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = ALL[words].format_help().split("example")[0]
    flags = ("usage:", "-", "[--")  # what is typed is not broken
    assert [line for line in text.splitlines() if len(line) > 60 and not line.strip().startswith(flags)] == []


@pytest.mark.parametrize("words", ALL)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = top.main([*words.split(), "--no-such-flag"])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")


def test_help_of_a_job_shows_what_most_people_need_and_help_all_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        top.main(["help", "pretrain"])
    short = capsys.readouterr().out
    with pytest.raises(SystemExit):
        top.main(["pretrain", "--help-all"])
    whole = capsys.readouterr().out
    flags = [set(re.findall(r"^  (?:-\w+, )?(--[\w-]+)", text, re.M)) for text in (short, whole)]
    assert 25 <= len(flags[0]) <= 40
    assert flags[0] < flags[1]
    assert len(flags[1]) == len(parser_of("pretrain")._actions)
    assert {"--model-name", "--dataset-dir", "--max-steps", "--lr", "--dry-run", "--help-all"} <= flags[0]
    assert f"{len(flags[1]) - len(flags[0])} more flags: `nemolaunch pretrain --help-all`" in short


def test_a_flag_of_other_launchers_is_told_with_what_does_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert top.main(["pretrain", "-M", "nano", "--print-config"]) == 2
    assert "nemolaunch generate-config" in capsys.readouterr().err


def test_models_are_listed_by_their_names_and_classes(capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main(["models", "--filter", "Mamba", "--filter", "9b", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["nemotron_nano_9b_v2"]
    assert top.main(["models", "--filter", "no-such"]) == 2


def test_a_mistyped_command_is_told_with_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main(["pretain"]) == 2
    assert "Did you mean pretrain" in capsys.readouterr().err


def test_a_mistyped_flag_of_a_sub_command_is_told_with_its_neighbour(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert top.main(["eval", "ppl", "model", "--data", "x", "--context-lenght", "5"]) == 2
    assert "near: --context-length)" in capsys.readouterr().err
    assert top.main(["eval", "ppl", "model", "--data", "x", "--tokenizr", "t"]) == 2
    assert capsys.readouterr().err.count("--tokenizer") == 1


def test_a_missing_flag_is_told_by_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main(["tokenize", "--data-prefix", "x"]) == 2
    assert "required: --hf-tokenizer, --input-dir, --output-dir." in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["convert", "generate", "chat", "eval ppl", "inspect data", "tokenize", "pretrain"]
)
def test_the_tokenizer_has_the_same_names_everywhere(words: str) -> None:
    assert {"--tokenizer", "--hf-tokenizer"} <= set(ALL[words]._option_string_actions)


@pytest.mark.parametrize("words", REPORTING)
def test_what_reports_can_report_to_programs(words: str) -> None:
    assert "--json" in ALL[words].format_help()


def test_top_help_names_every_command_and_exit_code() -> None:
    text = top.usage()
    for name in top.COMMANDS:
        assert f"\n  {name} " in text
    for code in top.EXIT_CODES:
        assert f" {code}  " in text


def test_a_reader_that_leaves_a_pipe_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(COMMAND)} models | head -n 1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("141", "0")  # 0: all was written before it left


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("train/llm/pretrain/pretrain_llm.py", ""),
        ("ckpt_conversion/convert_from_hf_to_nemo2.py", ""),
        ("ckpt_conversion/convert_from_hf_to_nemo2.py", str(ROOT / "src")),  # but nothing that it needs
        ("download_example_data/download_wiki.py", ""),
    ],
)
def test_a_python_without_the_packages_is_told_to_activate_the_environment(script: str, path: str) -> None:
    words = [sys.executable, "-S", str(ROOT / script), "org/model", "out"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ".venv/bin/activate" in done.stderr


def completed(shell: Path, *words: str) -> list[str]:
    """What bash offers after these words."""
    line = " ".join(map(shlex.quote, words))
    program = (
        f"source {shell}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_nemolaunch; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "nemolaunch"
    path.write_text(script("bash"))
    return path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["nemolaunch", "tens"], "tensorboard"),
        (["nemolaunch", "eval", "w"], "watch"),
        (["nemolaunch", "pretrain", "--on-loss"], "--on-loss-spike"),
        (["nemolaunch", "pretrain", "--on-loss-spike", "sk"], "skip"),
        (["nemolaunch", "eval", "ppl", "--str"], "--stride"),
        (["nemolaunch", "resume", "runs/a", "--max-st"], "--max-steps"),
        (["nemolaunch", "pretrain", "-M", "aixsim-1"], "aixsim-1.1b"),
        (["nemolaunch", "models", "llama32_1"], "llama32_1b"),
        (["nemolaunch", "help", "tens"], "tensorboard"),
    ],
)
def test_bash_completes(bash_script: Path, words: list[str], offered: str) -> None:
    assert completed(bash_script, *words) == [offered]


def test_fish_gets_options_of_several_letters_in_its_own_form() -> None:
    text = script("fish")
    assert re.search(r" -o gbs -l global-batch-size ", text)
    assert not re.search(r" -s \w\w", text)
    assert re.search(r"^complete .* -s M .* -xka \".*\bnano\b", text, re.M)


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes(tmp_path: Path) -> None:
    path = tmp_path / "nemolaunch.fish"
    path.write_text(script("fish"))
    program = f"source {path}; complete -C 'nemolaunch pretrain -M aixsim-1'; complete -C 'nemolaunch tens'"
    done = subprocess.run(["fish", "-c", program], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["aixsim-1.1b", "tensorboard"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_its_script(tmp_path: Path) -> None:
    path = tmp_path / "_nemolaunch"
    path.write_text(script("zsh"))
    program = f'autoload -Uz compinit; compinit -D; eval "$(cat {path})"; print ${{_comps[nemolaunch]:-none}}'
    done = subprocess.run(
        ["zsh", "-fc", program], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert "_shtab_nemolaunch" in done.stdout
