"""sentence-transformers' recipe and ours, side by side: the same layers, texts and number of examples.

`python benchmarks/embeddings.py --sts_dir glue/STS-B` distils all-MiniLM-L6-v2 into three of its layers on
sentences of SNLI without labels, by both programs in turn, each in a process of its own. The step is chosen
on pairs of STS-B *train*; Spearman is that on STS-B dev. Seconds are of training and the teacher's pass.
"""

import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measuring import mean_and_spread

from bert_emd_jax.commands import demo_assets
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config, Integers, Names
from bert_emd_jax.data.glue import GLUE_TASKS
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json, write_text
from bert_emd_jax.model import load
from bert_emd_jax.report.tables import aligned

ROOT = Path(__file__).parents[1]
BATCH, LEARNING_RATE, LAYERS = 64, 1e-4, (1, 3, 5)
COLUMNS = ["--text_column", "sentence1", "--text_pair_column", "sentence2", "--label_column", "score"]
FROZEN = ["--student_init_layers", ",".join(map(str, LAYERS)), "--freeze_word_embeddings"]
KEPT = [*FROZEN, "--student_dropout", "0"]
# From random weights: a higher learning rate and more passes, or nothing is learned in any way.
NARROW = ["--student_dropout", "0", "--learning_rate", "1e-3", "--num_train_epochs", "3"]
OURS = {
    "dropout": [*FROZEN, "--beta", "0"],
    "vectors": [*KEPT, "--beta", "0"],
    "cosines": [*KEPT, "--beta", "0", "--similarity_weight", "0.1"],
    "emd": [*KEPT, "--beta", "0.001", "--mapping", "emd"],
    "uniform": [*KEPT, "--beta", "0.001", "--mapping", "uniform"],
    "last": [*KEPT, "--beta", "0.001", "--mapping", "top"],
    "narrow": [*NARROW, "--beta", "0"],
    "narrow-cut": [
        *("--student_init_layers", "uniform", "--student_layers", "4", "--student_width", "192"),
        *(*NARROW, "--beta", "0"),
    ],
    "narrow-emd": [*NARROW, "--beta", "0.001", "--mapping", "emd"],
}
NARROW_SIZES = {"num_hidden_layers": 4, "hidden_size": 192, "intermediate_size": 768}
THEIRS, NARROW_THEIRS = "sentence-transformers", "narrow-theirs"
METHODS = (THEIRS, *OURS, NARROW_THEIRS)


@dataclasses.dataclass(frozen=True, init=False)
class EmbeddingBenchmarkConfig(Config):
    """What is compared."""

    sts_dir: Path
    """The directory of STS-B in GLUE's form."""
    output_dir: Path = Path("embedding_benchmark")
    """Where runs and the table go; runs that are there already are not made again."""
    texts: int = 30_000
    """How many sentences of SNLI."""
    chosen_on: int = 1500
    """How many pairs of STS-B train choose the step."""
    seeds: Integers = (42, 43, 44)
    """Which seeds."""
    methods: Names = METHODS
    """Which methods, of those at the top of this program."""
    movies: bool = False
    """Sentences of film reviews beside those of SNLI, half and half."""
    smoke: bool = False
    """Some hundred texts and one seed: shows that everything works, and measures nothing."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: EmbeddingBenchmarkConfig) -> None:
    """Makes the runs that are not there yet, in turn, and prints the table."""
    if config.smoke:
        config = config.replace(smoke=False, texts=300, chosen_on=60, seeds=(42,))
    if unknown := set(config.methods) - set(METHODS):
        raise UserError(f"--methods {', '.join(unknown)}: none of {', '.join(METHODS)}")
    root = config.output_dir.absolute()
    teacher, data = root / "teacher", root / "data"
    demo_assets.unpack_minilm(teacher, as_embedder=True)
    write_data(config, data)
    found: dict[str, list[dict[str, float]]] = {method: [] for method in config.methods}
    for seed in config.seeds:
        for method in config.methods:
            directory = root / f"{method}_{seed}"
            done = directory / "measured.json"
            if not done.is_file():
                make = run_ours if method in OURS else run_theirs
                write_json(done, make(directory, teacher, data, seed, method))
            found[method].append(json.loads(done.read_text(encoding="utf-8")))
            print(f"{method}, seed {seed}: {found[method][-1]}", flush=True)
    rows = [["", "Spearman, STS-B dev", "chosen on", "seconds", "ms a sentence"]]
    for method, measured in found.items():
        columns = [[one[name] for one in measured] for name in ("test", "dev", "seconds", "milliseconds")]
        rows.append([method, *(mean_and_spread(values) for values in columns)])
    print(aligned(rows))


def write_data(config: EmbeddingBenchmarkConfig, directory: Path) -> None:
    """Writes `train.txt`, `dev.tsv` from STS-B train, and `test.tsv` from its dev set."""
    captions = (text for pair in demo_assets.snli_pairs("train") for text in pair[:2])
    texts = [*dict.fromkeys(captions)]
    random.Random(0).shuffle(texts)
    if config.movies:
        films = [text for text, _ in demo_assets.rotten_tomatoes()][: config.texts // 2]
        texts = films + texts[: config.texts - len(films)]
        random.Random(0).shuffle(texts)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "train.txt", "".join(f"{text}\n" for text in texts[: config.texts]))
    task = next(task for task in GLUE_TASKS if task.name == "STS-B")
    for split, source, most in (("dev", "train", config.chosen_on), ("test", "dev", None)):
        examples = read_split(task, config.sts_dir, source)
        assert examples.texts_b is not None
        assert examples.labels is not None
        rows = list(zip(examples.texts_a, examples.texts_b, examples.labels, strict=True))
        random.Random(1).shuffle(rows)
        lines = [f"{a}\t{b}\t{score:.3f}\n" for a, b, score in rows[:most]]
        write_text(directory / f"{split}.tsv", "".join(["sentence1\tsentence2\tscore\n", *lines]))


def run_ours(directory: Path, teacher: Path, data: Path, seed: int, method: str) -> dict[str, float]:
    """Distils by `run_distill.py`, without any compiled program from before."""
    flags = ["--teacher_model", str(teacher)]
    if "--student_init_layers" not in OURS[method]:
        sizes = json.loads((teacher / "config.json").read_text(encoding="utf-8")) | NARROW_SIZES
        config = directory.with_name("narrow.json")
        write_json(config, sizes)
        flags += ["--student_config", str(config)]
    flags += ["--data_dir", str(data), "--task_name", "custom", "--kind", "embedding", *COLUMNS]
    flags += ["--train_batch_size", str(BATCH), "--learning_rate", str(LEARNING_RATE), "--seed", str(seed)]
    flags += ["--num_train_epochs", "1", "--no_compilation_cache", "--overwrite"]
    flags += OURS[method]  # the last one of a flag holds
    command = [sys.executable, "run_distill.py", *flags, "--output_dir", str(directory.absolute())]
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    subprocess.run([*map(str, command)], cwd=ROOT, env=environment, check=True)
    results = json.loads((directory / "eval_results.json").read_text(encoding="utf-8"))
    facts = json.loads((directory / "run_config.json").read_text(encoding="utf-8"))
    student = load(directory)
    sentences = [text for pair in scored_pairs(data / "test.tsv") for text in pair]
    seconds = []
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        student.embed(sentences)
        seconds.append(time.perf_counter() - start)
    return {
        "milliseconds": 1000 * statistics.median(seconds[1:]) / len(sentences),
        "seconds": facts["measured"]["seconds"],
        "test": results["test"]["student"]["metrics"]["spearman"],
        "dev": results["student"]["metrics"]["spearman"],
    }


def scored_pairs(path: Path) -> list[list[str]]:
    return [line.split("\t")[:2] for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def run_theirs(directory: Path, teacher: Path, data: Path, seed: int, method: str) -> dict[str, float]:
    """Distils by sentence-transformers in a process of its own, as its guide to model distillation does.

    A narrow student learns the teacher's vectors projected onto their first principal components.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "result.json"
    narrow = method == NARROW_THEIRS
    arguments = json.dumps([str(teacher), str(data), str(directory), seed, str(target), narrow])
    command = [sys.executable, "-c", _THEIR_PROGRAM, arguments]
    subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    return json.loads(target.read_text(encoding="utf-8"))


_THEIR_PROGRAM = f"""
import json, statistics, sys, time
import numpy as np
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MSELoss
from sklearn.decomposition import PCA
from transformers import BertModel, set_seed

teacher, data, directory, seed, target, narrow = json.loads(sys.argv[1])
teacher, student = (SentenceTransformer(teacher, device="cpu") for _ in range(2))
encoder = student[0].auto_model
if narrow:
    set_seed(seed)
    sizes = dict(encoder.config.to_dict(), **{NARROW_SIZES})
    BertModel(type(encoder.config)(**sizes), add_pooling_layer=False).save_pretrained(directory)
    student.tokenizer.save_pretrained(directory)
    student = SentenceTransformer(directory, device="cpu")  # bare encoders get mean pooling
else:
    encoder.encoder.layer = torch.nn.ModuleList([encoder.encoder.layer[layer] for layer in {LAYERS}])
    encoder.config.num_hidden_layers = {len(LAYERS)}


def sentences(split):
    lines = open(f"{{data}}/{{split}}.tsv", encoding="utf-8").read().splitlines()[1:]
    return [line.split("\\t") for line in lines]


def spearman(split):
    rows = sentences(split)
    a, b = (student.encode([row[side] for row in rows], batch_size={BATCH}) for side in (0, 1))
    cosines = np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(spearmanr(cosines, [float(row[2]) for row in rows])[0])


texts = open(f"{{data}}/train.txt", encoding="utf-8").read().splitlines()
start = time.perf_counter()
vectors = teacher.encode(texts, batch_size={BATCH})
if narrow:
    vectors = vectors @ PCA({NARROW_SIZES["hidden_size"]}, random_state=0).fit(vectors).components_.T
rows = Dataset.from_dict({{"sentence": texts, "label": vectors.tolist()}})
arguments = SentenceTransformerTrainingArguments(
    directory, num_train_epochs=3 if narrow else 1, per_device_train_batch_size={BATCH},
    learning_rate=1e-3 if narrow else {LEARNING_RATE},
    warmup_steps=0.1, seed=seed, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
)
SentenceTransformerTrainer(student, arguments, rows, loss=MSELoss(student)).train()
seconds = time.perf_counter() - start
result = {{"seconds": seconds, "test": spearman("test"), "dev": spearman("dev")}}
texts = [text for row in sentences("test") for text in row[:2]]
seconds = []
for _ in range(4):
    start = time.perf_counter()
    student.encode(texts, batch_size={BATCH})
    seconds.append(time.perf_counter() - start)
result["milliseconds"] = 1000 * statistics.median(seconds[1:]) / len(texts)
json.dump(result, open(target, "w"))
"""


def main() -> int:
    return run_program(
        EmbeddingBenchmarkConfig,
        run,
        prog="benchmarks/embeddings.py",
        description="Compares sentence-transformers' distillation of an embedder with ours.",
    )


if __name__ == "__main__":
    sys.exit(main())
