"""Logins to the Hugging Face Hub and Weights & Biases. Keys are only sent to their own server and never shown."""

from __future__ import annotations

import base64
import json
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nemolaunch.doctor.verdict import Verdict, bad, good, note, warning

TIMEOUT_S = 10
HUB = "https://huggingface.co"
WANDB = "https://api.wandb.ai"


def hub() -> Iterator[Verdict]:
    """Check whether the Hub can be reached and accepts the token."""
    server = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        yield note("logins", "HF_HUB_OFFLINE is set: nothing is downloaded from the Hugging Face Hub")
        return
    token = hub_token()
    if token is None:
        yield note(
            "logins",
            "no token for the Hugging Face Hub: gated models and data cannot be downloaded",
            "export HF_TOKEN=…",
        )
        return
    answer = _ask(f"{server}/api/whoami-v2", {"Authorization": f"Bearer {token}"})
    if isinstance(answer, str):
        yield warning(
            "logins",
            f"{server} cannot be reached: {answer}",
            "download tokenizers and models elsewhere, and use local folders",
        )
    elif answer.get("status") in (401, 403):
        yield bad(
            "logins",
            f"{server} rejects the token",
            "create a new one in the Hub's settings, and export HF_TOKEN=…",
        )
    else:
        yield good("logins", f"Hugging Face Hub: {answer.get('name', 'the token is accepted')}")


def hub_token() -> str | None:
    """Return HF_TOKEN, or the token that `hf auth login` has stored."""
    if os.environ.get("HF_TOKEN"):
        return os.environ["HF_TOKEN"]
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    try:
        return Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").read_text().strip() or None
    except OSError:
        return None


def wandb() -> Iterator[Verdict]:
    """Check whether W&B accepts the key."""
    server = os.environ.get("WANDB_BASE_URL", WANDB).rstrip("/")
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        yield note("logins", f"WANDB_MODE={os.environ['WANDB_MODE']}: nothing is sent to W&B")
        return
    key = wandb_key(server)
    if key is None:
        yield note(
            "logins",
            "no API key for W&B: --wandb cannot be used",
            "export WANDB_API_KEY=…, or WANDB_MODE=offline",
        )
        return
    login = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    answer = _ask(f"{server}/graphql", headers, b'{"query": "{viewer {username}}"}')
    if isinstance(answer, str):
        yield warning("logins", f"{server} cannot be reached: {answer}", "export WANDB_MODE=offline")
        return
    viewer = (answer.get("data") or {}).get("viewer")
    if viewer:
        yield good("logins", f"W&B: {viewer.get('username')}")
    else:
        yield bad(
            "logins",
            f"{server} rejects the key",
            "copy the key from W&B's settings, and export WANDB_API_KEY=…",
        )


def wandb_key(server: str) -> str | None:
    """Return WANDB_API_KEY, or the key that `wandb login` has stored."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(server).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def _ask(url: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any] | str:
    """Return a server's JSON answer, `{"status": …}` for an HTTP error, or a message if it cannot be reached."""
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return answer if isinstance(answer, dict) else {}
