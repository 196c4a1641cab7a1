"""N-gram models: how probable a word is after the words before it. Queries, and ARPA files in and out.

A model of order n knows the probability of some n-grams. Where it does not know one, it backs off: it takes the n-gram
without its first word, times the back-off weight of the words before. Probabilities are natural logarithms here and
logarithms to base 10 in ARPA files.

Source:
    The file format: SRILM's manual page "ngram-format"; S. Katz, "Estimation of probabilities from sparse data", 1987.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from speechrnn.errors import ModelError
from speechrnn.whole_files import write_whole

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"

_LN10 = math.log(10.0)
_NEVER = -99.0  # what ARPA writes for a probability of zero

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What a model knows of an n-gram.

    Attributes:
        log_prob: Of its last word after the others, natural log.
        backoff: Natural log of the weight that shorter n-grams get after it; 0 where none is stated.
    """

    log_prob: float
    backoff: float = 0.0


class NgramModel:
    """An n-gram model.

    Args:
        tables: For each order from 1 on, what is known of its n-grams.

    Raises:
        ModelError: There is no unigram.
    """

    def __init__(self, tables: Sequence[dict[Ngram, Known]]) -> None:
        if not tables or not tables[0]:
            raise ModelError("an n-gram model: expected unigrams, found none")
        self.tables = list(tables)

    @property
    def order(self) -> int:
        """Longest n-grams that it knows."""
        return len(self.tables)

    @property
    def vocabulary(self) -> list[str]:
        """Its words, ``<unk>``, ``<s>`` and ``</s>`` among them where it has them, in their order."""
        return [word for (word,) in self.tables[0]]

    def log_prob(self, word: str, context: Sequence[str] = ()) -> float:
        """The natural log of a word's probability after a context; of an unknown word, that of ``<unk>``.

        Args:
            word: A word, or ``</s>``.
            context: The words before it, the last one last; only the order's last ones count.

        Returns:
            The logarithm; minus infinity for an unknown word in a model without ``<unk>``.
        """
        return self._log_prob(self._known(word), self._context(context))

    def score(self, words: Sequence[str], *, has_begin: bool = True, has_end: bool = True) -> float:
        """The natural log of a sentence's probability.

        Args:
            words: The sentence.
            has_begin: Whether it begins where a sentence begins.
            has_end: Whether it ends where a sentence ends.
        """
        said = [BEGIN, *words] if has_begin else list(words)
        asked = [*words, END] if has_end else list(words)
        offset = len(said) - len(words)
        return sum(self.log_prob(word, said[: place + offset]) for place, word in enumerate(asked))

    def _known(self, word: str) -> str:
        return word if (word,) in self.tables[0] else UNKNOWN

    def _context(self, words: Sequence[str]) -> Ngram:
        last = words[max(0, len(words) - self.order + 1) :] if self.order > 1 else ()
        return tuple(self._known(word) for word in last)

    def _log_prob(self, word: str, context: Ngram) -> float:
        penalty = 0.0
        while True:
            known = self.tables[len(context)].get((*context, word))
            if known is not None:
                return penalty + known.log_prob
            if not context:
                return -math.inf
            before = self.tables[len(context) - 1].get(context)
            penalty += before.backoff if before is not None else 0.0
            context = context[1:]


def write_arpa(path: str | Path, model: NgramModel) -> None:
    """Write an ARPA file, compressed where its name ends in ``.gz``; whole or not at all.

    Raises:
        ModelError: It cannot be written.
    """
    lines = ["\\data\\"]
    lines += [f"ngram {order}={len(table)}" for order, table in enumerate(model.tables, start=1)]
    for order, table in enumerate(model.tables, start=1):
        lines += ["", f"\\{order}-grams:"]
        for ngram, known in table.items():
            log_prob = _NEVER if known.log_prob == -math.inf else known.log_prob / _LN10
            backoff = f"\t{known.backoff / _LN10:.7g}" if order < model.order else ""
            lines.append(f"{log_prob:.7g}\t{' '.join(ngram)}{backoff}")
    text = "\n".join([*lines, "", "\\end\\", ""])
    data = gzip.compress(text.encode("utf-8"), mtime=0) if str(path).endswith(".gz") else text.encode("utf-8")
    write_whole(path, data, error=ModelError)


def read_arpa(path: str | Path) -> NgramModel:
    """Read an ARPA file.

    Args:
        path: In UTF-8, compressed where its name ends in ``.gz``.

    Raises:
        ModelError: It cannot be read or is no ARPA file; the message names the line.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            return _parse(path, enumerate(file, start=1))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such language model; check the path") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read as an ARPA file ({error})") from error


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8-sig")


def _parse(path: Path, lines: Iterator[tuple[int, str]]) -> NgramModel:
    counts: dict[int, int] = {}
    tables: list[dict[Ngram, Known]] = []
    is_begun = is_ended = False
    for number, line in lines:
        text = line.strip("\r\n ")
        if not text:
            continue
        where = f"{path} line {number}"
        if not is_begun:
            is_begun = text == "\\data\\"
            continue  # what stands before it is a comment
        if text == "\\end\\":
            is_ended = True
            break
        if text.startswith("ngram ") and not tables:
            order, _, count = text.removeprefix("ngram ").partition("=")
            if not (order.strip().isdigit() and count.strip().isdigit()):
                raise ModelError(f"{where}: expected ngram ORDER=COUNT, got {text}")
            counts[int(order)] = int(count)
        elif text.startswith("\\") and text.endswith("-grams:"):
            if text != f"\\{len(tables) + 1}-grams:":
                raise ModelError(f"{where}: expected \\{len(tables) + 1}-grams:, got {text}")
            tables.append({})
        elif tables:
            ngram, known = _parse_ngram(text, len(tables), where)
            tables[-1][ngram] = known
        else:
            raise ModelError(f"{where}: expected n-grams, got {text[:40]}")
    if not is_begun or not is_ended:
        missing = r"\end\ " if is_begun else r"\data\ "
        raise ModelError(f"{path}: no ARPA file, or cut off: {missing}is missing")
    found = {order: len(table) for order, table in enumerate(tables, start=1)}
    if counts != found:
        raise ModelError(f"{path}: says that it has {counts} n-grams, and has {found}; is it whole?")
    return NgramModel(tables)


def _parse_ngram(text: str, order: int, where: str) -> tuple[Ngram, Known]:
    parts = text.split()
    if len(parts) not in (order + 1, order + 2):
        raise ModelError(f"{where}: expected a logarithm, {order} words and maybe a back-off weight, got {text[:60]}")
    try:
        log_prob, backoff = float(parts[0]), float(parts[order + 1]) if len(parts) == order + 2 else 0.0
    except ValueError:
        raise ModelError(f"{where}: expected numbers at both ends, got {text[:60]}") from None
    if log_prob > 1e-4:
        raise ModelError(f"{where}: a probability above 1 (10^{log_prob:g})")
    return tuple(parts[1 : order + 1]), Known(-math.inf if log_prob <= _NEVER else log_prob * _LN10, backoff * _LN10)
