"""A run in an object store: where its parts are there, what is to be uploaded, and the record of what has been.

Below the URL of a run there are `checkpoints/NAME/`, each complete once its marker is there, and `run/` with the plan,
metrics and logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import BRIDGE_TRACKER, RunDir, consumed_samples, is_bridge, read_json, step_of
from nemolaunch.system import remote, upload
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.plain_values import from_plain

CHECKPOINTS, RUN = "checkpoints", "run"
# Of the run folder; the rest is caches, locks and state of this machine
SMALL = ("plan.json", "metrics.jsonl", "evaluations.jsonl", "labels.json", "migration.json", "finished.json")
FOLDERS = ("logs", "tb_logs", "tokenizer", "stream")


@dataclass(frozen=True)
class UploadState:
    """How far the upload of a run is.

    Attributes:
        uploaded: names of the checkpoints that are complete in the store.
        under_way: the checkpoint that is being sent, and how much of it has arrived, in bytes.
        error: why the last attempt failed; it is repeated.
        time: when this was written, Unix time.
    """

    url: str
    uploaded: tuple[str, ...] = ()
    under_way: str | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    error: str | None = None
    time: float = 0.0

    def __str__(self) -> str:
        if self.error:
            return f"upload to {self.url} failed: {self.error}"
        if self.under_way:
            share = self.done_bytes / max(1, self.total_bytes)
            return f"uploading {self.under_way} to {self.url}: {share:.0%} of {self.total_bytes / 1e9:.2f} GB"
        return f"{len(self.uploaded)} checkpoint{'s' * (len(self.uploaded) != 1)} uploaded to {self.url}"


def url_below(url: str, experiment: str) -> str:
    """Return where a run is below the URL that `--upload` gives: in a folder with the name of the experiment."""
    return remote.join(url, experiment)


def state_of(run: RunDir) -> UploadState | None:
    """Return how far the upload of a run is; None if it has none."""
    found = read_json(run.upload)
    try:
        return from_plain(UploadState, found) if found else None
    except (TypeError, ValueError, KeyError):
        return None


class Uploader:
    """Uploads a run's checkpoints as they are completed, oldest first, and then its small files.

    Attributes:
        state: how far it is.

    Args:
        tell: takes what is done, and why something failed.
        show: takes each state, several a second.
    """

    def __init__(
        self,
        run: RunDir,
        url: str,
        tell: Callable[[str], None],
        show: Callable[[UploadState], None] = lambda _: None,
    ) -> None:
        self.run, self.url, self.tell, self.show = run, url, tell, show
        self.uploaded: list[
            str
        ] = []  # each attempt compares what is there: a checkpoint may have been made again
        self.note()

    def note(self, **values: object) -> None:
        """Write the record that `status` reads."""
        self.state = UploadState(self.url, tuple(self.uploaded), time=time.time(), **values)  # type: ignore[arg-type]
        write_json(self.run.upload, asdict(self.state), durable=False)
        self.show(self.state)

    def advance(self) -> bool:
        """Upload what is not there yet. Return whether all is; a failure is recorded and told, never raised."""
        try:
            for checkpoint in self.run.complete_checkpoints():
                if checkpoint.name not in self.uploaded:
                    self._send(checkpoint)
            self._send_small()
        except (OSError, NemolaunchError) as error:
            text = getattr(error, "strerror", None) or str(error)
            self.note(error=text)
            self.tell(str(self.state))
            return False
        self.note()
        return True

    def _send(self, checkpoint: Path) -> None:
        url = remote.join(self.url, CHECKPOINTS, checkpoint.name)
        total = sum(p.stat().st_size for p in checkpoint.rglob("*") if p.is_file())
        begun = time.monotonic()

        def report(done: int) -> None:
            self.note(under_way=checkpoint.name, done_bytes=done, total_bytes=total)

        self.note(under_way=checkpoint.name, total_bytes=total)
        try:
            sent = upload.upload_folder(checkpoint, url, report)
        except FileNotFoundError:
            if checkpoint.exists():
                raise
            self.tell(
                f"{checkpoint.name} was removed while it was uploaded: it is not complete in {self.url}"
            )
            return
        self.uploaded.append(checkpoint.name)
        again = f", {sent.skipped} files were there" if sent.skipped else ""
        self.tell(
            f"uploaded {checkpoint.name}: {total / 1e9:.2f} GB in {time.monotonic() - begun:.0f} s{again}"
        )

    def _send_small(self) -> None:
        files = [self.run.root / name for name in SMALL]
        files += [path for name in FOLDERS for path in sorted((self.run.root / name).rglob("*"))]
        upload.upload_files(
            (path, remote.join(self.url, RUN, str(path.relative_to(self.run.root))))
            for path in files
            if path.is_file()
        )


def fetch(url: str, target: Path, tell: Callable[[str], None]) -> RunDir:
    """Download the plan and the newest complete checkpoint of a run into a new folder. Return the run.

    Raises NemolaunchError: there is no such run, it has no complete checkpoint, or the store or disk refuses.
    """
    run = RunDir(target)
    try:
        return _fetch(url, run, tell)
    except OSError as error:
        raise NemolaunchError(f"cannot fetch {error.filename or url}: {error.strerror or error}") from None


def _fetch(url: str, run: RunDir, tell: Callable[[str], None]) -> RunDir:
    small = remote.find(remote.join(url, RUN))
    base = remote.join(url, RUN) + "/"
    names = {file.url: file.url[len(base) :] for file in small if file.url.startswith(base)}
    if "plan.json" not in names.values():
        raise NemolaunchError(f"{url} is not a run: it has no {RUN}/plan.json")
    newest = newest_complete(url)
    if newest is None:
        raise NemolaunchError(f"{url} has no complete checkpoint: none has its {upload.MARKER}")
    folder = run.checkpoints / newest
    if not folder.exists():
        tell(f"fetching {newest} from {url}")
        upload.download_folder(remote.join(url, CHECKPOINTS, newest), folder)
    if is_bridge(folder):
        (run.checkpoints / BRIDGE_TRACKER).write_text(str(step_of(folder) + 1), encoding="utf-8")
    for source, name in sorted(
        names.items(), key=lambda pair: pair[1] == "plan.json"
    ):  # the plan makes it a run
        if ".." in Path(name).parts or Path(name).is_absolute() or name == "finished.json":
            continue
        path = run.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        remote.get(source, str(path))
    return run


def newest_complete(url: str) -> str | None:
    """Return the name of the newest checkpoint of a run whose marker is there. Raises OSError."""
    names = remote.names_in(remote.join(url, CHECKPOINTS))
    newest_first = sorted(names, key=lambda n: (consumed_samples(Path(n)), step_of(Path(n))), reverse=True)
    return next((n for n in newest_first if upload.is_complete(remote.join(url, CHECKPOINTS, n))), None)
