"""What is missing is named with a command that works where this package was installed from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemolaunch.cli.views.render import guarded
from nemolaunch.system import installation


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metadata of a package that is installed outside a clone, in front of ours."""
    info = tmp_path / "nemolaunch-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: nemolaunch\nVersion: 9.9\nProvides-Extra: tokens\nProvides-Extra: train\n"
        "Requires-Dist: pyyaml>=6\n"
        'Requires-Dist: huggingface_hub<1; extra == "tokens"\n'
        'Requires-Dist: torch; extra == "train"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installation, "SOURCE", tmp_path)
    return info


@pytest.mark.parametrize(
    ("origin", "word"),
    [
        (None, "nemolaunch[train]"),
        ({"url": "file:///w/nemolaunch-9.9.whl"}, "nemolaunch[train] @ file:///w/nemolaunch-9.9.whl"),
        (
            {"url": "https://host/n.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "nemolaunch[train] @ git+https://host/n.git@abc",
        ),
    ],
)
def test_it_is_installed_again_from_where_it_came(
    installed: Path, origin: dict[str, object] | None, word: str
) -> None:
    if origin is not None:
        (installed / "direct_url.json").write_text(json.dumps(origin))
    assert installation.how_to_install("train").endswith(f"-m pip install '{word}'")


def test_a_missing_package_is_told_with_the_extra_that_has_it(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert installation.extra_with("huggingface-hub") == "tokens"
    assert installation.extra_with("torch") == "train"

    @guarded
    def command(argv: list[str] | None = None) -> int:
        raise ModuleNotFoundError("No module named 'huggingface_hub.errors'", name="huggingface_hub.errors")

    assert command([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: huggingface_hub is not installed for ")
    assert said.endswith("-m pip install 'nemolaunch[tokens]'\n")


def test_a_clone_has_its_own_way() -> None:
    assert installation.is_clone()
    assert "/.venv/bin/activate`" in installation.how_to_install("train")
