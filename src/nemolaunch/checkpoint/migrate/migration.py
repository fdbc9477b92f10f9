"""Move a training checkpoint between NeMo 2, Megatron-Bridge and Megatron-LM, with its optimizer and place in the data.

All are distributed checkpoints of the same tensors, by whatever layout. The data files are linked, their names written
anew, and what a framework keeps besides tensors is translated; no tensor is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.bridge import folder as bridge
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.tokenizer_check import tokenizer_check
from nemolaunch.checkpoint.megatron import description
from nemolaunch.checkpoint.megatron.folder import MegatronFolder
from nemolaunch.checkpoint.megatron.names import WRAPPER
from nemolaunch.checkpoint.megatron_lm import folder as megatron_lm
from nemolaunch.checkpoint.migrate import (
    bridge_side,
    linking,
    megatron_lm_side,
    nemo2_side,
    refusals,
)
from nemolaunch.checkpoint.migrate import metadata as metadata_file
from nemolaunch.checkpoint.migrate import optimizer as tree
from nemolaunch.checkpoint.migrate.models import (
    BRIDGE,
    MEGATRON_LM,
    NEMO2,
    TITLES,
    check_target,
    config_check,
    rows_of,
    with_rows,
)
from nemolaunch.checkpoint.migrate.names import is_left_out, kind_of, renamed
from nemolaunch.checkpoint.migrate.progress import Layout, Progress
from nemolaunch.checkpoint.nemo2 import context
from nemolaunch.checkpoint.nemo2 import folder as nemo2
from nemolaunch.checkpoint.nemo2.recorded import recorded
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.formats import detect
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.saved_values import saved_run
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.run.folder import RunDir

Advance = Callable[[int], None]
READ: dict[str, Callable[[Path], MegatronFolder]] = {
    NEMO2: nemo2.read_folder,
    BRIDGE: partial(bridge.read_folder, describe=description.to_nemo),
    MEGATRON_LM: megatron_lm.read_folder,
}


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A training checkpoint that becomes one of the other framework, decided in full before anything is written.

    Attributes:
        form, to: of the source and of the result, "nemo2", "bridge" or "megatron-lm".
        folder: the source.
        stored: its tensors and objects.
        names: those of the source -> those of the result.
        progress, layout: the state of the training, and how it was spread over processes.
        config: the model's, in NeMo's terms, with the number of rows that the embedding has.
        tokenizer: the folder with the tokenizer.
        linked: whether the files are expected not to be copied.
        left_out: the names of what is not taken along.
        changed: what is different in the result, in words.
    """

    form: str
    to: str
    folder: MegatronFolder
    stored: DcpSource
    names: Mapping[str, str]
    progress: Progress
    layout: Layout
    config: NemoConfig
    tokenizer: Path
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    methods: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The files with what is taken along."""
        return sorted({span.path for (name, _), span in self.stored.spans.items() if name in self.names})

    @property
    def nbytes(self) -> int:
        """The size of the data files in bytes."""
        return sum(path.stat().st_size for path in self.files)

    def disk_bytes(self, output: Path) -> int:
        """Return the space that the result needs besides a few files."""
        return 0 if all(linking.can_link(path, output) for path in self.files[:1]) else self.nbytes

    @property
    def title(self) -> str:
        """A short description."""
        return f"{TITLES[self.form]} → {TITLES[self.to]}, with the optimizer, at step {self.progress.step:,}"

    def write(self, output: Path, advance: Advance) -> None:
        """Write the result, reporting the bytes linked or copied to `advance`."""
        weights = self._weights(output)
        weights.mkdir(parents=True)
        for path in self.files:
            self.methods[path.name] = linking.put(path, weights / path.name, advance)
        metadata_file.rewrite(self.stored.folder, weights, self.names)
        describe = {
            NEMO2: self._describe_nemo2,
            BRIDGE: self._describe_bridge,
            MEGATRON_LM: self._describe_megatron_lm,
        }
        describe[self.to](weights)
        for method in sorted(set(self.methods.values())):
            count = sum(how == method for how in self.methods.values())
            self.changed.append(f"{count} of {len(self.files)} data files: {linking.WORDS[method]}")

    def verify(self, output: Path, advance: Advance) -> list[Check]:
        """Compare the result with the source: what is in it, where, the bytes, and how far the training is."""
        weights = self._weights(output)
        result = DcpSource(weights)
        try:
            return [
                self._tensors(result),
                self._bytes(weights, advance),
                self._progress(output, result),
                config_check(self.config, self._read(output).config),
                tokenizer_check(self.tokenizer, self._read(output).tokenizer_copy),
            ]
        finally:
            result.close()

    def close(self) -> None:
        """Close the source's files."""
        self.stored.close()

    def _weights(self, output: Path) -> Path:
        return output / "weights" if self.to == NEMO2 else output / f"iter_{self.progress.step:07d}"

    def _describe_bridge(self, checkpoint: Path) -> None:
        bridge_side.write(checkpoint, self.progress)
        model = description.to_bridge(self.config) | self.layout.sizes
        model["sequence_parallel"] = self.layout.sequence_parallel
        wrapper = WRAPPER if self.form == NEMO2 else ""
        model["vocab_size"], model["should_pad_vocab"] = rows_of(self.stored.tensors, wrapper), False
        hf_folder.copy_tokenizer(self.tokenizer, checkpoint / bridge.BRIDGE_TOKENIZER)
        bridge.copy_generation(self.folder.generation, checkpoint)
        bridge.write_run_config(checkpoint, model, bridge_side.sections(self.progress, self.layout))
        bridge.record_newest(checkpoint, self.progress.step)

    def _describe_megatron_lm(self, checkpoint: Path) -> None:
        megatron_lm_side.write(checkpoint, self.progress, self.layout, self.config)
        hf_folder.copy_tokenizer(self.tokenizer, checkpoint / bridge.BRIDGE_TOKENIZER)
        megatron_lm.record_newest(checkpoint)

    def _describe_nemo2(self, weights: Path) -> None:
        nemo2_side.write(weights, self.progress, num_groups=len(list(tree.groups(self.progress.optimizer))))
        context.write_context(
            weights.parent / "context",
            self.config,
            self.tokenizer,
            trainer=nemo2_side.trainer_call(self.progress, self.layout),
            optimizer=nemo2_side.optimizer_call(self.progress),
            generation=self.folder.generation,
        )

    def _tensors(self, result: DcpSource) -> Check:
        """Compare names, types, shapes, and the place of every chunk and object."""
        wrong = []
        ours = {self.names[name]: info for name, info in self.stored.tensors.items() if name in self.names}
        for name in sorted(ours.keys() | result.tensors.keys()):
            if ours.get(name) != result.tensors.get(name):
                wrong.append(f"{name} is {result.tensors.get(name)}, not {ours.get(name)}")
        places = {
            (self.names[name], at): (span.path.name, span.start, span.length)
            for (name, at), span in self.stored.spans.items()
            if name in self.names
        }
        found = {key: (span.path.name, span.start, span.length) for key, span in result.spans.items()}
        wrong += [
            f"{key[0]} is not where it was"
            for key in places.keys() | found.keys()
            if places.get(key) != found.get(key)
        ]
        wrong += [
            f"{name} is in other parts"
            for name, new in self.names.items()
            if name in self.stored.tensors
            and [(c.offsets, c.sizes) for c in self.stored.chunks(name)]
            != [(c.offsets, c.sizes) for c in result.chunks(new)]
        ]
        return Check("tensors", len(ours), wrong)

    def _bytes(self, weights: Path, advance: Advance) -> Check:
        wrong = []
        for path in self.files:
            if self.methods.get(path.name) == "copy" and (
                text := linking.difference(path, weights / path.name)
            ):
                wrong.append(f"{path.name} {text}")
            elif self.methods.get(path.name) == "link" and not (weights / path.name).samefile(path):
                wrong.append(f"{path.name} is another file")
            advance(path.stat().st_size)
        return Check("files", len(self.files), wrong)

    def _progress(self, output: Path, result: DcpSource) -> Check:
        """Compare counters and every value of the optimizer, read back as the other framework's."""
        again, _ = _progress(self._read(output), result)
        wrong = [
            f"{name} is {again.counters[name]}, not {value}"
            for name, value in self.progress.counters.items()
            if again.counters[name] != value
        ]
        if repr(again.optimizer) != repr(self.progress.optimizer):
            wrong.append("the optimizer's groups of parameters differ")
        if again.stream != self.progress.stream:
            wrong.append("the position in the stream differs")
        if again.content != self.progress.content:
            wrong.append("the description of how the state is saved differs")
        count = len(self.progress.counters) + len(list(tree.groups(self.progress.optimizer)))
        return Check("optimizer and counters", count, wrong)

    def _read(self, output: Path) -> MegatronFolder:
        return READ[self.to](output if self.to == NEMO2 else self._weights(output))


def has_training(folder: MegatronFolder) -> bool:
    """Return whether a checkpoint is one of a training, with its optimizer."""
    stored = DcpSource(folder.weights)
    try:
        return any(name.startswith(("optimizer.", "chained_")) for name in stored.tensors)
    finally:
        stored.close()


def prepare(path: Path, to: str, tokenizer: Path | None = None) -> Migration:
    """Decide how a checkpoint of a training becomes one of another framework.

    Raises:
        UsageError: it is not a complete checkpoint.
        NemolaunchError: it is damaged, the target cannot represent the model, or the training is refused.
    """
    form = detect(path)
    folder = READ[form](path)
    stored = DcpSource(folder.weights)
    try:
        progress, layout = _progress(folder, stored)
        _refuse(folder, stored, progress)
        for fault in refusals.query_norms(stored.tensors):
            raise NemolaunchError(f"the model has {fault}")
        kept = [name for name in (*stored.tensors, *stored.objects) if not is_left_out(name)]
        names = {name: renamed(name, from_nemo=form == NEMO2, to_nemo=to == NEMO2) for name in kept}
        config = with_rows(folder.config, rows_of(stored.tensors, WRAPPER if form == NEMO2 else ""))
        check_target(config, to)
        return Migration(
            form=form,
            to=to,
            folder=folder,
            stored=stored,
            names=names,
            progress=progress,
            layout=layout,
            config=config,
            tokenizer=folder.find_tokenizer(tokenizer),
            left_out=[name for name in stored.objects if is_left_out(name)],
            changed=_remarks(form, names, stored),
        )
    except NemolaunchError as error:
        stored.close()
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except BaseException:
        stored.close()
        raise


def _progress(folder: MegatronFolder, stored: DcpSource) -> tuple[Progress, Layout]:
    run = saved_run(RunDir(folder.path.resolve().parent.parent))
    if isinstance(folder, bridge.BridgeFolder):
        found, layout = bridge_side.read(folder.path, stored, folder.run_config, run)
    elif isinstance(folder, megatron_lm.MegatronLmFolder):
        found, layout = megatron_lm_side.read(folder)
    else:
        found, layout = nemo2_side.read(folder.path, run)
    dtype = stored.tensors[next(name for name in stored.tensors if kind_of(name) is None)].dtype
    return found, Layout(**{**vars(layout), "dtype": dtype})


def _refuse(folder: MegatronFolder, stored: DcpSource, progress: Progress) -> None:
    if isinstance(folder, bridge.BridgeFolder):
        about: dict[str, Mapping[str, Any]] = {
            name: folder.run_config.section(name) for name in ("optimizer", "ddp")
        }
        model: Mapping[str, Any] = folder.run_config.model
    elif isinstance(folder, megatron_lm.MegatronLmFolder):
        about, model = {"optimizer": folder.args, "ddp": folder.args}, folder.args
    else:
        parts = recorded(folder.path / "context" / "io.json")
        about = {"optimizer": parts["optimizer"], "ddp": {**parts["ddp"], **_instances(parts["trainer"])}}
        model = folder.config.resolved
    versions = refusals.versions_of(folder.path)
    refusals.check(folder.path, stored, progress, about["optimizer"], about["ddp"], model, versions)


def _instances(trainer: Mapping[str, Any]) -> dict[str, Any]:
    name = "num_distributed_optimizer_instances"
    return {name: trainer[name]} if name in trainer else {}


def _remarks(form: str, names: Mapping[str, str], stored: DcpSource) -> list[str]:
    found = []
    renames = sum(old != new for old, new in names.items())
    if renames:
        how = "lose" if form == NEMO2 else "get"
        found.append(
            f"{renames:,} names of tensors {how} {WRAPPER!r} in .metadata; data files stay as they are"
        )
    if form == NEMO2:
        found.append("NeMo 2 saved no state of random numbers: dropout draws others than before")
    elif any(is_left_out(name) and name.startswith("rng_state") for name in stored.objects):
        found.append("the state of random numbers is left out: dropout draws others than before")
    return found
