"""Which known symbol a new one is most like: how fine-tuning begins a letter that the model has never seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection


def find_similar(symbol: str, known: Collection[str]) -> str | None:
    """The symbol whose sound a new one is likely to share, as far as Unicode tells: ä → a, ß → s, É → e, ø → o.

    Args:
        symbol: One that a model lacks.
        known: Those that it has.

    Returns:
        The first that is known of: the symbol in the other case, without its marks, the letter that its Unicode name
        is built on ("LATIN SMALL LETTER O WITH STROKE"); None where there is none, as in another script.
    """
    candidates = [symbol.casefold(), symbol.lower(), symbol.upper()]
    for form in (symbol, symbol.casefold()):
        bare = "".join(c for c in unicodedata.normalize("NFKD", form) if not unicodedata.combining(c))
        candidates += [bare, bare.casefold(), bare.upper()]
        if len(form) == 1:
            base = _read_base_letter(form)
            candidates += [base, base.casefold(), base.upper()]
    return next((candidate for candidate in candidates if candidate != symbol and candidate in known), None)


def _read_base_letter(character: str) -> str:
    """The letter that a character's Unicode name ends on, before any WITH (of AE the first); "" for none."""
    name = unicodedata.name(character, "").partition(" WITH ")[0].replace(" LIGATURE ", " LETTER ")
    script, _, letter = name.partition(" LETTER ")
    if not letter:
        return ""
    last = letter.split()[-1]
    if len(last) == 2:  # AE, OE: begin as the first of both
        last = last[0]
    return unicodedata.lookup(f"{script} LETTER {last}") if len(last) == 1 else ""
