"""How often 95 % intervals of error rates hold the true rate, in simulated test sets.

    python tests/text/interval_coverage.py [--sets 2000]

Speakers' error rates follow a beta distribution with a given mean and coefficient of variation (the standard deviation
over the mean); each word of a speaker is wrong with that probability. A speaker has 100 words, or, with unequal sizes,
log-normally many: 100 on average, and 0.8 as the deviation of the logarithm. For the paired interval a second system
has the first one's rates times a factor, which varies by a fifth between speakers.
"""

import argparse

import numpy as np

from speechrnn.text.scores import ErrorCounts, difference_interval, error_rate_interval

SPEAKERS = (3, 5, 8, 12, 30)
RATES = (0.01, 0.05, 0.2, 0.5)
VARIATIONS = (0.3, 0.6, 1.0)
FACTORS = (1.0, 0.8, 0.5)
_MANY = 400_000


def draw_rates(rng, shape, *, rate, variation):
    size = rate * (1 - rate) / (variation * rate) ** 2 - 1
    return rng.beta(rate * size, (1 - rate) * size, size=shape)


def draw_lengths(rng, speakers, *, is_unequal):
    if not is_unequal:
        return np.full(speakers, 100)
    return np.maximum(1, np.exp(rng.normal(np.log(100) - 0.32, 0.8, size=speakers)).round()).astype(int)


def count(errors, lengths):
    return [ErrorCounts(int(wrong), length=int(words)) for wrong, words in zip(errors, lengths, strict=True)]


def cover_rate(speakers, *, rate, variation, is_unequal, sets, seed=0):
    """Share of simulated test sets in which the interval of the error rate holds the true one."""
    rng = np.random.default_rng(seed)
    names, held = list(range(speakers)), 0
    for _ in range(sets):
        lengths = draw_lengths(rng, speakers, is_unequal=is_unequal)
        errors = rng.binomial(lengths, draw_rates(rng, speakers, rate=rate, variation=variation))
        interval = error_rate_interval(count(errors, lengths), names)
        held += interval.low <= rate <= interval.high
    return held / sets


def cover_difference(speakers, *, rate, variation, factor, is_unequal, sets, seed=0):
    """Share of simulated test sets in which the interval of the difference holds the true one."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        first = draw_rates(rng, shape, rate=rate, variation=variation)
        return first, np.minimum(1.0, first * factor * np.exp(rng.normal(-0.02, 0.2, size=shape)))

    many = draw(_MANY)
    true, names, held = float((many[1] - many[0]).mean()), list(range(speakers)), 0
    for _ in range(sets):
        lengths = draw_lengths(rng, speakers, is_unequal=is_unequal)
        first, second = (count(rng.binomial(lengths, rates), lengths) for rates in draw(speakers))
        interval = difference_interval(first, second, names)
        held += interval.low <= true <= interval.high
    return held / sets


def list_settings():
    """Mean rate, variation and whether sizes differ; a rate of 0.5 cannot vary by as much as its mean."""
    return [
        {"rate": rate, "variation": variation, "is_unequal": is_unequal}
        for is_unequal in (False, True)
        for rate in RATES
        for variation in VARIATIONS
        if not (rate == 0.5 and variation == 1.0)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=2000, help="simulated test sets for each number")
    args = parser.parse_args()
    print("| rate | variation | sizes | system B / A |" + "".join(f" {count} |" for count in SPEAKERS))
    print("|" + " --- |" * (4 + len(SPEAKERS)))
    for factor in (None, *FACTORS):
        for setting in list_settings():
            more = {} if factor is None else {"factor": factor}
            cover = cover_rate if factor is None else cover_difference
            found = [100 * cover(speakers, **setting, **more, sets=args.sets) for speakers in SPEAKERS]
            sizes, kind = "unequal" if setting["is_unequal"] else "equal", "rate alone" if factor is None else factor
            cells = "".join(f" {share:.1f} |" for share in found)
            print(f"| {setting['rate']} | {setting['variation']} | {sizes} | {kind} |{cells}", flush=True)


if __name__ == "__main__":
    main()
