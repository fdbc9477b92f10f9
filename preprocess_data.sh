#!/usr/bin/env bash
# Text files to Megatron .bin/.idx; `bash preprocess_data.sh --help` lists the options.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/.venv/bin/python"
[ -x "$python" ] || python=python3
PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m nemolaunch.cli.commands.tokenize "$@"
