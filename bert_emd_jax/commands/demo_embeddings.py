"""A smaller sentence embedder from nothing: real weights, real sentences without labels, and a table."""

import dataclasses
import random
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bert_emd_jax.commands import demo_assets, distill
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.commands.demo import command, print_next, python, table, train
from bert_emd_jax.configs import Config
from bert_emd_jax.files import write_text
from bert_emd_jax.layout import PYTORCH, REPORT, RESULTS, RUN_CONFIG
from bert_emd_jax.report.results_reader import read_results

SENTENCES = 22_000
"""Of SNLI, beside all of the movie reviews."""


@dataclasses.dataclass(frozen=True, init=False)
class EmbeddingDemoConfig(Config):
    """The demo: all-MiniLM-L6-v2 and a student with three of its layers."""

    output_dir: Path = Path("demo_output")
    """Output directory; a second run continues from what is there."""
    smoke: bool = False
    """Use only a thousand texts: shows that everything works, not how well."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: EmbeddingDemoConfig) -> None:
    """Fetches, distils, measures, and prints a table."""
    root = config.output_dir
    teacher, data, student = root / "minilm_embedder", root / "sentences", root / "embedder"
    demo_assets.unpack_minilm(teacher, as_embedder=True)
    write_sentences(data, smoke=config.smoke)
    flags = ["--teacher_model", str(teacher), "--student_init_layers", "1,3,5"]
    flags += ["--data_dir", str(data), "--task_name", "custom", "--kind", "embedding"]
    flags += ["--max_seq_length", "32" if config.smoke else "64", "--num_train_epochs", "1"]
    flags += ["--train_batch_size", "64", "--learning_rate", "1e-4", "--beta", "0"]
    flags += ["--freeze_word_embeddings", "--student_dropout", "0"]
    train(distill.main, "run_distill.py", flags, student)

    print()
    print(table(read_results(student / RESULTS)))
    if config.smoke:
        print("(a smoke run: a thousand texts show that everything works, and teach next to nothing)")
    print_next(report=student / REPORT, steps=next_steps(root))


def next_steps(root: Path) -> dict[str, list[str]]:
    """Returns command lines to try after the demo, by what they are for."""
    student = root / "embedder"
    embed = f"print(bert_emd_jax.load('{student}').embed(['a cat sleeps']))"
    again = f"{command('run_distill.py')} --config {student / RUN_CONFIG}"
    narrow = ["--student_init_layers", "uniform", "--student_layers", "4", "--student_width", "192"]
    narrow += ["--no_freeze_word_embeddings", "--learning_rate", "1e-3", "--num_train_epochs", "3"]
    return {
        "its vectors in Python": [f'{python()} -c "import bert_emd_jax; {embed}"'],
        f"in sentence-transformers: SentenceTransformer({str(student / PYTORCH)!r})": [],
        "a third of the parameters: four layers, half as wide": [
            f"{again} {shlex.join(narrow)} --output_dir {root / 'narrow_embedder'}"
        ],
        "your own texts: train.txt in MY_TEXTS, a text a line": [
            f"{again} --data_dir MY_TEXTS --output_dir my_embedder"
        ],
    }


def write_sentences(directory: Path, *, smoke: bool) -> None:
    """Writes `train.txt`, and a search among captions for `dev` and `test`.

    Captions of SNLI's test set are the documents, and sentences that follow from one of them the queries:
    whoever finds the caption that a sentence follows from has understood both.
    """
    directory.mkdir(parents=True, exist_ok=True)
    captions = (text for pair in demo_assets.snli_pairs("train") for text in pair[:2])
    texts = [*dict.fromkeys(captions)]
    generator = random.Random(2020)
    generator.shuffle(texts)
    texts = texts[:SENTENCES] + [text for text, _ in demo_assets.rotten_tomatoes()]
    generator.shuffle(texts)
    write_text(directory / "train.txt", "".join(f"{text}\n" for text in texts[: 1000 if smoke else None]))

    follow: dict[str, list[str]] = {}
    for premise, hypothesis, label in demo_assets.snli_pairs("test"):
        of_premise = follow.setdefault(premise, [])
        if label == "entailment":
            of_premise.append(hypothesis)
    premises = sorted(follow)
    generator.shuffle(premises)
    third = len(premises) // 3
    parts = {"dev": premises[:third], "test": premises[third:]}
    for split, documents in parts.items():
        documents = documents[: 150 if smoke else None]
        asked = [(hypothesis, row) for row, premise in enumerate(documents) for hypothesis in follow[premise]]
        _write_table(directory / split / "documents.tsv", "id\ttext", enumerate(documents))
        queries = enumerate(hypothesis for hypothesis, _ in asked)
        _write_table(directory / split / "queries.tsv", "id\ttext", queries)
        relevance = ((query, row, 1) for query, (_, row) in enumerate(asked))
        _write_table(directory / split / "relevance.tsv", "query\tdocument\tgrade", relevance)


def _write_table(path: Path, head: str, rows: Iterable[tuple[object, ...]]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in (head, *("\t".join(map(str, row)) for row in rows))))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        EmbeddingDemoConfig,
        run,
        prog="python -m bert_emd_jax.commands.demo_embeddings",
        description="Distils a real 6-layer sentence embedder into 3 layers, on real unlabelled sentences.",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
