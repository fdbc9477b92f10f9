"""Sections of the report that stand only where a run has something to say about them."""

from __future__ import annotations

from html import escape
from typing import Any

from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.observe.report import details, summary
from nemolaunch.observe.report.tables import pairs, table
from nemolaunch.observe.words import duration, short_time, size


def evaluations(history: History) -> str:
    """Figures of the checkpoints that were evaluated, a row each."""
    names = list(dict.fromkeys(name for row in history.evaluations for name in evaluation_figures(row)))
    if not names:
        return ""
    rows = []
    for row in history.evaluations:
        found = evaluation_figures(row)
        cells = [f"{found[name]:.4f}" if name in found else "–" for name in names]
        rows.append((f"{row['step']:,}", *cells))
    heads = [escape(name.removeprefix("eval_").replace("_", " ")) for name in names]
    text = table(("After step", *heads), rows, num_columns=tuple(range(len(names) + 1)))
    return text + _conditions(history)


def _conditions(history: History) -> str:
    """Under which conditions the figures hold."""
    for row in reversed(history.evaluations):
        of: dict[str, Any] | None = row.get("ppl_of")
        if of:
            return (
                f"<p class='sub'>Perplexity of {escape(str(of['data']))}: {of['tokens']:,} tokens, "
                f"context length {of['context_length']}, stride {of['stride']}.</p>"
            )
        of = row.get("mlm_of")
        if of:
            return (
                f"<p class='sub'>{of['masked_tokens']:,} masked tokens of {escape(str(of['data']))}, "
                f"context length {of['context_length']}.</p>"
            )
    return ""


def samples(history: History) -> str:
    """What the model wrote after the same prompts, over time."""
    by_prompt: dict[str, list[tuple[int, str]]] = {}
    for row in history.evaluations:
        for sample in row.get("samples", []):
            by_prompt.setdefault(sample["prompt"], []).append((row["step"], sample["text"]))
    text = ""
    for prompt, made in by_prompt.items():
        items = "".join(
            f"<div><dt>step {step:,}</dt><dd><b>{escape(prompt)}</b>{escape(words)}</dd></div>\n"
            for step, words in made
        )
        text += f"<dl class='samples'>\n{items}</dl>"
    return text


def times(history: History) -> str:
    """Where the time went, and how even the steps were."""
    spent = details.time_spent(history)
    if not spent:
        return ""
    total = sum(seconds for _, seconds in spent) or 1.0
    bar = "".join(
        f"<i style='width:{seconds / total:.3%};background:var(--c{i})'></i>"
        for i, (_, seconds) in enumerate(spent)
    )
    rows = [
        (
            f"<span class='swatch' style='background:var(--c{i})'></span>{label}",
            duration(seconds),
            f"{seconds / total:.1%}",
        )
        for i, (label, seconds) in enumerate(spent)
    ]
    even = [(label, short_time(seconds)) for label, seconds in details.step_times(history)]
    return (
        f"<div class='two'><div><div class='stack' aria-hidden='true'>{bar}</div>"
        + table(("Where it went", "Time", "Share"), rows, num_columns=(1, 2))
        + "</div><div>"
        + table(("A step", "Time"), even, num_columns=(1,))
        + "</div></div>"
    )


def traces(history: History) -> str:
    """Files that profilers wrote."""
    found = summary.traces(history.run)
    rows = [
        (f"<code>{escape(str(path))}</code>", size(path.stat().st_size), _opened_with(path.name))
        for path in found
    ]
    return table(("File", "Size", "Opened with"), rows, num_columns=(1,)) if rows else ""


def _opened_with(name: str) -> str:
    return "Nsight Systems" if name.endswith(".nsys-rep") else "ui.perfetto.dev or chrome://tracing"


def data(history: History) -> str:
    """The data mixture: asked for and seen."""
    found = details.mixture(history)
    if not found:
        return ""
    rows = [
        (
            escape(part.prefix),
            "by size" if part.asked is None else _bar(part.asked, "--quiet"),
            "–" if part.achieved is None else _bar(part.achieved, "--c0"),
            "–" if part.samples is None else f"{part.samples:,}",
        )
        for part in found
    ]
    heads = ("Prefix", "Share asked for", "Share seen", "Samples seen")
    return table(heads, rows, num_columns=(3,))


def _bar(share: float, colour: str) -> str:
    return f"<span class='bar'><i style='width:{share:.2%};background:var({colour})'></i></span>{share:.2%}"


def findings(history: History) -> str:
    """What the check said before the start."""
    found = details.findings(history)
    items = "".join(f"<li>{escape(finding)}</li>" for finding in found)
    return f"<ul>{items}</ul>" if items else ""


def environment(history: History) -> str:
    """Versions and hardware."""
    if not history.environment:
        return ""
    return pairs((escape(str(name)), escape(str(value))) for name, value in history.environment.items())
