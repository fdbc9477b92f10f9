"""Search with Optuna: it draws the next trial from the results so far. Its study lies in the folder of the sweep.

Optuna's journal is a file that is only appended to, so that a search which was killed goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.job import spec_of
from nemolaunch.sweeps.points import Point
from nemolaunch.sweeps.space import RUN, Range, Space, point
from nemolaunch.system.installation import how_to_install

JOURNAL, STUDY = "optuna.log", "sweep"
LIBRARY = "optuna:"
# Optuna's samplers that draw numbers and words alike and need no further package
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "qmc": "QMCSampler"}


class Study:
    """The trials of a search, kept by Optuna.

    Args:
        sampler: `optuna:NAME`, one of `SAMPLERS`.
        seed: of what is drawn. It moves on with the trials, as a search that goes on would otherwise draw the first
            ones again.

    Raises:
        UsageError: there is no such sampler.
        NemolaunchError: Optuna is not installed, or the study cannot be read.
    """

    def __init__(self, folder: Path, space: Space, sampler: str, seed: int) -> None:
        kind = _sampler(sampler)
        self._optuna = optuna = _library()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
            storage = optuna.storages.JournalStorage(backend)
            self._study = optuna.create_study(storage=storage, study_name=STUDY, load_if_exists=True)
            self._study.sampler = getattr(optuna.samplers, kind)(seed=seed + len(self._study.trials))
        except OSError as error:
            raise NemolaunchError(f"cannot write {folder / JOURNAL}: {error.strerror}") from None
        except (ValueError, KeyError) as error:
            raise NemolaunchError(f"{folder / JOURNAL} is not the journal of a study: {error}") from None
        self._space = {name: self._distribution(name, values) for name, values in space.items()}

    def _distribution(self, name: str, values: Any) -> Any:
        kinds = self._optuna.distributions
        if not isinstance(values, Range):
            return kinds.CategoricalDistribution(values.words)
        kind = kinds.IntDistribution if spec_of(name).kind is int else kinds.FloatDistribution
        return kind(values.low, values.high, log=values.log)

    def interrupted(self) -> list[Point]:
        """Return the runs of trials that began and were not told, because the search was interrupted."""
        found = self._trials("RUNNING")
        for trial in found:
            if set(trial.params) != set(self._space):  # it was not drawn to its end
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        return [self._point(trial) for trial in found if set(trial.params) == set(self._space)]

    def succeeded(self) -> list[Point]:
        """Return the runs of trials that have a result."""
        return [self._point(trial) for trial in self._trials("COMPLETE")]

    @property
    def num_trials(self) -> int:
        """The number of trials so far, failed and interrupted ones too."""
        return len(self._study.trials)

    def next(self) -> Point:
        """Draw a trial. Return its run.

        Raises:
            UsageError: values of a list differ from those of earlier trials, which Optuna does not allow.
        """
        try:
            return self._point(self._study.ask(self._space))
        except ValueError as error:
            raise UsageError(
                f"the search has begun with other values: {error}; give the earlier ones, or another --experiment"
            ) from None

    def tell(self, run: Point, result: float | None) -> None:
        """Tell what a trial has reached; None if it failed."""
        state = self._optuna.trial.TrialState
        number = int(run.name.removeprefix(RUN.format("")))
        if result is None:
            self._study.tell(number, state=state.FAIL)
        else:
            self._study.tell(number, result)

    def _trials(self, state: str) -> list[Any]:
        return [trial for trial in self._study.trials if trial.state.name == state]

    def _point(self, trial: Any) -> Point:
        params: Mapping[str, Any] = trial.params
        return point(RUN.format(trial.number), params)


def _sampler(word: str) -> str:
    """Return the name of Optuna's class for `optuna:NAME`."""
    if not word.startswith(LIBRARY) or word.removeprefix(LIBRARY) not in SAMPLERS:
        names = ", ".join(LIBRARY + name for name in SAMPLERS)
        raise UsageError(f"--sampler {word}: there are {names}")
    return SAMPLERS[word.removeprefix(LIBRARY)]


def check_sampler(word: str) -> None:
    """Refuse a sampler that does not exist, or cannot be had.

    Raises:
        UsageError: there is no such sampler.
        NemolaunchError: Optuna is not installed.
    """
    _sampler(word)
    _library()


def _library() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise NemolaunchError(f"--sampler needs Optuna: {how_to_install('optuna')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
