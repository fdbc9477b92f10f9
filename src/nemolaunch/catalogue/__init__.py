"""Models, configurations, GPUs and presets as data, and their lookup by name.

Importing this package reads no data; each table is read from its JSON file on first use.
"""

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.conversion import conversion_classes, hf_configs
from nemolaunch.catalogue.gpu_table import Gpu, gpu, gpu_seen, gpus
from nemolaunch.catalogue.lookup import ModelSpec, flavours, model, only_in_bridge, recipe, recipes
from nemolaunch.catalogue.names import did_you_mean, nearest
from nemolaunch.catalogue.presets import Preset, preset, presets
from nemolaunch.catalogue.recipe_table import Recipe
from nemolaunch.catalogue.rehearsal import Rehearsal, cpu_rehearsal

__all__ = [
    "Architecture", "Gpu", "ModelSpec", "Preset", "Recipe", "Rehearsal", "conversion_classes",
    "cpu_rehearsal", "did_you_mean", "flavours", "gpu", "gpu_seen", "gpus", "hf_configs", "model",
    "nearest", "only_in_bridge", "preset", "presets", "recipe", "recipes",
]  # fmt: skip
