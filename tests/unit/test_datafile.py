"""What a path in --dataset-dir stands for."""

from __future__ import annotations

from pathlib import Path

from check_jobs import write_data

from nemolaunch.facts.data_files import prefixes_of
from nemolaunch.tokenization.merge import expand


def test_a_pair_is_found_by_its_prefix_its_files_and_its_folders(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "preprocessed"
    folder.mkdir(parents=True)
    prefix = write_data(folder)
    for path in (prefix, f"{prefix}.bin", f"{prefix}.idx", folder / "text_document", folder, folder.parent):
        assert prefixes_of(str(path)) == [prefix]


def test_megatrons_folder_of_indices_does_not_hide_the_pair_of_the_same_name(tmp_path: Path) -> None:
    """GPTDataset creates PREFIX/cache in the first training."""
    prefix = write_data(tmp_path)
    (tmp_path / "text_document" / "cache").mkdir(parents=True)
    assert prefixes_of(prefix) == [prefix]
    assert expand([prefix]) == [Path(prefix)]
