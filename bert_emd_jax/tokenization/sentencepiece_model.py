"""A SentencePiece model as a tokenizer of the `tokenizers` library, whose file transformers reads too."""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.tokenization.pair_form import BERT_PAIRS, ROBERTA_PAIRS, PairForm

_WORD_START = "▁"
# Classes of transformers whose ids are the model's, or the model's shifted by one behind four tokens.
_PLAIN_CLASSES = ("Albert", "DebertaV2", "T5", "PreTrained", "BertGeneration")
_SHIFTED_CLASSES = ("XLMRoberta",)
_SHIFTED_FILE = "sentencepiece.bpe.model"  # the usual file name of the second kind
_SHIFTED_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_SHIFTED_MASK = "<mask>"
_ADVICE = "save the tokenizer as tokenizer.json beside it"
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5  # types of pieces in the file

Piece = tuple[str, float, int]
"""Text, score and type of an entry of the file's vocabulary, which SentencePiece calls a piece."""


def build_tokenizer(path: Path, settings: dict[str, Any], do_lower_case: bool | None) -> tokenizers.Tokenizer:
    """Builds the tokenizer of a `*.model` file.

    Args:
      settings: the entries of the `tokenizer_config.json` beside it; missing ones are filled in.
      do_lower_case: None takes the value of the settings.

    Raises:
      UserError: a damaged file, or a kind of model that the `tokenizers` library cannot reproduce.
    """
    proto = _read(path)
    family, is_shifted = _numbering(path, settings)
    if family and not is_shifted and family not in _PLAIN_CLASSES:
        raise UserError(
            f"{path}: how a {settings['tokenizer_class']} numbers its pieces is not known here; {_ADVICE}"
        )
    if do_lower_case is None:
        do_lower_case = settings.get("do_lower_case", family == "Albert")
    settings["do_lower_case"] = do_lower_case
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    if is_shifted:
        specials = [(piece, 0.0, _CONTROL) for piece in _SHIFTED_SPECIALS]
        pieces = [*specials, *pieces[3:], (_SHIFTED_MASK, 0.0, _CONTROL)]
        unknown = _SHIFTED_SPECIALS.index("<unk>")
    else:
        unknown = proto.trainer_spec.unk_id
    settings["unk_token"] = settings.get("unk_token") or pieces[unknown][0]

    try:
        backend = tokenizers.Tokenizer(_model(proto, pieces, unknown))
        backend.normalizer = _normalizer(proto, settings, is_albert=family == "Albert")
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(
            f"{path}: a damaged SentencePiece model ({one_line(error)}); fetch it again"
        ) from error
    prefix = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        _WORD_START, prepend_scheme=prefix, split=proto.trainer_spec.split_by_whitespace
    )
    backend.decoder = decoders.Metaspace(_WORD_START, prepend_scheme=prefix)
    backend.add_tokens(
        [
            AddedToken(piece, normalized=False, special=kind != _USER_DEFINED)
            for piece, _, kind in pieces
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]
    )
    return backend


def sentencepiece_pairs(path: Path, settings: dict[str, Any]) -> PairForm:
    """Returns how the tokenizer of a `*.model` file puts pairs together."""
    _, is_shifted = _numbering(path, settings)
    return ROBERTA_PAIRS if is_shifted else BERT_PAIRS


def _numbering(path: Path, settings: dict[str, Any]) -> tuple[str, bool]:
    """Returns the name of the class without its ending, and whether ids are shifted."""
    family = str(settings.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    return family, family in _SHIFTED_CLASSES or (not family and path.name == _SHIFTED_FILE)


def _read(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise UserError(f"{path}: not a SentencePiece model, or a damaged one; fetch it again") from None
    if not proto.pieces:
        raise UserError(f"{path}: not a SentencePiece model: it has no pieces; fetch it again")
    unknown = proto.trainer_spec.unk_id
    if not 0 <= unknown < len(proto.pieces) or proto.pieces[unknown].type != _UNKNOWN:
        raise UserError(
            f"{path}: piece {unknown} should stand for what is unknown, it does not; fetch the file again"
        )
    refused = {
        "the space stands behind a word": proto.trainer_spec.treat_whitespace_as_suffix,
        "spaces are not marked": not proto.normalizer_spec.escape_whitespaces,
        "it has unused pieces": any(piece.type == _UNUSED for piece in proto.pieces),
    }
    for reason, is_so in refused.items():
        if is_so:
            raise UserError(
                f"{path}: this kind of SentencePiece model is not supported ({reason}); {_ADVICE}"
            )
    spec = proto.trainer_spec
    if spec.model_type not in (spec.UNIGRAM, spec.BPE):
        name = spec.ModelType.Name(spec.model_type).lower()
        raise UserError(
            f"{path}: a SentencePiece model of type {name}; only unigram and bpe are read; {_ADVICE}"
        )
    return proto


def _model(proto: Any, pieces: list[Piece], unknown: int) -> models.Model:
    spec = proto.trainer_spec
    if spec.model_type == spec.UNIGRAM:
        scores = [(piece, score) for piece, score, _ in pieces]
        return models.Unigram(scores, unk_id=unknown, byte_fallback=spec.byte_fallback)
    return models.BPE(
        {piece: index for index, (piece, _, _) in enumerate(pieces)},
        _merges(pieces),
        unk_token=pieces[unknown][0],
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
    )


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Returns every way to join two pieces into a third one, the best third one first."""
    scores = {
        piece: score for piece, score, kind in pieces if kind not in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    }
    best_first = sorted(scores, key=scores.__getitem__, reverse=True)
    return [
        (piece[:cut], piece[cut:])
        for piece in best_first
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]


def _normalizer(proto: Any, settings: dict[str, Any], *, is_albert: bool) -> normalizers.Normalizer:
    steps: list[Any] = []
    if is_albert:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if not settings.get("keep_accents", False):
            steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings["do_lower_case"]:
        steps.append(normalizers.Lowercase())
    if proto.normalizer_spec.precompiled_charsmap:
        if "nfkc" in proto.normalizer_spec.name:
            # The next step loses combining marks after some letters.
            steps.append(normalizers.NFC())
        steps.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence(steps)
