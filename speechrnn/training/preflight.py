"""Preflight: read and check the corpora, make the tokens and the untrained model."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechrnn.acoustic.model import AcousticModel, check_memory
from speechrnn.atomic_io import write_json_lines
from speechrnn.audio.features import StatisticsAccumulator
from speechrnn.corpus.check import LeftOut, check_corpus, encode_utterance
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance, UtteranceList, read_utterance
from speechrnn.errors import AudioError, ConfigError, CorpusError, name_some
from speechrnn.model_folder import ModelFolder, load_model
from speechrnn.text.normalize import normalize_text
from speechrnn.text.phone_tokens import read_pronunciations
from speechrnn.text.token_files import build_tokens
from speechrnn.text.tokens import Tokens, TokensConfig
from speechrnn.training.config import Config
from speechrnn.training.start import check_start, make_tokens, start_from
from speechrnn.types import pad_sequences

logger = logging.getLogger("speechrnn")

REPLAY = "replay"
"""Name of the corpus of original-domain recordings that fine-tuning mixes in."""

_NAMED_AT_MOST = 5
_STATISTICS_BATCH_SECONDS = 120.0
_MOST_STATISTICS_SECONDS = 3600.0
"""Mean and deviation of a longer corpus are taken over every n-th utterance."""


@dataclass(frozen=True)
class Preflight:
    """What training needs before its first step.

    Attributes:
        model: The untrained acoustic model.
        tokens: Tokens of its outputs.
        train: Utterances to train on.
        valid: Utterances to choose checkpoints on.
        left_out: Training utterances that cannot be trained on, with reasons.
        weights: How often an epoch has each utterance of a corpus, by name: as configured, and the share of replay.
        pronunciations: Phones of the training texts' words, if lower layers learn phones.
        speaker_stats: Number of frames and mean features of each utterance of train and of valid, (U, 1 + F) each, if
            the front end normalises by speaker.
    """

    model: AcousticModel
    tokens: Tokens
    train: UtteranceList
    valid: UtteranceList
    left_out: list[LeftOut]
    weights: dict[str, float]
    pronunciations: dict[str, list[str]] | None = None
    speaker_stats: tuple[np.ndarray, np.ndarray] | None = None

    def fingerprint(self) -> str:
        """A digest of the data: a run is resumed on the same data only."""
        digest = hashlib.blake2b(digest_size=8)
        for utterance in chain(self.train, self.valid):
            samples = utterance.count_samples(self.model.sample_rate)
            digest.update(f"{utterance.id}\x1f{samples}\x1f{list(utterance.tokens)}\x1e".encode())
        if self.pronunciations is not None:
            digest.update(repr(sorted(self.pronunciations.items())).encode())
        return digest.hexdigest()


def prepare_run(
    config: Config,
    *,
    folders: Sequence[Path],
    corpora: Mapping[str, Sequence[Utterance]] | None = None,
    base: ModelFolder | None = None,
) -> Preflight:
    """Read the corpora, build tokens and model, and leave out what CTC cannot align.

    Args:
        config: The run's configuration.
        folders: Where to look for relative manifest paths, in this order.
        corpora: Corpora that are read already, by setting: ``data.train``, ``data.valid``, ``start.replay``.
        base: The model of ``start.model``, if it is loaded already.

    Raises:
        ConfigError: A setting does not suit the model or the corpora.
        CorpusError: A corpus is missing, damaged, or holds nothing to train on.
    """
    corpora = _read_corpora(config, folders, corpora or {})
    normalize = partial(normalize_text, config=config.text)
    texts = (normalize(each.text) for each in corpora["data.train"])
    tokens, model = _make_model(config, texts, folders, base)
    check = partial(
        check_corpus,
        tokens=tokens,
        normalize=normalize,
        sample_rate=model.sample_rate,
        explain_infeasible=model.explain_infeasible,
    )
    train, left_out = check(corpora["data.train"])
    _report_left_out(config, len(train), left_out)
    _warn_of_unused_weights(config.data.weights, train)
    pronunciations = _find_pronunciations(config, folders, train, normalize)
    valid = _check_valid(corpora["data.valid"], tokens, normalize, model)
    if not valid:
        raise CorpusError(f"{config.data.valid}: no utterance is as long as one frame; add longer ones")
    weights = dict(config.data.weights)
    if "start.replay" in corpora:
        weights[REPLAY] = _mix_in(train, *check(corpora["start.replay"]), share=config.start.replay_share)
    speaker_stats = _measure_features(model, train, valid, is_new=config.start.model is None)
    return Preflight(model, tokens, train, valid, left_out, weights, pronunciations, speaker_stats)


def _read_corpora(
    config: Config, folders: Sequence[Path], known: Mapping[str, Sequence[Utterance]]
) -> dict[str, Sequence[Utterance]]:
    settings = {"data.train": config.data.train, "data.valid": config.data.valid}
    if config.start.replay is not None:
        settings["start.replay"] = config.start.replay
    corpora = dict(known)
    for name, path in settings.items():
        if name not in corpora:
            format = config.data.format if name.startswith("data.") else None
            corpora[name] = read_corpus(_find(path, name, folders), format)
    return corpora


def _make_model(
    config: Config, texts: Iterable[str], folders: Sequence[Path], base: ModelFolder | None
) -> tuple[Tokens, AcousticModel]:
    import lightning.pytorch as pl

    if config.start.model is not None:
        base = base or load_model(config.start.model)
        check_start(base, config)
        tokens = make_tokens(base.tokens, config, texts)
    else:
        normalize = partial(normalize_text, config=config.text)
        tokens = build_tokens(find_token_files(config.tokens, folders), texts, normalize=normalize)
    check_memory(config.front_end, config.encoder, len(tokens))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if base is not None:
        return tokens, start_from(base, config, tokens)
    return tokens, AcousticModel(config.front_end, config.encoder, len(tokens), blank_bias=config.ctc.blank_bias)


def _mix_in(utterances: UtteranceList, old: Sequence[Utterance], left_out: Sequence[LeftOut], *, share: float) -> float:
    """Add replay utterances to the training set; return the weight that gives them their share of the time."""
    if not old:
        raise CorpusError(f"start.replay: none of {len(left_out)} utterances can be trained on; {left_out[0].reason}")
    if left_out:
        logger.warning("%d of %d replay utterances are left out", len(left_out), len(old) + len(left_out))
    new_seconds = sum(utterance.seconds for utterance in utterances)
    old_seconds = sum(utterance.seconds for utterance in old)
    for utterance in old:
        utterances.append(replace(utterance, id=f"{REPLAY}/{utterance.id}", corpus=REPLAY))
    return share / (1.0 - share) * new_seconds / old_seconds


def find_token_files(config: TokensConfig, folders: Sequence[Path]) -> TokensConfig:
    """Find the files of an alphabet and a lexicon, whose paths may be relative to one of the folders.

    Raises:
        CorpusError: A file does not exist.
    """
    found: dict[str, Any] = {
        name: str(_find(getattr(config, name), f"tokens.{name}", folders))
        for name in ("alphabet", "lexicon")
        if getattr(config, name) is not None
    }
    return replace(config, **found)


def _find(name: str | None, setting: str, folders: Sequence[Path]) -> Path:
    if name is None:
        raise ConfigError(f"{setting}: expected a manifest (.jsonl), got nothing")
    candidates = [Path(name)] if Path(name).is_absolute() else [*(f / name for f in folders), Path(name)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise CorpusError(
        f"{setting}: no {name} in {', '.join(str(c.parent) for c in candidates)}; run the recipe's "
        "prepare stage, or set the path"
    )


def _report_left_out(config: Config, num_usable: int, left_out: Sequence[LeftOut]) -> None:
    """Log what cannot be trained on, and list all of it in the run's folder."""
    _warn_of_some("left out of training", left_out)
    if left_out:
        total = num_usable + len(left_out)
        logger.warning("%d of %d utterances are left out of training", len(left_out), total)
    if config.output is not None:
        write_json_lines(Path(config.output) / "left_out.jsonl", (vars(item) for item in left_out))
    if not num_usable:
        raise CorpusError(
            f"{config.data.train}: none of {len(left_out)} utterances can be trained on; "
            f"the first, {left_out[0].id}: {left_out[0].reason}"
        )


def _warn_of_some(what: str, items: Sequence[LeftOut]) -> None:
    for item in items[:_NAMED_AT_MOST]:
        logger.warning("%s: %s: %s", what, item.id, item.reason)
    if len(items) > _NAMED_AT_MOST:
        logger.warning("%s: and %d more", what, len(items) - _NAMED_AT_MOST)


def _warn_of_unused_weights(weights: Mapping[str, float], utterances: Iterable[Utterance]) -> None:
    known = {utterance.corpus for utterance in utterances if utterance.corpus is not None}
    for name in sorted(weights.keys() - known):
        has = f"it has {', '.join(sorted(known))}" if known else "its utterances have no corpus"
        logger.warning("data.weights.%s: no such corpus in the training manifest (%s)", name, has)


def _check_valid(
    utterances: Iterable[Utterance], tokens: Tokens, normalize: Callable[[str], str], model: AcousticModel
) -> UtteranceList:
    """Utterances of at least one frame: what cannot be trained on is still scored."""
    valid = UtteranceList()
    too_short, without_loss = [], []
    for each in utterances:
        utterance, reason = encode_utterance(each, tokens=tokens, normalize=normalize)
        samples = utterance.count_samples(model.sample_rate)
        if model.count_frames(samples) == 0:
            too_short.append(LeftOut(utterance.id, "shorter than one frame"))
            continue
        reason = reason or model.explain_infeasible(utterance.tokens, samples)
        if reason:
            without_loss.append(LeftOut(utterance.id, reason))
        valid.append(utterance)
    _warn_of_some("left out of validation", too_short)
    _warn_of_some("counts in the WER, not in the loss", without_loss)
    return valid


def read_test_set(config: Config, name: str, preflight: Preflight, folders: Sequence[Path]) -> UtteranceList:
    """Read one set of ``data.test`` as the validation set is read."""
    utterances = read_corpus(_find(config.data.test[name], f"data.test.{name}", folders), config.data.format)
    return _check_valid(utterances, preflight.tokens, partial(normalize_text, config=config.text), preflight.model)


def _find_pronunciations(
    config: Config, folders: Sequence[Path], utterances: Iterable[Utterance], normalize: Callable[[str], str]
) -> dict[str, list[str]] | None:
    if config.ctc.lexicon is None:
        return None
    path = _find(config.ctc.lexicon, "ctc.lexicon", folders)
    known: dict[str, list[str]] = {}
    for word, phones in read_pronunciations(path).items():
        known.setdefault(normalize(word), phones)
    words = Counter(word for utterance in utterances for word in utterance.text.split())
    unknown = [word for word, _ in words.most_common() if word not in known]
    if len(unknown) == len(words):
        raise CorpusError(f"{path}: has none of the training texts' {len(words)} words: {name_some(unknown)}")
    if unknown:
        logger.warning(
            "%s: lacks %d of the training texts' %d words: %s; lower layers do not learn utterances with them",
            path, len(unknown), len(words), name_some(unknown),
        )  # fmt: skip
    return {word: known[word] for word in sorted(words) if word in known}


def _measure_features(
    model: AcousticModel, train: Sequence[Utterance], valid: Sequence[Utterance], *, is_new: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Set a new model's corpus statistics; the statistics of each utterance if it normalises by speaker."""
    normalization = model.front_end.config.normalization
    if normalization == "speaker":
        return _measure(model, train, fits_statistics=is_new), _measure(model, valid, fits_statistics=False)
    if normalization == "corpus" and is_new:
        step = math.ceil(sum(utterance.seconds for utterance in train) / _MOST_STATISTICS_SECONDS)
        _measure(model, train[::step], fits_statistics=True)
    return None


def _measure(model: AcousticModel, utterances: Sequence[Utterance], *, fits_statistics: bool) -> np.ndarray:
    """Frames and mean features of each utterance, (U, 1 + F), float32; zeros if it cannot be read.

    With ``fits_statistics``, set the mean and deviation over all utterances in the model.
    """
    seconds = np.array([utterance.seconds for utterance in utterances])
    order = np.argsort(seconds, kind="stable")
    size = max(1, int(_STATISTICS_BATCH_SECONDS / seconds.max()))
    accumulator = StatisticsAccumulator(model.front_end)
    rows = np.zeros((len(order), 1 + model.front_end.feature_size), np.float32)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        samples = [torch.from_numpy(_read_or_nothing(utterances[place], model.sample_rate)) for place in part]
        rows[part] = accumulator.add(*pad_sequences(samples)).numpy()
    if fits_statistics:
        model.front_end.set_statistics(*accumulator.compute())
    return rows


def _read_or_nothing(utterance: Utterance, sample_rate: int) -> np.ndarray:
    try:
        return read_utterance(utterance, sample_rate=sample_rate).samples
    except (AudioError, OSError):
        return np.zeros(0, np.float32)
