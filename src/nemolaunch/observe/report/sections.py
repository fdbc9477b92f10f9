"""The sections about one run. All words from a run are escaped."""

from __future__ import annotations

from html import escape

from nemolaunch.observe.history import History
from nemolaunch.observe.report import details, extras, summary
from nemolaunch.observe.report.tables import folded, moment, pairs, table
from nemolaunch.observe.words import size

EXPLAINED = {
    "finished": "reached its last step",
    "running": "still writing",
    "failed": "ended with an error",
    "stopped": "went silent before its last step",
    "not started": "has written nothing yet",
}


def head(history: History) -> str:
    """Name, state, model, progress."""
    state = summary.state(history)
    words = [escape(history.plan.model)] if history.plan else []
    words.append(EXPLAINED[state])
    if history.last_time:
        words.append(f"last heard {moment(history.last_time)}")
    text = (
        "<header><p class='eyebrow'>Run report</p>"
        f"<h1>{escape(history.name)} <span class='state {state.split()[0]}'>{state}</span></h1>\n"
        f"<p class='sub'>{' · '.join(words)}</p>"
    )
    if history.max_steps and state != "finished":
        done = min(1.0, history.last_step / history.max_steps)
        text += f"<div class='progress' role='img' aria-label='{done:.0%} done'><i style='width:{done:.2%}'></i></div>"
    failure = summary.failure_text(history)
    if failure and state != "finished":
        text += f"\n<p class='alert'>{escape(failure)}</p>"
    return text + "</header>"


def parts(history: History) -> dict[str, str]:
    """HTML by part of the page; empty where the run has nothing to say."""
    return {
        "events": _events(history),
        "checkpoints": _checkpoints(history),
        "evaluation": extras.evaluations(history),
        "samples": extras.samples(history),
        "time": extras.times(history),
        "traces": extras.traces(history),
        "data": extras.data(history),
        "plan": _plan(history),
        "findings": extras.findings(history),
        "environment": extras.environment(history),
    }


def _events(history: History) -> str:
    if not history.marks:
        return ""
    rows = [
        (
            f"{mark.step:,}",
            f"<span class='kind {details.severity(mark.kind)}'>{escape(mark.kind)}</span>",
            escape(mark.text),
        )
        for mark in history.marks
    ]
    return table(("Step", "Kind", "What happened"), rows, num_columns=(0,))


def _checkpoints(history: History) -> str:
    found = summary.checkpoints(history)
    if not found:
        return ""
    rows = []
    for checkpoint in found:
        rows.append(
            (
                f"{checkpoint.step:,}",
                *(_at(history, key, checkpoint.step) for key in ("loss", "val_loss")),
                size(checkpoint.size_bytes),
                moment(checkpoint.time),
                f"<code>{escape(checkpoint.path.name)}</code>" + (" (newest)" if checkpoint.last else ""),
            )
        )
    heads = ("After step", "Loss", "Validation loss", "Size", "Written", "Folder")
    return table(heads, rows, num_columns=(0, 1, 2, 3, 4))


def _at(history: History, key: str, step: int) -> str:
    """A figure at a step, or the last known before it."""
    series = history.series.get(key)
    value = series.at(step) if series else None
    return "not finite" if history.lost(key, step) else "–" if value is None else f"{value:.3f}"


def _plan(history: History) -> str:
    if not history.plan:
        return ""
    text = pairs((escape(label), escape(value)) for label, value in summary.about(history.plan))
    if history.plan.left_out:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in history.plan.left_out)
        text += f"<p class='sub'>Left out in the rehearsal:</p><ul>{items}</ul>"
    flags = [
        (f"<code>{escape(flag)}</code>", escape(value), escape(origin))
        for flag, value, origin in summary.flags(history.plan)
    ]
    return text + folded(
        f"The {len(flags)} flags that are not plain defaults", table(("Flag", "Value", "From"), flags)
    )
