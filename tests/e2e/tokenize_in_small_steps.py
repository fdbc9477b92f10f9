"""Tokenise in pieces of a few kilobytes and save often: `… TOKENIZER SOURCE FOLDER CACHE`."""

from __future__ import annotations

import sys
from pathlib import Path

from nemolaunch.tokenization import sources
from nemolaunch.tokenization.request import TokenizeRequest
from nemolaunch.tokenization.run import run
from nemolaunch.tokenization.tokenizer import resolve

if __name__ == "__main__":
    tokenizer, source, folder, cache = sys.argv[1:5]
    files = sources.find([source])
    request = TokenizeRequest(
        sources=files,
        spec=resolve(tokenizer, Path(cache)),
        folder=Path(folder),
        name="data",
        keys=("text",),
        columns=sources.columns(files, ("text",), []),
        workers=2,
        piece_bytes=3000,
        save_bytes=5000,
        validation=0.3,
        on_error="skip",
    )
    print(run(request).resumed_pieces)
