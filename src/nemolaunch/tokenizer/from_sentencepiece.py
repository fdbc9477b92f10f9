"""A SentencePiece model as a tokenizer of the tokenizers library, with the ids that SentencePiece itself gives.

For a folder that has nothing but the model. Where its files name a class, transformers converts it by that class.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNIGRAM, BPE = 1, 2
CONTROL, USER_DEFINED = 3, 4
SPACE = "▁"
TOO_NEW = "pip install 'sentencepiece<0.2.3'"
MAX_SYMBOLS = 40
# Compared with SentencePiece before the conversion is used
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    " leading and trailing space ",
    "two  spaces,   three\tand a tab\nand a new line\r\n\n",
    "Naïve café, Straße, ﬁne, １２３, ½, Ａ",
    "清晨的港口很安靜。",
    "def f(x):\n    return {'a': x[0] * 2}  # ∑ 🙂",
    "a",
    "0123456789 !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~",
)


def convert(path: Path) -> tuple[Tokenizer, dict[str, str]]:
    """Return the tokenizer, and role → token for the roles that the model gives to tokens.

    No token is added to a text, as SentencePiece adds none.

    Raises:
        NemolaunchError: the file is no such model, a library is missing, or its ids would differ.
    """
    model = _model(path)
    tokenizer = _tokenizer(model)
    symbols = [piece.piece for piece in model.pieces if piece.type == USER_DEFINED]
    _prove(path, tokenizer, [*PROBES, *(f"a{symbol}b {symbol}" for symbol in symbols[:MAX_SYMBOLS])])
    return tokenizer, _roles(model)


def _model(path: Path) -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2 as pb2
    except ImportError as error:
        raise NemolaunchError(
            f"reading {path.name} needs {error.name}: pip install 'sentencepiece<0.2.3' protobuf"
        ) from None
    except Exception as error:  # protobuf's VersionError, which is a RuntimeError of no public module
        raise NemolaunchError(
            f"sentencepiece does not fit the installed protobuf: {TOO_NEW} ({' '.join(str(error).split())[:120]})"
        ) from None
    model: Any = vars(pb2)["ModelProto"]()  # which protobuf makes at import
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError
        raise NemolaunchError(f"{path.name} is not a SentencePiece model: {error}") from None
    if model.trainer_spec.model_type not in (UNIGRAM, BPE) or not model.pieces:
        raise NemolaunchError(f"{path.name} is a SentencePiece model that is neither BPE nor unigram")
    return model


def _tokenizer(model: Any) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    spec = model.trainer_spec
    scores = [(piece.piece, piece.score) for piece in model.pieces]
    if spec.model_type == UNIGRAM:
        made = Tokenizer(models.Unigram(scores, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback))
    else:
        vocab = {piece: number for number, (piece, _) in enumerate(scores)}
        made = Tokenizer(
            models.BPE(
                vocab,
                _merges(vocab, scores),
                unk_token=scores[spec.unk_id][0],
                fuse_unk=True,
                byte_fallback=spec.byte_fallback,
            )
        )
    after_rules = not model.normalizer_spec.add_dummy_prefix  # else the symbols get the space too
    for piece in model.pieces:
        if piece.type == CONTROL:
            made.add_tokens([AddedToken(piece.piece, normalized=False, special=True)])
        elif piece.type == USER_DEFINED and len(piece.piece) > 1:
            made.add_tokens([AddedToken(piece.piece, normalized=after_rules)])
    _set_text_rules(made, model)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(content=" ", left=1)] if model.normalizer_spec.add_dummy_prefix else []),
        ]
    )
    return made


def _merges(vocab: dict[str, int], scores: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Return the pairs that make a longer piece, best first: SentencePiece keeps only the pieces."""
    found = []
    for piece, score in scores:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                found.append((-score, vocab[left], vocab[right], (left, right)))
    return [pair for *_, pair in sorted(found)]


def _set_text_rules(made: Tokenizer, model: Any) -> None:
    """Set what happens to a text before it is cut."""
    from tokenizers import Regex, normalizers

    rules, steps = model.normalizer_spec, []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _roles(model: Any) -> dict[str, str]:
    spec = model.trainer_spec
    numbers = {
        "bos_token": spec.bos_id,
        "eos_token": spec.eos_id,
        "unk_token": spec.unk_id,
        "pad_token": spec.pad_id,
    }
    return {role: model.pieces[n].piece for role, n in numbers.items() if 0 <= n < len(model.pieces)}


def _prove(path: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in texts:
        expected, found = reference.encode(text), tokenizer.encode(text, add_special_tokens=False).ids
        if expected != found:
            raise NemolaunchError(
                f"{path.name} cannot be converted exactly: {text!r} gets other ids than from SentencePiece. Add a "
                'tokenizer_config.json with its "tokenizer_class", or a tokenizer.json'
            )
