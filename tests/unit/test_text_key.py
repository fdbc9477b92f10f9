"""The key of the text has one name in every command, and the names that users of other tools know still work."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch.cli.commands import pretrain, tokenize
from nemolaunch.cli.parsing.flags import job_from
from nemolaunch.cli.parsing.tree import parser_of
from nemolaunch.job import Job, current_names

TOKENIZE = ["--hf-tokenizer", "t", "--data-prefix", "p", "--input-dir", "i", "--output-dir", "o"]


@pytest.mark.parametrize("flag", ["--text-key", "--json-keys", "--json_keys"])
def test_keys_to_tokenise(flag: str) -> None:
    assert tokenize.parser().parse_args([*TOKENIZE, flag, "body", "title"]).text_keys == ["body", "title"]


@pytest.mark.parametrize("flag", ["--text-key-of", "--column"])
def test_keys_of_some_files(flag: str) -> None:
    rules = ["*.parquet=content", "a/*:title=name"]
    words = [*TOKENIZE, flag, rules[0], flag, rules[1]]
    assert tokenize.parser().parse_args(words).text_key_of == rules


@pytest.mark.parametrize("flag", ["--text-key", "--text-column"])
def test_key_of_a_stream(flag: str) -> None:
    given = vars(pretrain.parser().parse_args([flag, "content"]))
    assert [value for name, value in given.items() if name.startswith("text_")] == ["content"]


@pytest.mark.parametrize("name", ["text_key", "text_column"])
def test_key_of_a_stream_in_python_files_and_saved_plans(name: str, tmp_path: Path) -> None:
    assert Job(**{name: "content"}).stream.text_key == "content"
    assert current_names({name: "content"}) == {"text_key": "content"}
    config = tmp_path / "job.yaml"
    config.write_text(f"model_name: nano\n{name}: content\n")
    assert job_from({}, config).stream.text_key == "content"


def test_key_of_an_evaluation() -> None:
    words = ["ppl", "checkpoint", "--data", "d", "--text-key", "content"]
    assert parser_of("eval").parse_args(words).text_key == "content"
