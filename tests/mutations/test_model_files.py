"""Damaged models: configs, vocabularies, tokenizers, and weights in every form."""

import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from mutations.harness import read_files, survives
from mutations.mutators import damaged_bytes, damaged_json, damaged_text, either
from torch_archives import call, dict_of, name, number, pickle_of, text, tuple_of, write_legacy, write_zip

from bert_emd_jax.checkpoints import loading
from bert_emd_jax.checkpoints.inspection import inspect_model
from bert_emd_jax.checkpoints.model_directory import load_model, load_whole_model
from bert_emd_jax.models.encoder_config import EncoderConfig, load_config
from bert_emd_jax.tokenization.tokenizer import Tokenizer

WORDS = (
    *("the", "film", "is", "good", "a", "dull", "movie", "and", "so", "funny"),
    *("very", "long", "sad", "plot", "actor", "this", "that", "great"),
)
TEXTS = ["the film is not good !", "MOVIES [MASK] très 中文 🙂\u2028\x00", "", "un" * 400]
SIZES: dict[str, Any] = {
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}

damaged = either(damaged_json, damaged_json, damaged_json, damaged_bytes, damaged_text)


@pytest.fixture
def model(tiny_model_dir) -> dict[str, bytes]:
    """The files of a model directory; those in pytorch/ are a Hugging Face directory."""
    return read_files(tiny_model_dir("model", **SIZES))


@pytest.fixture
def hugging_face(model) -> dict[str, bytes]:
    return {
        path.removeprefix("pytorch/"): content
        for path, content in model.items()
        if path.startswith("pytorch/")
    }


@pytest.fixture(autouse=True)
def shapes_once(monkeypatch: pytest.MonkeyPatch):
    """The shapes of a model are found by tracing it, a tenth of a second each time."""
    monkeypatch.setattr(loading, "parameter_shapes", functools.cache(loading.parameter_shapes))


def use_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer.from_directory(directory)
    largest = max(max(ids, default=0) for ids in tokenizer.encode(TEXTS))
    assert largest < tokenizer.vocab_size == len(tokenizer.tokens())
    assert tokenizer.fingerprint


def use_model(directory: Path) -> None:
    model = load_model(directory)
    assert model.params["bert"]["embeddings"]["word_embeddings"]["embedding"].dtype == np.float32
    load_whole_model(directory)
    inspect_model(directory, None)


def test_configs(tmp_path: Path):
    values = EncoderConfig(**SIZES, num_attention_heads=2, id2label=("bad", "good")).to_dict()
    values |= {
        "architectures": ["BertForSequenceClassification"],
        "auto_map": {"AutoConfig": "x.Y"},
        "dtype": "float32",
    }
    content = json.dumps(values).encode()

    def read(directory: Path) -> None:
        json.dumps(load_config(directory).to_dict())

    survives(tmp_path / "model", {"config.json": content}, "config.json", read, damaged, 1500)
    values.pop("model_type")
    content = json.dumps(values).encode()
    survives(tmp_path / "google", {"bert_config.json": content}, "bert_config.json", read, damaged, 200)


def test_vocabularies(tmp_path: Path, model: dict[str, bytes]):
    files = {"vocab.txt": model["vocab.txt"]}
    survives(
        tmp_path / "vocabulary", files, "vocab.txt", use_tokenizer, either(damaged_text, damaged_bytes), 500
    )


@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"]
)
def test_settings_of_a_tokenizer(tmp_path: Path, model: dict[str, bytes], vocabulary: list[str], file: str):
    files = {path: model[path] for path in ("vocab.txt", "tokenizer_config.json")}
    specials = {"unk_token": "[UNK]", "cls_token": {"content": "[CLS]", "lstrip": False, "special": True}}
    files |= {
        "special_tokens_map.json": json.dumps(specials).encode(),
        "added_tokens.json": json.dumps({"<new>": len(vocabulary)}).encode(),
    }
    if file == "config.json":  # says what special tokens are where the other files do not
        files = {"vocab.txt": files["vocab.txt"].replace(b"[MASK]", b"[mask]"), file: b'{"mask_token_id": 4}'}
    survives(tmp_path / "tokenizer", files, file, use_tokenizer, damaged, 300)


def test_fast_tokenizers(tmp_path: Path, model: dict[str, bytes]):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "vocab.txt").write_bytes(model["vocab.txt"])
    Tokenizer.from_directory(tmp_path / "slow")._backend.save(str(tmp_path / "tokenizer.json"))
    files = {"tokenizer.json": (tmp_path / "tokenizer.json").read_bytes()}
    survives(tmp_path / "fast", files, "tokenizer.json", use_tokenizer, damaged, 700)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_models(tmp_path: Path, kind: str):
    content = io.BytesIO()
    sentences = [" ".join(WORDS[(row * step) % len(WORDS)] for step in range(1, 9)) for row in range(60)]
    names: dict[str, Any] = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    names |= {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=content,
        model_type=kind,
        vocab_size=90,
        hard_vocab_limit=False,
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
        **names,
    )
    files = {"spiece.model": content.getvalue()}
    survives(tmp_path / "model", files, "spiece.model", use_tokenizer, either(damaged_bytes), 400)


@pytest.mark.parametrize(
    ("file", "mutate", "count"),
    [
        ("config.json", damaged, 100),
        ("model.safetensors", either(damaged_bytes), 250),
        ("tokenizer.json", damaged, 60),  # which counts before vocab.txt
    ],
)
def test_hugging_face_directories(
    tmp_path: Path, hugging_face: dict[str, bytes], file: str, mutate, count: int
):
    survives(tmp_path / "copy", hugging_face, file, use_model, mutate, count)


def test_headers_of_safetensors(tmp_path: Path, hugging_face: dict[str, bytes]):
    content = hugging_face["model.safetensors"]
    end = 8 + int.from_bytes(content[:8], "little")

    def mutate(content: bytes, rng) -> bytes:
        header = either(damaged_json, damaged_bytes)(content[8:end], rng)
        return len(header).to_bytes(8, "little") + header + content[end:]

    survives(tmp_path / "copy", hugging_face, "model.safetensors", use_model, mutate, 400)


def test_indexes_of_shards(tmp_path: Path, hugging_face: dict[str, bytes]):
    weights = hugging_face.pop("model.safetensors")
    end = 8 + int.from_bytes(weights[:8], "little")
    names = [name for name in json.loads(weights[8:end]) if name != "__metadata__"]
    index = {
        "metadata": {"total_size": len(weights) - end},
        "weight_map": dict.fromkeys(names, "part.safetensors"),
    }
    files = hugging_face | {
        "part.safetensors": weights,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    survives(tmp_path / "copy", files, "model.safetensors.index.json", use_model, damaged, 250)


def torch_file(tmp_path: Path, form: str, weights: bytes) -> bytes:
    """The tensors of a safetensors file as PyTorch stores them, all in one storage."""
    end = 8 + int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8:end])
    count = (len(weights) - end) // 4

    def tensor(shape: list[int], start: int) -> bytes:
        view = b"N" if form == "legacy" else b""
        stored = (
            tuple_of(
                text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(count), view
            )
            + b"Q"
        )
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        sizes = [tuple_of(*map(number, numbers)) for numbers in (shape, strides)]
        hooks = call("collections", "OrderedDict")
        return call("torch._utils", "_rebuild_tensor_v2", stored, number(start), *sizes, b"\x89", hooks)

    tensors = {
        title: tensor(entry["shape"], entry["data_offsets"][0] // 4)
        for title, entry in header.items()
        if title != "__metadata__"
    }
    path = tmp_path / "made.bin"
    if form == "zip":
        write_zip(path, pickle_of(dict_of(tensors)), {"0": weights[end:]})
    else:
        write_legacy(path, pickle_of(dict_of(tensors)), {"0": (count, weights[end:])})
    return path.read_bytes()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_torch_files(tmp_path: Path, hugging_face: dict[str, bytes], form: str):
    content = torch_file(tmp_path, form, hugging_face.pop("model.safetensors"))
    files = hugging_face | {"pytorch_model.bin": content}
    survives(tmp_path / "copy", files, "pytorch_model.bin", use_model, either(damaged_bytes), 200)


def test_pickles_in_torch_files(tmp_path: Path, hugging_face: dict[str, bytes]):
    content = torch_file(tmp_path, "zip", hugging_face.pop("model.safetensors"))
    files = hugging_face | {"pytorch_model.bin": content}

    def mutate(content: bytes, rng) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        changed = rng.choice(["archive/data.pkl", "archive/data.pkl", "archive/byteorder"])
        members[changed] = either(damaged_bytes)(members[changed], rng)
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for member, stored in members.items():
                archive.writestr(member, stored)
        return made.getvalue()

    survives(tmp_path / "copy", files, "pytorch_model.bin", use_model, mutate, 300)


def test_params(tmp_path: Path, model: dict[str, bytes]):
    files = {path: content for path, content in model.items() if not path.startswith("pytorch/")}
    stored = [path for path in files if path.startswith("params/") and files[path]]
    assert stored
    read: Callable[[Path], object] = lambda directory: load_model(directory)
    for path in stored:
        mutate = (
            either(damaged_json, damaged_bytes) if files[path].startswith(b"{") else either(damaged_bytes)
        )
        survives(tmp_path / "copy", files, path, read, mutate, 12, refuses=None)
