"""What cannot be converted is refused at once, with a message that says what to change. Does not need NeMo."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from nemolaunch.checkpoint.hf.config_diff import differences
from nemolaunch.checkpoint.storage.publish import publishing
from nemolaunch.cli.commands.convert import main
from nemolaunch.errors import UsageError


def write_safetensors(path: Path, data_bytes: int = 8, cut: int = 0) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, data_bytes]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(data_bytes)
    path.write_bytes(content[: len(content) - cut])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that looks like a small Llama."""
    folder = tmp_path / "source"
    folder.mkdir()
    config = {"model_type": "llama", "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def refused(
    capsys: pytest.CaptureFixture[str], source: Path | str, *more: str, to: str | None = "nemo2"
) -> str:
    """Return the error message, after checking that nothing is left at the output."""
    output = Path(more[more.index("--output-path") + 1]) if "--output-path" in more else None
    if output is None:
        output = Path(str(source) + "-output")
        more = ("--output-path", str(output), *more)
        assert not output.exists()
    code = main(["--source", str(source), *more], to=to)
    message = capsys.readouterr().err.partition("error: ")[2]
    assert code in (1, 2)
    assert "Traceback" not in message
    if "--output-path" not in more[2:]:
        assert not list(output.parent.glob(f".{output.name}*"))
    return message


def test_a_truncated_file(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_safetensors(source / "model.safetensors", cut=3)
    message = refused(capsys, source)
    assert "model.safetensors is truncated or damaged: 7" in message
    assert "header says 7" in message


def test_a_file_that_is_not_safetensors(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is not a safetensors file" in refused(capsys, source)


def test_missing_shards(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "model.safetensors").rename(source / "model-00001.safetensors")
    index = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "1 are missing: model-00002.safetensors" in refused(capsys, source)


def test_no_tokenizer(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(capsys, source)


def test_no_weights(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "model.safetensors").unlink()
    assert "has no weights" in refused(capsys, source)


def test_an_adapter(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "config.json").rename(source / "adapter_config.json")
    message = refused(capsys, source)
    assert "LoRA adapter that is not merged into its model" in message
    assert "merge_and_unload" in message


def test_a_folder_above(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(source.parent.parent / "elsewhere" / "out")
    assert f"did you mean {source}" in refused(capsys, source.parent, "--output-path", output)


def test_a_family_that_nemo_does_not_have(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "config.json").write_text(json.dumps({"model_type": "llama2"}))
    message = refused(capsys, source)
    assert "no conversion for model_type 'llama2'" in message
    assert "llama" in message


def test_everything_that_nemo_cannot_represent_is_listed_at_once(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "max_position_embeddings": 256,
        "hidden_act": "gelu",
        "attention_bias": True,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
    }
    (source / "config.json").write_text(json.dumps(config))
    message = refused(capsys, source)
    assert "hidden_act is 'gelu'" in message
    assert "attention_bias is True and mlp_bias False" in message
    assert "rope_scaling is of type 'yarn'" in message


def test_a_model_whose_shapes_differ_from_its_config(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((source / "config.json").read_text())
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    config.update(sizes, vocab_size=100, max_position_embeddings=256)
    (source / "config.json").write_text(json.dumps(config))
    message = refused(capsys, source)
    assert "unknown to the model: 1 tensor of the source: w" in message
    assert "parameters of the model: embedding.word_embeddings.weight" in message


def test_a_named_class_of_another_family(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, source, "--model-name", "Qwen2Model")
    assert "model_type 'llama', which is LlamaModel" in message


def test_a_config_of_another_class(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ("--model-name", "LlamaModel", "--model-config-name", "Qwen2Config7B")
    assert "belongs to --model-name Qwen2Model" in refused(capsys, source, *named)


def test_a_config_without_its_class(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model-config-name needs --model-name" in refused(
        capsys, source, "--model_config_name", "Llama3Config8B"
    )


def test_an_existing_output(source: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "there"
    output.mkdir()
    assert "exists; use --overwrite" in refused(capsys, source, "--output-path", str(output))


def test_overwriting_what_is_not_a_checkpoint(
    source: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    precious = tmp_path / "home" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("done")
    message = refused(capsys, source, "--output-path", str(precious.parent), "--overwrite")
    assert "is not a checkpoint" in message
    assert precious.read_text() == "done"
    link = tmp_path / "link"
    link.symlink_to(source)
    assert "is a symbolic link" in refused(capsys, source, "--output-path", str(link), "--overwrite")


def test_an_output_inside_the_source(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "overlap" in refused(capsys, source, "--output-path", str(source / "nemo"))


def test_neither_folder_nor_hub_id(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    assert "/no/such/folder is neither an existing folder nor a Hub id" in refused(
        capsys, "/no/such/folder", "--output-path", output
    )


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    """In its own process, since the endpoint is read when the Hub's library is imported."""
    code = "import sys; from nemolaunch.cli.commands.convert import main; sys.exit(main(sys.argv[1:], to='nemo2'))"
    words = ["--source", "some-org/some-model", "--output-path", str(tmp_path / "out")]
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached to fetch some-org/some-model" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["nemo2", "hf"])
def test_the_wrong_direction(source: Path, capsys: pytest.CaptureFixture[str], to: str) -> None:
    if to == "nemo2":
        (source / "config.json").unlink()
        for name in ("weights", "context"):
            (source / name).mkdir()
    assert f"is already in the format {to}" in refused(capsys, source, to=to)


@pytest.mark.parametrize("to", ["hf", None])
def test_a_checkpoint_whose_save_did_not_end(
    source: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, to: str | None
) -> None:
    checkpoint = tmp_path / "step=3-last"
    (checkpoint / "weights").mkdir(parents=True)
    assert "incomplete" in refused(capsys, checkpoint, to=to)


def test_publishing_replaces_only_when_everything_is_written(tmp_path: Path) -> None:
    final = tmp_path / "model"

    def write(text: str, fail: bool = False) -> None:
        with publishing(final, overwrite=True) as new:
            new.mkdir()
            (new / "config.json").write_text(text)
            if fail:
                raise OSError("no space left on device")

    write("first")
    with pytest.raises(OSError, match="no space"):
        write("second", fail=True)
    assert (final / "config.json").read_text() == "first"
    write("third")
    assert (final / "config.json").read_text() == "third"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    with pytest.raises(UsageError, match="exists"), publishing(final):
        pass


def test_of_two_that_publish_the_same_the_later_is_refused(tmp_path: Path) -> None:
    final = tmp_path / "model"
    late = contextlib.ExitStack()
    late.enter_context(publishing(final)).write_text("late")
    with publishing(final) as early:
        early.write_text("early")
    with pytest.raises(UsageError, match="exists; use --overwrite"):
        late.close()
    assert final.read_text() == "early"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_config_diff_is_about_meaning_not_spelling() -> None:
    before = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": None,
        "head_dim": None,
        "rope_scaling": {"type": "default"},
        "sliding_window": 4096,
        "max_position_embeddings": 4096,
        "vocab_size": 100,
    }
    after = {
        **before,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "rope_scaling": None,
        "sliding_window": None,
        "transformers_version": "1",
    }
    assert differences(before, after) == (8, [])
    after.update(vocab_size=128, sliding_window=100)
    assert sorted(differences(before, after)[1]) == [
        "sliding_window: None became 100",
        "vocab_size: 100 became 128",
    ]
