"""Short messages to a webhook in Slack's form, which many services accept. Its URL is a secret."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

VARIABLE = "NEMOLAUNCH_WEBHOOK_URL"
TIMEOUT_S = 10.0

_pending: list[threading.Thread] = []


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to follow: the message is for the host that the user named."""


def url_fault(url: str) -> str | None:
    """Return what is wrong with a webhook's URL, without showing it; None if nothing is."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    return (
        None if good and url.isprintable() and " " not in url else f"{VARIABLE} is not an http or https URL"
    )


def send(text: str, on_failure: Callable[[str], None], environment: Any = os.environ) -> None:
    """Send a message from a thread of its own, so that nothing waits for the network. It never raises.

    Args:
        on_failure: called from that thread with the reason, in which the URL does not occur.
    """
    url = environment.get(VARIABLE, "")
    thread = threading.Thread(target=_post, args=(url, text, on_failure), name="webhook", daemon=True)
    _pending[:] = [other for other in _pending if other.is_alive()]
    with contextlib.suppress(RuntimeError):  # the interpreter is ending, or there are too many threads
        thread.start()
        _pending.append(thread)


def flush() -> None:
    """Wait until the messages are sent, but not longer than one may take."""
    for thread in _pending:
        thread.join(TIMEOUT_S + 1)


def _post(url: str, text: str, on_failure: Callable[[str], None]) -> None:
    try:
        if fault := url_fault(url):
            return on_failure(fault)
        request = urllib.request.Request(
            url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        on_failure(f"the webhook answered with HTTP status {error.code}")
    except Exception as error:  # a message is no reason to disturb a training
        reason = getattr(error, "reason", error)
        said = getattr(reason, "strerror", None) or type(reason).__name__
        on_failure(f"the webhook cannot be reached: {said}")
