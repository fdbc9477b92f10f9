"""Evaluations of checkpoints in TensorBoard, written without torch or TensorFlow."""

from __future__ import annotations

import time
from typing import Any

from nemolaunch.observe.history import evaluation_figures
from nemolaunch.run.folder import RunDir

FOLDER = "evaluations"  # of its own: TensorBoard stops reading a file once the folder has a newer one


def log_evaluation(run: RunDir, row: dict[str, Any]) -> None:
    """Write the figures and samples of a checkpoint to the run's TensorBoard folder, if TensorBoard is installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return
    summaries = [scalar_pb(name.replace(" ", "/"), value) for name, value in evaluation_figures(row).items()]
    summaries += [
        text_pb(f"samples/{number}", f"**{sample.get('prompt', '')}**{sample.get('text', '')}")
        for number, sample in enumerate(row.get("samples", ()))
    ]
    writer = EventFileWriter(str(run.tensorboard / FOLDER))
    for summary in summaries:
        writer.add_event(Event(step=row["step"], wall_time=time.time(), summary=summary))
    writer.close()
