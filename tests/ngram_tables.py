"""N-gram models from and to tables of words, for small models in tests."""

from typing import NamedTuple

import numpy as np

from speechrnn.language.ngram import NgramModel


class Known(NamedTuple):
    """Natural logs of the probability of an n-gram's last word, and of its back-off weight."""

    log_prob: float
    backoff: float = 0.0


def make_ngram(tables):
    """A model of the n-grams of each order from 1 on: tables from tuples of words to Known."""
    words = [word for (word,) in tables[0]]
    ids = {word: number for number, word in enumerate(words)}
    ngrams = [
        np.array([[ids[word] for word in ngram] for ngram in table], np.int64).reshape(len(table), order)
        for order, table in enumerate(tables, start=1)
    ]
    known = [np.array(list(table.values()), float).reshape(len(table), 2) for table in tables]
    return NgramModel.assemble(words, ngrams, known)


def list_known(model, order):
    """The n-grams of one order, as a table."""
    return {
        tuple(model.spell(row)): Known(
            float(model.log_probs[row]), float(model.backoffs[row + 1]) if order < model.order else 0.0
        )
        for row in range(model.starts[order - 1], model.starts[order])
    }
