"""Container images: as an engine names them, and how one gets onto a machine."""

from __future__ import annotations

IMAGE_FILES = (".sqsh", ".squashfs", ".sif", ".img")


def is_file(image: str) -> bool:
    """Return whether an image is a file rather than a name in a registry."""
    return image.startswith(("/", "./", "../", "~")) or image.endswith(IMAGE_FILES)


def image_word(engine: str, image: str) -> str:
    """Return the image as the engine names it: apptainer reads registries as `docker://`."""
    is_name = "://" not in image and not is_file(image)
    return f"docker://{image}" if engine == "apptainer" and is_name else image


def pull_command(engine: str, image: str) -> str:
    """Return the shell command that brings an image to this machine."""
    if engine != "apptainer":
        return f"{engine} pull {image}"
    return f"apptainer pull {file_of(image)} {image_word(engine, image)}"


def file_of(image: str) -> str:
    """Return the file into which `apptainer pull` writes an image of a registry."""
    return "./" + image.rpartition("/")[2].replace(":", "_") + ".sif"
