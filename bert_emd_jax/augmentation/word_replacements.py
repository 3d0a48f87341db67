"""What may stand in place of the words of texts: predictions of a masked-language model, and neighbours
among word vectors."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bert_emd_jax.augmentation.masked_lm import WordPredictor
from bert_emd_jax.augmentation.word_vectors import WordVectors
from bert_emd_jax.augmentation.words import Replacement, find_words, proposable_words, usable_candidates
from bert_emd_jax.checkpoints.model_directory import Model
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.models.heads import BertForMaskedLM

_LONGEST_INPUT = 512


class WordCounts(NamedTuple):
    """Content words by where their candidates come from."""

    by_model: int
    by_vectors: int
    without: int


class WordReplacements:
    """Candidates for the content words of different texts.

    Words of one piece have the likeliest pieces of the masked-language model in their place, all others
    their nearest neighbours among the word vectors, if there are any.
    """

    def __init__(
        self,
        texts: Sequence[str],
        model: Model,
        vectors: WordVectors | None,
        count: int,
        batch_size: int,
        dtype: str = "float32",
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        """At most `count` candidates a word. `progress(done, total)` counts the predicted words."""
        tokenizer, config = model.tokenizer, model.config
        max_length = min(_LONGEST_INPUT, config.max_position_embeddings)
        self._words, inputs = find_words(tokenizer, texts, max_length)
        self._number_of = {text: number for number, text in enumerate(texts)}
        self._first_words = np.searchsorted(self._words.texts, np.arange(len(texts) + 1)).tolist()

        self._piece_words = proposable_words(tokenizer)
        module = BertForMaskedLM(config, jnp.dtype(dtype))
        is_proposable = np.array([word != "" for word in self._piece_words])
        predictor = WordPredictor(module, is_proposable, tokenizer.mask_id, count)
        is_predicted = self._words.positions > 0
        rows, positions = self._words.texts[is_predicted], self._words.positions[is_predicted]
        self._pieces = predictor.predict(
            replicate(model.params),
            inputs,
            rows,
            positions,
            batch_size,
            lambda done: progress(done, len(rows)),
        )
        # Where in these results each predicted word stands.
        self._results = np.cumsum(is_predicted) - 1

        self._neighbours: dict[str, list[str]] = {}
        others = [
            texts[int(number)][start:end]
            for number, start, end, position in zip(*self._words, strict=True)
            if position == 0
        ]
        if vectors is not None:
            different = sorted(set(others))
            self._neighbours = dict(zip(different, vectors.neighbours(different, count), strict=True))
        by_vectors = sum(bool(self._neighbours.get(word)) for word in others)
        self.counts = WordCounts(len(rows), by_vectors, len(others) - by_vectors)

    def of(self, text: str) -> list[Replacement]:
        """The words of one of the texts that have candidates, in their order.

        Raises KeyError for another text.
        """
        number = self._number_of[text]
        found = []
        for index in range(self._first_words[number], self._first_words[number + 1]):
            start, end = int(self._words.starts[index]), int(self._words.ends[index])
            word = text[start:end]
            if self._words.positions[index]:
                pieces = self._pieces[self._results[index]].tolist()
                proposals = [self._piece_words[piece] for piece in pieces]
            else:
                proposals = self._neighbours.get(word, [])
            if candidates := usable_candidates(word, proposals):
                found.append(Replacement(start, end, candidates))
        return found
