"""The split of decoder layers over pipeline stages."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.catalogue import Architecture


@dataclass(frozen=True, kw_only=True)
class PipelineSplit:
    """A split of layers over stages, in the terms of NeMo's `MegatronStrategy`.

    Attributes:
        first, last: layers of the first and last stage if they differ from the middle stages.
        embedding, loss: whether the embedding and the output layer count as one layer each.
        layers: decoder layers of each stage, over all its virtual stages.
    """

    first: int | None = None
    last: int | None = None
    embedding: bool = False
    loss: bool = False
    layers: tuple[int, ...]


def pipeline_split(
    architecture: Architecture, stages: int, virtual: int | None = None, recipe_stages: int | None = None
) -> PipelineSplit | None:
    """Return the split for `stages` pipeline stages of `virtual` virtual stages each; None if there is none.

    Uses the recipe's uneven split if it applies, else an even one. A different number of layers in the first and last
    stage is meant for the recipe's own number of stages, `recipe_stages`, and only used with that.
    """
    if stages < 1 or (virtual is not None and virtual < 1):
        return None
    a, chunks = architecture, virtual or 1
    if stages == 1:
        return PipelineSplit(layers=(a.num_layers,))
    ends = (a.num_layers_in_first_pipeline_stage, a.num_layers_in_last_pipeline_stage)
    split = None
    if any(ends) and stages == recipe_stages:
        split = _with_ends(a.num_layers, stages, chunks, *ends)
    elif a.account_for_embedding_in_pipeline_split or a.account_for_loss_in_pipeline_split:
        split = _counting_ends(a, stages, chunks)
    return split or _even(a.num_layers, stages, chunks)


def _even(layers: int, stages: int, chunks: int) -> PipelineSplit | None:
    if layers % (stages * chunks):
        return None
    return PipelineSplit(layers=(layers // stages,) * stages)


def _with_ends(
    layers: int, stages: int, chunks: int, first: int | None, last: int | None
) -> PipelineSplit | None:
    middle = stages - (first is not None) - (last is not None)
    left = layers - (first or 0) - (last or 0)
    if (first or 0) % chunks or (last or 0) % chunks or left < 0 or (left and not middle):
        return None
    if middle and (left % (middle * chunks) or not left):
        return None
    each = (left // middle,) * middle if middle else ()
    ends = ((first,) if first is not None else ()), ((last,) if last is not None else ())
    return PipelineSplit(first=first, last=last, layers=ends[0] + each + ends[1])


def _counting_ends(a: Architecture, stages: int, chunks: int) -> PipelineSplit | None:
    embedding, loss = a.account_for_embedding_in_pipeline_split, a.account_for_loss_in_pipeline_split
    counted = a.num_layers + embedding + loss
    if counted % (stages * chunks):
        return None
    layers = [counted // stages] * stages
    layers[0] -= embedding
    layers[-1] -= loss
    return PipelineSplit(embedding=embedding, loss=loss, layers=tuple(layers))
