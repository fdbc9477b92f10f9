#!/usr/bin/env bash
# Tokenise text files into Megatron .bin/.idx. For the options, run `bash preprocess_data.sh --help`.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/.venv/bin/python"
[ -x "$python" ] || python=python3
PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m nemolaunch.cli.commands.tokenize "$@"
