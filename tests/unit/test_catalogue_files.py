"""The catalogue's data, the files generated from it, and `nemolaunch models`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemolaunch import catalogue
from nemolaunch.cli.commands import models

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["supported_model.txt", "supported_config.txt"])
def test_the_files_at_the_root_match_the_catalogue(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == models.supported_files()[name], (
        "run `nemolaunch models --write`"
    )


def test_write_creates_both_files_in_the_given_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models.main(["--write", str(tmp_path)]) == 0
    assert len((tmp_path / "supported_model.txt").read_text().splitlines()) == 18
    assert len((tmp_path / "supported_config.txt").read_text().splitlines()) == 81
    assert "18 model classes" in capsys.readouterr().out


def test_writing_where_nothing_can_be_written_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models.main(["--write", str(tmp_path / "no" / "such")]) == 2
    assert "--write" in capsys.readouterr().err


def test_convertible_recipes_have_a_supported_config() -> None:
    known = catalogue.hf_configs()
    for row in catalogue.recipes():
        both = row.hf_import and row.hf_export and row.architecture.kind in ("gpt", "mamba")
        listed = row.model_class in known
        assert both == listed, row.name


def test_the_list_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main([]) == 0
    first_words = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    for name in (*catalogue.flavours(), *(row.name for row in catalogue.recipes())):
        assert first_words.count(name) == 1


def test_json_can_be_read_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["aixsim-60m"]["parameters_without_embedding"] == 63_226_752
    assert rows["llama3_8b"]["parameters"] == 8_030_261_248
    assert models.main(["60M", "--json", "--vocab_size", "1000"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["vocab_rows"] == 1024
    assert row["overrides"]["hidden_size"] == 384
    assert row["recipe_defaults"]["context_parallel_size"] == 2


def test_every_model_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for row in catalogue.recipes():
        assert models.main([row.name]) == 0
        assert f"config_class: {row.config_class}" in capsys.readouterr().out


def test_conversion_classes_are_listed_by_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--conversion"]) == 0
    assert "Phi3Model: Phi3ConfigMini\n" in capsys.readouterr().out


def test_an_unknown_name_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["llama9"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert models.main(["llama3_8b", "--vocab-size", "0"]) == 2
    assert "--vocab-size" in capsys.readouterr().err


def test_importing_the_catalogue_loads_nothing_heavy() -> None:
    code = (
        "import sys, nemolaunch.catalogue, nemolaunch.arithmetic\n"
        "print([name for name in ('yaml', 'numpy', 'torch', 'nemo', 'rich') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
