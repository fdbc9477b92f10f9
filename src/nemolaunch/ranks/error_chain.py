"""The errors that led to an exception, first to last."""

from __future__ import annotations

from nemolaunch.errors import NemolaunchError

# An exhausted iterator is not an error
_CONTROL = (StopIteration, StopAsyncIteration, GeneratorExit)


def chain(error: BaseException) -> list[BaseException]:
    """Return the errors of a chain, first to last: those it was raised from, or while it handled them.

    An error of our own is written for the user, and says what those before it meant.
    """
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        if not isinstance(current, _CONTROL) or not found:
            found.append(current)
        if isinstance(current, NemolaunchError):
            break
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    return found[::-1]


def described(error: BaseException) -> str:
    """Return the type and message of an error, as a traceback ends with them."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
