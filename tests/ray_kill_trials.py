"""Tokenise on a Ray cluster while workers, nodes and the command itself are killed at random moments.

    python tests/ray_kill_trials.py FOLDER NUM_TRIALS [SEED]

A trial kills one to three times: a worker, a raylet (a node) or the command, which is then run again. Its files are
compared with those of one machine, byte by byte. Prints one JSON object: trials, kills by kind, and faults.
"""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

from ray_support import RayOfTests, driver, left_behind, made_by, num_done, on_ray, words_of, write_mixture
from tokens_support import variant

KINDS = ("worker", "node", "command")


def trial(
    cluster: RayOfTests, words: list[str], out: Path, chance: random.Random, duration_s: float
) -> tuple[list[str], str]:
    """Kill a few times until the command ends by itself. Return what was killed, and its message if it failed."""
    left = [chance.choice(KINDS) for _ in range(chance.randint(1, 3))]
    killed: list[str] = []
    process = driver(words)
    begin, after = time.monotonic(), chance.uniform(0.2, 1.0) * duration_s
    working = False
    while process.poll() is None:
        time.sleep(0.02)
        if not working and (working := num_done(out) > 0 or bool(cluster.workers())):
            begin = time.monotonic()
        if not left or not working or time.monotonic() - begin < after:
            continue
        kind = left[0]
        if kind == "worker" and not cluster.kill_worker(chance):
            continue
        if kind == "node":
            cluster.kill_node(chance)
            cluster.replace_lost()
        if kind == "command":
            process.kill()
            process.wait()
            process, working = driver(words), False
        killed.append(left.pop(0))
        begin, after = time.monotonic(), chance.uniform(0.0, 0.7) * duration_s
    _, said = process.communicate()
    return killed, said if process.returncode else ""


def main(folder: str, num_trials: str, seed: str = "7") -> None:
    """Run the trials and print what was found."""
    place = Path(folder)
    place.mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    tokenizer, source = variant("small", place / "tokenizer"), write_mixture(place / "in")
    assert driver([*words_of(tokenizer, source, place / "one"), "--workers", "1"]).wait() == 0
    expected, chance = made_by(place / "one"), random.Random(int(seed))
    kills, faults = collections.Counter[str](), []
    cluster = RayOfTests(2)
    try:
        duration_s = 3.0
        for number in range(int(num_trials)):
            out = place / f"trial{number}"
            words = [
                *words_of(tokenizer, source, out),
                *on_ray(cluster.address, chance.choice((60_000, 250_000))),
            ]
            killed, said = trial(cluster, words, out, chance, duration_s)
            kills.update(killed)
            about = f"trial {number}, killed {', '.join(killed) or 'nothing'}"
            if said:
                faults.append(f"{about}: {said[-500:]}")
            elif made_by(out) != expected:
                faults.append(f"{about}: other bytes")
            elif left := left_behind(out):
                faults.append(f"{about}: left behind {left}")
            shutil.rmtree(out)
            print(
                f"{about}{': ' + faults[-1] if faults and faults[-1].startswith(about) else ''}",
                file=sys.stderr,
            )
            kills["trials with a kill"] += bool(killed)
            print(json.dumps({"trials": number + 1, "kills": dict(kills), "faults": faults}), flush=True)
    finally:
        cluster.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
