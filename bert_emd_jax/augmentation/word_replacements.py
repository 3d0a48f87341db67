"""Candidates to replace the words of texts: a masked-language model's predictions, and neighbours among
word vectors."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bert_emd_jax.augmentation.masked_lm import WordPredictor
from bert_emd_jax.augmentation.word_vectors import WordVectors
from bert_emd_jax.augmentation.words import Replacement, find_words, proposable_words, usable_candidates
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.devices.precision import resolved_dtype
from bert_emd_jax.models.heads import MaskedLanguageModel

_LONGEST_INPUT = 512


class WordCounts(NamedTuple):
    """Numbers of content words by the source of their candidates."""

    by_model: int
    by_vectors: int
    without: int


class WordReplacements:
    """Candidates for the content words of texts.

    Those of a word of one token are the likeliest tokens of the masked-language model at its position; those
    of other words their nearest neighbours among the word vectors, if there are any.
    """

    def __init__(
        self,
        texts: Sequence[str],
        model: LoadedModel,
        vectors: WordVectors | None,
        count: int,
        batch_size: int,
        dtype: str = "float32",
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        """Finds the candidates.

        Args:
          texts: different texts.
          count: most candidates per word.
          progress: called with the words predicted since its last call and their total.
        """
        tokenizer, config = model.tokenizer, model.config
        max_length = min(_LONGEST_INPUT, config.longest_input)
        self._words, inputs = find_words(tokenizer, texts, max_length)
        self._number_of = {text: number for number, text in enumerate(texts)}
        self._first_words = np.searchsorted(self._words.texts, np.arange(len(texts) + 1)).tolist()

        self._token_words = proposable_words(tokenizer)
        module = MaskedLanguageModel(config, jnp.dtype(resolved_dtype(dtype)))
        is_proposable = np.array([word != "" for word in self._token_words])
        predictor = WordPredictor(module, is_proposable, tokenizer.mask_id, count)
        is_predicted = self._words.positions > 0
        rows, positions = self._words.texts[is_predicted], self._words.positions[is_predicted]
        self._predicted = predictor.predict(
            replicate(model.params),
            inputs,
            rows,
            positions,
            batch_size,
            lambda done: progress(done, len(rows)),
        )
        # The index of each predicted word in `_predicted`.
        self._predicted_index = np.cumsum(is_predicted) - 1

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
        """Returns the words of one of the texts that have candidates, in their order.

        Raises KeyError for any other text.
        """
        number = self._number_of[text]
        found = []
        for index in range(self._first_words[number], self._first_words[number + 1]):
            start, end = int(self._words.starts[index]), int(self._words.ends[index])
            word = text[start:end]
            if self._words.positions[index]:
                token_ids = self._predicted[self._predicted_index[index]].tolist()
                proposals = [self._token_words[token_id] for token_id in token_ids]
            else:
                proposals = self._neighbours.get(word, [])
            if candidates := usable_candidates(word, proposals):
                found.append(Replacement(start, end, candidates))
        return found
