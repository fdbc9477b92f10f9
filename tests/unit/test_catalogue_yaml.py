"""Custom architectures in YAML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch import catalogue
from nemolaunch.errors import UsageError

SMALL = """\
base: llama3
num_layers: 2
hidden_size: 64
num_attention_heads: 4
num_query_groups: 2
ffn_hidden_size: 128
seq_length: 128
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as error:
        catalogue.model(write(folder, text))
    return str(error.value)


def test_a_form_becomes_a_model(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    found = catalogue.model(path)
    assert (found.name, found.source, found.recipe.name) == ("mine", path, "llama3_8b")
    shape = found.architecture
    assert (shape.num_layers, shape.hidden_size, shape.kv_channels) == (2, 64, 16)
    assert found.overrides["kv_channels"] == 16
    assert found.overrides["ffn_hidden_size"] == 128
    assert shape.rotary_base == found.recipe.architecture.rotary_base


def test_overrides_and_architecture_agree(tmp_path: Path) -> None:
    for found in [catalogue.model(write(tmp_path, SMALL)), *map(catalogue.model, catalogue.flavours())]:
        for field, value in found.overrides.items():
            got = getattr(found.architecture, field)
            assert (list(got) if isinstance(got, tuple) else got) == value


def test_the_vocabulary_is_the_tokenizers_unless_stated(tmp_path: Path) -> None:
    assert catalogue.recipe("qwen25_7b").architecture.vocab_size == 152064
    found = catalogue.model(write(tmp_path, SMALL.replace("llama3", "qwen25_7b")))
    assert found.architecture.vocab_size is None
    assert found.overrides["vocab_size"] is None
    found = catalogue.model(write(tmp_path, SMALL + "vocab_size: 512\n"))
    assert found.overrides["vocab_size"] == 512


def test_the_width_of_a_head_follows_unless_stated(tmp_path: Path) -> None:
    gemma = SMALL.replace("llama3", "gemma")
    assert catalogue.model(write(tmp_path, gemma)).architecture.kv_channels == 16
    stated = catalogue.model(write(tmp_path, gemma + "kv_channels: 256\n"))
    assert stated.architecture.kv_channels == 256
    deeper = catalogue.model(write(tmp_path, "base: gemma\nnum_layers: 4\n"))
    assert deeper.architecture.kv_channels == 256


def test_what_is_not_stated_stays_the_bases(tmp_path: Path) -> None:
    found = catalogue.model(write(tmp_path, SMALL.replace("llama3", "llama32")))
    assert found.architecture.share_embeddings_and_output_weights
    assert found.architecture.scale_factor == 32
    assert "scale_factor" not in found.overrides


def test_heads_without_groups_stay_ungrouped(tmp_path: Path) -> None:
    text = SMALL.replace("llama3", "llama2").replace("num_query_groups: 2\n", "")
    assert catalogue.model(write(tmp_path, text)).architecture.num_query_groups == 4


def test_experts(tmp_path: Path) -> None:
    text = SMALL.replace("llama3", "mixtral") + "num_moe_experts: 4\n"
    assert catalogue.model(write(tmp_path, text)).architecture.moe_ffn_hidden_size == 128
    assert "moe_router_pre_softmax: true" in refusal(tmp_path, text + "moe_router_topk: 1\n")
    assert "exceeds num_moe_experts" in refusal(tmp_path, text + "moe_router_topk: 5\n")
    assert "moe_ffn_hidden_size" in refusal(tmp_path, SMALL.replace("llama3", "qwen3_30b_a3b"))
    assert "has no num_moe_experts" in refusal(tmp_path, SMALL + "num_moe_experts: 4\n")


def test_a_pattern_of_layers_must_fit_the_depth(tmp_path: Path) -> None:
    assert catalogue.model(
        write(tmp_path, "base: mamba2\nnum_layers: 3\n")
    ).architecture.hybrid_override_pattern == ("MMM")
    assert "hybrid_override_pattern has" in refusal(tmp_path, "base: nemotronh\nnum_layers: 3\n")
    assert "moe_layer_freq has" in refusal(tmp_path, "base: deepseek_v3\nnum_layers: 4\n")
    given = catalogue.model(
        write(tmp_path, "base: deepseek_v3\nnum_layers: 4\nmoe_layer_freq: [0, 1, 1, 1]\n")
    )
    assert given.overrides["moe_layer_freq"] == [0, 1, 1, 1]
    assert given.architecture.num_moe_layers == 3


def test_numbers_in_exponent_notation(tmp_path: Path) -> None:
    found = catalogue.model(write(tmp_path, SMALL + "rotary_base: 1e6\ninit_method_std: 1e-2\n"))
    assert found.architecture.rotary_base == 1e6
    assert found.architecture.init_method_std == 0.01


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    message = refusal(
        tmp_path,
        SMALL.replace("hidden_size: 64", "hiden_size: 64")
        + "vocab_size: -1\nrotary_percent: half\nattention_dropout: 1.5\nnormalization: rmsnorm\n"
        + "activation_func: relu\nlayernorm_epsilon: 0\n",
    )
    assert "no field 'hiden_size'. Did you mean hidden_size" in message
    assert "vocab_size is -1" in message
    assert "rotary_percent is 'half'" in message
    assert "attention_dropout is 1.5" in message
    assert "LayerNorm, RMSNorm" in message
    assert "activation_func cannot be set" in message
    assert "layernorm_epsilon is 0" in message


def test_shapes_that_contradict_themselves(tmp_path: Path) -> None:
    message = refusal(tmp_path, SMALL.replace("num_attention_heads: 4", "num_attention_heads: 5"))
    assert "64 is not a multiple of num_attention_heads 5" in message
    assert "not a multiple of num_query_groups" in refusal(tmp_path, SMALL.replace("groups: 2", "groups: 3"))
    assert "ffn_hidden_size" in refusal(tmp_path, "base: llama3\nhidden_size: 64\n")
    assert "even" in refusal(tmp_path, SMALL + "kv_channels: 15\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "key: value"),
        ("- a\n- b\n", "key: value"),
        ("num_layers: 2\n", "base:"),
        ("base: [llama3]\n", "base:"),
        ("base: lama3\n", "Did you mean llama3"),
        ("base: llama3\n\tnum_layers: 2\n", "not valid YAML"),
        ("base: llama3\nnum_layers: 2.5\n", "whole number"),
        ("base: llama3\nnum_layers: .inf\n", "whole number"),
        ("base: llama3\nnum_layers: .nan\n", "whole number"),
        ("base: llama3\nnum_layers: true\n", "whole number"),
        ("base: llama3\nnum_layers: null\n", "whole number"),
        ("base: llama3\nnum_layers: {a: 1}\n", "whole number"),
        ("base: llama3\nnum_layers: 0\n", "above 0"),
        ("base: llama3\nnum_layers: 2\nnum_layers: 3\n", "twice"),
        ("base: llama3\n3: 4\n", "no field"),
        ("base: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_files_that_do_not_describe_a_model(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        catalogue.model(str(tmp_path / "missing.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        catalogue.model(str(tmp_path / "folder.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"base: llama3 # caf\xe9\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        catalogue.model(str(tmp_path / "latin.yaml"))


def test_a_users_file_of_a_recipes_name_does_not_hide_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SMALL, "llama3_8b")
    assert catalogue.model("llama3_8b").source == "NeMo recipe"
    assert catalogue.model("./llama3_8b").architecture.num_layers == 2
