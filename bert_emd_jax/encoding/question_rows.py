"""Questions with their texts as rows of tokens: windows of long texts, and where answers stand in them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Num

from bert_emd_jax.data.answer_config import AnswerConfig
from bert_emd_jax.data.questions import Questions
from bert_emd_jax.encoding.dataset import SHORTEST, EncodedDataset
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class QuestionRows(EncodedDataset):
    """Rows `[CLS] question [SEP] window of its text [SEP]`, one or several for a question.

    Some tokenizers put two [SEP] between them, see `Tokenizer.pairs`.

    Attributes:
      labels: the tokens of a row at which the first right answer begins and ends; 0, that is [CLS], if it is
        not in the window or not known.
      questions: what the rows were made of.
      question_of: the question of every row.
      spans: of every token the characters of the text that it stands for, (-1, -1) for others.
      config: how answers are looked for.
    """

    labels: Int[np.ndarray, "rows 2"]
    questions: Questions
    question_of: Int[np.ndarray, " rows"]
    spans: Int[np.ndarray, "tokens 2"]
    config: AnswerConfig

    @property
    def may_have_no_answer(self) -> bool:
        """Whether it may be an answer that there is none."""
        return self.config.null_threshold is not None or self.questions.has_unanswerable

    @property
    def predicted(self) -> int:
        return len(self.token_ids)

    def place(
        self,
        results: Num[np.ndarray, "tokens outputs"],
        rows: Int[np.ndarray, " rows"],
        outputs: Num[np.ndarray, "rows seq outputs"],
    ) -> None:
        for row, of_row in zip(rows.tolist(), outputs, strict=False):
            first, last = self.offsets[row], self.offsets[row + 1]
            results[first:last] = of_row[: last - first]


def encode_questions(
    tokenizer: Tokenizer, questions: Questions, max_length: int, config: AnswerConfig
) -> QuestionRows:
    """Tokenises questions and texts, and makes windows of texts that are too long.

    Raises:
      UserError: a window has no room beside a question, or none for anything new.
    """
    least = max_length - config.max_query_length - tokenizer.pairs.specials
    if max_length < SHORTEST or least <= (config.doc_stride or 0):
        raise UserError(
            f"--max_seq_length {max_length}: leaves {max(least, 0)} tokens of a text beside a question of"
            f" --max_query_length {config.max_query_length}; that should be more than --doc_stride"
        )
    asked = tokenizer.encode(questions.questions)
    # A text is asked several questions as a rule.
    contexts = list(dict.fromkeys(questions.contexts))
    encoded = dict(zip(contexts, tokenizer.encode_with_offsets(contexts), strict=True))
    token_ids: list[int] = []
    spans: list[tuple[int, int]] = []
    lengths: list[int] = []
    of_question: list[int] = []
    segment_a_lengths: list[int] = []
    labels: list[tuple[int, int]] = []
    nowhere = (-1, -1)
    between = [tokenizer.sep_id] * tokenizer.pairs.separators
    for number, (question, context) in enumerate(zip(asked, questions.contexts, strict=True)):
        question = question[: config.max_query_length]
        encoding = encoded[context]
        answer = questions.answers[number][:1] if questions.answers is not None else ()
        bounds = _tokens_of(encoding.offsets, *((a.start, a.start + len(a.text)) for a in answer))
        room = max_length - len(question) - tokenizer.pairs.specials
        overlap = room // 3 if config.doc_stride is None else config.doc_stride
        for first, last in _windows(len(encoding.ids), room, overlap):
            before = [tokenizer.cls_id, *question, *between]
            row = [*before, *encoding.ids[first:last], tokenizer.sep_id]
            token_ids += row
            spans += [*[nowhere] * len(before), *encoding.offsets[first:last], nowhere]
            lengths.append(len(row))
            of_question.append(number)
            segment_a_lengths.append(len(before) if tokenizer.pairs.has_segments else len(row))
            inside = bounds is not None and first <= bounds[0] and bounds[1] < last
            shift = len(before) - first
            labels.append((bounds[0] + shift, bounds[1] + shift) if bounds and inside else (0, 0))
    return QuestionRows(
        token_ids=np.array(token_ids, np.int32),
        offsets=np.cumsum([0, *lengths]),
        segment_a_lengths=np.array(segment_a_lengths, np.int32),
        labels=np.array(labels, np.int32),
        pad_id=tokenizer.pad_id,
        questions=questions,
        question_of=np.array(of_question, np.int32),
        spans=np.array(spans, np.int32),
        config=config,
    )


def _windows(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Returns the first token of every window and the one behind its last; neighbours share `overlap`."""
    found = [(0, min(room, tokens))]
    while found[-1][1] < tokens:
        start = found[-1][1] - overlap
        found.append((start, min(start + room, tokens)))
    return found


def _tokens_of(offsets: Sequence[tuple[int, int]], *answers: tuple[int, int]) -> tuple[int, int] | None:
    """Returns the first and the last token that stand for some of an answer's characters; None without."""
    for start, end in answers:
        touched = [token for token, (low, high) in enumerate(offsets) if low < end and high > start]
        if touched:
            return touched[0], touched[-1]
    return None
