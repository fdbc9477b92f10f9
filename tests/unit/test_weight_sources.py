"""Which weights of a model folder are read, and in what form. Does not need NeMo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo2.convert_support import tensors
from nemo2.small_models import write_model
from safetensors.torch import load_file, save_file, save_model

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.checkpoint.hf.folder import read_folder
from nemolaunch.checkpoint.hf.transformers_model import load_model
from nemolaunch.checkpoint.hf.weights import open_weights
from nemolaunch.errors import NemolaunchError

PROBE = "model.layers.0.self_attn.q_proj.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    write_model(folder, "llama", "bfloat16", num_hidden_layers=1)
    return folder


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "source"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def write_set(folder: Path, name: str, content: dict[str, torch.Tensor]) -> None:
    """Write weights as one of the sets that a folder can hold."""
    if name == "model.safetensors":
        save_file(content, folder / name, {"format": "pt"})
    elif name == "pytorch_model.bin":
        torch.save(content, folder / name)
    else:
        ending = "safetensors" if "safetensors" in name else "bin"
        shards = [f"{name.partition('.')[0]}-{n:05}-of-00002.{ending}" for n in (1, 2)]
        where = {key: shards[place % 2] for place, key in enumerate(content)}
        for shard in shards:
            part = {key: tensor for key, tensor in content.items() if where[key] == shard}
            if ending == "bin":
                torch.save(part, folder / shard)
            else:
                save_file(part, folder / shard, {"format": "pt"})
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def ours(folder: Path, name: str = PROBE) -> torch.Tensor:
    source = open_weights(read_folder(folder)).source
    try:
        return source.read(name)
    finally:
        source.close()


def said(folder: Path) -> list[str]:
    weights = open_weights(read_folder(folder))
    weights.source.close()
    return weights.changed


def refused(folder: Path) -> str:
    output = folder.with_name("refused")
    with pytest.raises(NemolaunchError) as caught:
        convert(folder, output, "nemo2")
    assert not output.exists()
    return str(caught.value)


SETS = ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")


@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a in range(4) for b in range(a + 1, 4)], ids=lambda place: SETS[place]
)
def test_of_two_sets_the_one_that_transformers_loads_is_read(source: Path, first: int, second: int) -> None:
    from transformers import AutoModelForCausalLM

    content = tensors(source)
    (source / "model.safetensors").unlink()
    for factor, place in enumerate((second, first), start=1):
        write_set(source, SETS[place], {name: tensor * factor for name, tensor in content.items()})
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).state_dict()
    assert torch.equal(ours(source), theirs[PROBE])
    (remark,) = said(source)
    assert f"read from {SETS[first]}" in remark
    assert SETS[second] in remark.partition("not read")[2]


def test_variants_and_other_formats_are_not_read_but_said(source: Path) -> None:
    for name in ("model.fp16.safetensors", "consolidated.safetensors", "model.Q4_K_M.gguf", "tf_model.h5"):
        (source / name).write_bytes(b"other")
    (remark,) = said(source)
    assert all(
        name in remark
        for name in ("model.fp16.safetensors", "consolidated.safetensors", "gguf", "tf_model.h5")
    )
    report = convert(source, source.with_name("out"), "nemo2")
    assert remark in report["changed"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("model.fp16.safetensors", "rename them"),
        ("model-00001-of-00002.safetensors", "their index too"),
        ("model.gguf", "GGUF is not read"),
    ],
)
def test_a_folder_without_weights_that_transformers_would_load(source: Path, name: str, advice: str) -> None:
    (source / "model.safetensors").rename(source / name)
    message = refused(source)
    assert "has no weights" in message
    assert name in message
    assert advice in message


def test_the_file_that_the_configuration_names(source: Path) -> None:
    """`transformers_weights` comes before all other names."""
    content = tensors(source)
    save_file({n: t * 2 for n, t in content.items()}, source / "chosen.safetensors", {"format": "pt"})
    change_config(source, transformers_weights="chosen.safetensors")
    assert torch.equal(ours(source), content[PROBE] * 2)


def test_an_index_of_another_save_is_refused(source: Path) -> None:
    content = tensors(source)
    (source / "model.safetensors").unlink()
    write_set(source, INDEX, content)
    index = json.loads((source / INDEX).read_text())
    index["weight_map"]["model.layers.1.mlp.up_proj.weight"] = "model-00001-of-00002.safetensors"
    (source / INDEX).write_text(json.dumps(index))
    message = refused(source)
    assert "does not belong to the weight files: 1 tensor" in message
    assert "model.layers.1.mlp.up_proj.weight" in message
    (source / INDEX).write_text(json.dumps({"weight_map": None}))
    assert "its weight_map does not name the file" in refused(source)


def test_a_missing_shard_is_refused_with_the_other_set(source: Path) -> None:
    content = tensors(source)
    (source / "model.safetensors").unlink()
    write_set(source, INDEX, content)
    torch.save(content, source / "pytorch_model.bin")
    (source / "model-00002-of-00002.safetensors").unlink()
    message = refused(source)
    assert "1 are missing: model-00002-of-00002.safetensors" in message
    assert f"To read pytorch_model.bin instead, delete {INDEX}" in message


def test_a_tensor_in_another_file_than_the_index_says(source: Path) -> None:
    """transformers reads all files that the index names, and so finds it."""
    content = tensors(source)
    (source / "model.safetensors").unlink()
    write_set(source, INDEX, content)
    index = json.loads((source / INDEX).read_text())
    other = {f"model-{n:05}-of-00002.safetensors" for n in (1, 2)} - {index["weight_map"][PROBE]}
    index["weight_map"][PROBE] = other.pop()
    (source / INDEX).write_text(json.dumps(index))
    assert torch.equal(ours(source), content[PROBE])


@pytest.mark.parametrize("name", [INDEX, "pytorch_model.bin.index.json"])
def test_a_tensor_in_two_files(source: Path, name: str) -> None:
    content = tensors(source)
    (source / "model.safetensors").unlink()
    write_set(source, name, content)
    index = json.loads((source / name).read_text())["weight_map"]
    (other,) = set(index.values()) - {index[PROBE]}
    load, save = (torch.load, torch.save) if other.endswith("bin") else (load_file, save_file)
    save({**load(source / other), PROBE: content[PROBE]}, source / other)
    assert torch.equal(ours(source), content[PROBE])
    save({**load(source / other), PROBE: content[PROBE] + 1}, source / other)
    message = refused(source)
    assert PROBE in message
    assert "with different content" in message


def test_memory_that_tensors_share(source: Path, tmp_path: Path) -> None:
    """Views into one storage, as torch.save keeps them; and what safetensors stores once, under one of two names."""
    content = tensors(source)
    (source / "model.safetensors").unlink()
    joined = torch.cat([content[PROBE.replace("q_proj", name)] for name in ("q_proj", "k_proj", "v_proj")])
    parts = joined.split([64, 32, 32])
    views = {
        PROBE.replace("q_proj", name): part
        for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True)
    }
    torch.save({**content, **views}, source / "pytorch_model.bin")
    assert all(torch.equal(ours(source, name), content[name]) for name in views)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(4, 4)
            self.two = self.one

    shared = tmp_path / "shared"
    shared.mkdir()
    model = Model()
    save_model(model, str(shared / "model.safetensors"))
    (shared / "config.json").write_text('{"model_type": "llama"}')
    assert torch.equal(ours(shared, "two.weight"), model.one.weight)
    assert torch.equal(ours(shared, "one.weight"), model.one.weight)


def scaled(weight: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight in float8, one scale for each block, and their product in bfloat16, made block by block."""
    rows, columns = (-(-size // step) for size, step in zip(weight.shape, block, strict=True))
    small, scales = torch.empty(weight.shape, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
    product = torch.empty(weight.shape, dtype=torch.bfloat16)
    for row in range(rows):
        for column in range(columns):
            place = (
                slice(row * block[0], (row + 1) * block[0]),
                slice(column * block[1], (column + 1) * block[1]),
            )
            scales[row, column] = weight[place].abs().max().float() / 448 + 1e-6 * (row + 2 * column)
            small[place] = (weight[place].float() / scales[row, column]).to(torch.float8_e4m3fn)
            product[place] = (small[place].float() * scales[row, column]).to(torch.bfloat16)
    return small, scales, product


WHOLE = (10**6, 10**6)
SCHEMES: dict[str, tuple[dict[str, Any], str, tuple[int, int], Any]] = {
    "one scale, fp8": ({"quant_method": "fp8"}, "_scale_inv", WHOLE, lambda s: s.reshape(())),
    "one scale, modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, "_scale", WHOLE, lambda s: s.reshape(1)),
    "per channel, compressed-tensors": (
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
        "_scale", (1, 10**6), lambda s: s.bfloat16(),
    ),
    "per channel, fbgemm": ({"quant_method": "fbgemm_fp8"}, "_scale", (1, 10**6), lambda s: s.reshape(-1)),
    "blocks of 128": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "_scale_inv", (128, 128), None),
    "blocks that do not divide": ({"quant_method": "fp8", "weight_block_size": [24, 48]}, "_scale_inv", (24, 48), None),
    "blocks, compressed-tensors": (
        {
            "quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"group_0": {"weights": {"strategy": "block", "block_structure": "32x40"}}},
        },
        "_scale", (32, 40), None,
    ),
    "groups, compressed-tensors": (
        {
            "quant_method": "compressed-tensors", "format": "naive-quantized",
            "config_groups": {"group_0": {"weights": {"strategy": "group", "group_size": 16}}},
        },
        "_scale", (1, 16), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_float8_with_scales_becomes_their_product(source: Path, name: str) -> None:
    stated, ending, block, form = SCHEMES[name]
    content, expected = tensors(source), {}
    for key in [key for key in content if key.endswith("_proj.weight")]:
        small, scales, expected[key] = scaled(content[key], block)
        content[key], content[key + ending] = small, form(scales) if form else scales
        if form and content[key + ending].dtype == torch.bfloat16:
            expected[key] = (small.float() * content[key + ending].float()).bfloat16()
        content[key.replace("weight", "input_scale")] = torch.tensor(1.0)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    change_config(source, quantization_config=stated)
    for key, tensor in expected.items():
        assert torch.equal(ours(source, key), tensor), key
    report = convert(source, source.with_name("out"), "nemo2")
    assert f"8- or 4-bit weights become bfloat16: {len(expected)} tensors" in report["changed"]
    assert sorted(report["left_out"]) == sorted(key.replace("weight", "input_scale") for key in expected)


def test_transformers_computes_with_the_dequantised_weights(source: Path) -> None:
    """It needs a GPU for float8; the configuration is read by transformers, the weights are ours."""
    content = tensors(source)
    plain = load_model(source)
    for key in [key for key in content if key.endswith("_proj.weight")]:
        content[key], content[key + "_scale_inv"], product = scaled(content[key], (128, 128))
        plain.load_state_dict({key: product}, strict=False)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    change_config(source, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        assert torch.equal(load_model(source)(ids).logits, plain(ids).logits)


def test_scales_of_another_shape_are_refused(source: Path) -> None:
    content = tensors(source)
    content[PROBE] = content[PROBE].to(torch.float8_e4m3fn)
    save_file({**content, PROBE + "_scale": torch.ones(3, 5)}, source / "model.safetensors")
    change_config(source, quantization_config={"quant_method": "fp8"})
    message = refused(source)
    assert PROBE in message
    assert "[3, 5]" in message


def test_modelopt_describes_itself_in_a_file_of_its_own(source: Path) -> None:
    content = tensors(source)
    content[PROBE], scales, product = scaled(content[PROBE], WHOLE)
    save_file({**content, PROBE + "_scale": scales.reshape(())}, source / "model.safetensors")
    path = source / "hf_quant_config.json"
    path.write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}))
    assert torch.equal(ours(source), product)
    path.write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert "quantised: modelopt with NVFP4" in refused(source)


METHODS: dict[str, dict[str, Any]] = {
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "bitsandbytes": {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
    "hqq": {"quantization_config": {"quant_method": "hqq"}},
    "compressed-tensors in the format 'pack-quantized'": {
        "quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    },
    "modelopt with NVFP4": {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
    "MLX": {"quantization": {"group_size": 64, "bits": 4}},
    "from-next-year": {"quantization_config": {"quant_method": "from-next-year"}},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_cannot_be_undone_is_refused_by_name(source: Path, method: str) -> None:
    change_config(source, **METHODS[method])
    message = refused(source)
    assert f"is quantised: {method}," in message
    assert "in 16 bits" in message
    assert (".dequantize()" in message) is (method in ("bitsandbytes", "hqq"))


@pytest.mark.parametrize(
    ("name", "dtype", "method"),
    [
        ("model.layers.0.mlp.up_proj.qweight", torch.int32, "GPTQ or AWQ"),
        ("model.layers.0.mlp.up_proj.SCB", torch.float32, "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", torch.uint8, "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.weight_packed", torch.int32, "compressed-tensors"),
        (PROBE, torch.int8, "weights in int8"),
        (PROBE, torch.uint32, "weights in uint32"),
    ],
)
def test_quantised_tensors_are_recognised_without_a_configuration(
    source: Path, name: str, dtype: torch.dtype, method: str
) -> None:
    save_file({**tensors(source), name: torch.zeros(4, 4).to(dtype)}, source / "model.safetensors")
    message = refused(source)
    assert f"is quantised: {method}" in message
    assert name in message


@pytest.mark.parametrize("stated", [{"quantization_config": {"quant_method": "fp8"}}, {}])
def test_float8_without_scales_is_refused(source: Path, stated: dict[str, Any]) -> None:
    content = tensors(source)
    save_file({**content, PROBE: content[PROBE].to(torch.float8_e5m2)}, source / "model.safetensors")
    change_config(source, **stated)
    message = refused(source)
    assert "quantised weights without scales" in message
    assert "float8_e5m2" in message
    with pytest.raises(NemolaunchError, match="without scales"):
        convert(source, source.with_name("copy"), "safetensors")


def test_a_stale_quantisation_is_ignored_and_said(source: Path) -> None:
    expected = tensors(source)[PROBE]
    change_config(source, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    assert torch.equal(ours(source), expected)
    assert said(source) == ["config.json says fp8, but no weight is stored in 8 or 4 bits"]


WRAPPED = {
    "module.": "module.{}",
    "_orig_mod.": "_orig_mod.{}",
    "module., _orig_mod.": "module._orig_mod.{}",
    "_orig_mod., _fsdp_wrapped_module., _checkpoint_wrapped_module.": "_fsdp_wrapped_module._orig_mod.{}",
}


@pytest.mark.parametrize("parts", WRAPPED)
def test_parts_that_wrappers_add_to_names_are_removed_and_said(source: Path, parts: str) -> None:
    content = tensors(source)
    expected = load_model(source)
    inner = {name.replace("layers.0.", "layers.0._checkpoint_wrapped_module.") if "fsdp" in parts else name: t
             for name, t in content.items()}  # fmt: skip
    wrapped = {WRAPPED[parts].format(name): tensor for name, tensor in inner.items()}
    save_file(wrapped, source / "model.safetensors", {"format": "pt"})
    assert said(source) == [f"names are without the parts that wrappers added: {parts}"]
    convert(source, source.with_name("nemo"), "nemo2")
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        assert torch.equal(load_model(source)(ids).logits, expected(ids).logits)
    torch.save(wrapped, source.with_name("state.pt"))
    convert(source.with_name("state.pt"), source.with_name("hf"), "hf", Options(config_from=source))
    assert all(torch.equal(tensors(source.with_name("hf"))[name], tensor) for name, tensor in content.items())


def test_two_tensors_of_one_name_without_wrappers(source: Path) -> None:
    content = tensors(source)
    save_file({**content, "module." + PROBE: content[PROBE].clone()}, source / "model.safetensors")
    assert torch.equal(ours(source), content[PROBE])
    save_file({**content, "module." + PROBE: content[PROBE] + 1}, source / "model.safetensors")
    assert f"two different tensors for {PROBE}" in refused(source)
    save_file({**content, "_fsdp_wrapped_module._flat_param": torch.ones(9)}, source / "model.safetensors")
    assert "FSDP's flattened parameters" in refused(source)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_B.default.weight",
        "model.layers.0.self_attn.q_proj.base_layer.weight",
        "base_model.model.lm_head.weight",
    ],
)
def test_an_adapter_must_be_merged_first(source: Path, name: str) -> None:
    save_file({**tensors(source), name: torch.ones(4, 4)}, source / "model.safetensors")
    message = refused(source)
    assert name in message
    assert "merge_and_unload().save_pretrained" in message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_its_model_must_be_merged_too(source: Path, name: str) -> None:
    (source / name).write_text('{"base_model_name_or_path": "org/base"}')
    message = refused(source)
    assert name in message
    assert "merge_and_unload" in message
    assert ("'org/base'" in message) is (name == "adapter_config.json")


def test_a_model_that_transformers_would_complete_at_random_proves_nothing(source: Path) -> None:
    content = tensors(source)
    del content[PROBE]
    save_file(content, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(NemolaunchError, match=f"misses 1 tensor of its model .*: {PROBE}"):
        load_model(source)
