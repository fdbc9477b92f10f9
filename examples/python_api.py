"""The public Python API from text to a trained model, cell by cell as in a notebook.

python examples/python_api.py FOLDER
"""

# %% Text to tokens
import sys
from pathlib import Path

import nemolaunch as nl

HERE = Path(__file__).parent
FOLDER = Path(sys.argv[1])

tokens = nl.tokenize(
    [HERE / "corpus" / "en.jsonl"], tokenizer=HERE / "tokenizer", prefix=FOLDER / "data" / "en", workers=1
)
print(tokens.prefixes, tokens.manifests[0]["tokens"])

# %% A job, described once. Any flag's name, alias or short form is a keyword
MODEL = """\
base: llama3
num_layers: 2
hidden_size: 64
num_attention_heads: 4
num_query_groups: 2
ffn_hidden_size: 128
seq_length: 128
"""
(FOLDER / "tiny.yaml").write_text(MODEL)
job = nl.Job(
    model=FOLDER / "tiny.yaml",
    tokenizer=HERE / "tokenizer",
    data=FOLDER / "data",
    output_dir=FOLDER / "run",
    gbs=4,
    max_steps=4,
    checkpoint_every=2,
    lr=1e-3,
    warmup_steps=1,
)

# %% Its plan: every value resolved, checked and estimated. A notebook shows it as a table
plan = nl.plan(job)
print(repr(plan))
plan.raise_for_errors()

# %% Train. `launch` returns at once
run = nl.launch(plan)
status = run.wait()
print(status.state, status.step, "of", status.max_steps)

# %% What happened
print([round(row["loss"], 3) for row in run.metrics() if "loss" in row])
print(run.metrics(as_frame=True).columns.tolist())
print(run.last_checkpoint)
print(run.report())

# %% Export, with proof, and evaluate
report = nl.convert(run.last_checkpoint, FOLDER / "hf", verify="bits")
print(report["title"])
print(nl.evaluate(FOLDER / "hf", data=HERE / "corpus" / "en.jsonl", limit=5).perplexity)
