"""Suggested layouts are sorted by speed, fit, and pass the checks."""

from __future__ import annotations

import json
import shlex

import pytest
from check_jobs import findings

from nemolaunch import arithmetic, catalogue
from nemolaunch.cli.commands import suggest
from nemolaunch.cli.commands.pretrain import parser
from nemolaunch.estimate import layout_of_recipe
from nemolaunch.estimate.published import measurements
from nemolaunch.estimate.suggest import Suggestion, reasons, suggestions
from nemolaunch.findings import errors


def found(name: str, world: int, gpu: str = "h100", **changes: int) -> list[Suggestion]:
    model = catalogue.model(name)
    rows, _ = arithmetic.model_vocab_rows(model, None, 8)
    base = layout_of_recipe(model.recipe, world_size=world, gpus_per_node=min(8, world), **changes)
    return suggestions(model.architecture, base, catalogue.gpu(gpu), rows)


@pytest.mark.parametrize(
    ("name", "world"),
    [("llama3_8b", 8), ("llama3_70b", 64), ("mixtral_8x7b", 64), ("qwen3_30b_a3b", 16), ("nemotronh_8b", 64)],
)
def test_every_suggestion_passes_the_checks(name: str, world: int) -> None:
    ranked = found(name, world)
    assert ranked
    for s in ranked[:20]:
        given = vars(parser().parse_args(shlex.split(suggest.flags(s.layout))))
        own = {key: value for key, value in given.items() if key in vars_of_layout()}
        said = findings(name, num_nodes=world // 8, num_gpus=8, seq_length=s.layout.seq_length, **own)
        assert not errors(said), (suggest.flags(s.layout), [str(f) for f in said])


def vars_of_layout() -> set[str]:
    words = "-TP 2 -PP 2 -VPP 2 -CP 2 -SP -EP 2 -ETP 2 -mbs 1 -gbs 1 --recompute-granularity full"
    words += " --recompute-method uniform --recompute-num-layers 1"
    plain = vars(parser().parse_args([])).keys()
    return set(vars(parser().parse_args(shlex.split(words)))) - plain


def test_they_are_ranked_and_fit() -> None:
    ranked = found("llama3_70b", 64, "h200")
    times = [s.time.total for s in ranked]
    assert times == sorted(times)
    assert all(s.memory.total <= catalogue.gpu("h200").memory_bytes for s in ranked)
    sizes = [(s.layout.tensor, s.layout.pipeline, s.layout.context, s.layout.expert) for s in ranked]
    assert len(sizes) == len(set(sizes))


def test_nvidias_own_layout_comes_first_where_memory_decides() -> None:
    for name, world in (("llama3_8b", 8), ("llama3_70b", 32), ("mistral_nemo_12b", 8)):
        own, first = layout_of_recipe(catalogue.recipe(name)), found(name, world)[0].layout
        assert (first.tensor, first.pipeline, first.context) == (own.tensor, own.pipeline, own.context), name


def test_the_difference_between_two_is_explained_in_full() -> None:
    first, second, *_ = found("llama3_70b", 64, "h200")
    saved = sum(seconds for _, seconds in reasons(first, second))
    assert saved == pytest.approx(second.time.total - first.time.total, rel=0.1)


def test_the_command_prints_flags_that_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest.main(["-M", "llama3_70b", "-N", "8", "-G", "8", "--gpu", "h200", "-gbs", "512"]) == 0
    out = capsys.readouterr().out
    assert "1 before 2:" in out
    assert parser().parse_args(shlex.split(out.splitlines()[-1])).global_batch_size == 512
    assert suggest.main(["-M", "llama3_8b", "--top", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-M", "llama31_405b"], "no layout of llama31_405b fits 8 x h100"),
        (["-M", "llama3_8b", "-G", "7", "-gbs", "13"], "change -N, -G or -gbs"),
        (["-M", "llama3_8b", "--top", "0"], "--top 0 is out of range"),
        (["-M", "llama3_8b", "--gpu", "h1000"], "there is no GPU 'h1000'"),
        (["-M", "llama3_8b", "-N", "0"], "--num-nodes 0 is not within"),
        ([], "--model-name is required"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest.main(words) in (1, 2)
    assert said in capsys.readouterr().err


def test_every_published_run_names_a_model_a_gpu_and_a_source() -> None:
    assert len(measurements()) > 40
    for m in measurements():
        assert catalogue.model(m.model)
        assert catalogue.gpu(m.gpu)
        assert m.source
        assert m.layout.world_size % (m.layout.tensor * m.layout.pipeline * m.layout.context) == 0
