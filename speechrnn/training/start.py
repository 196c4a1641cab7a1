"""The start of fine-tuning: settings for a model and a corpus, the alphabet, initial weights, frozen layers."""

from __future__ import annotations

import dataclasses
import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from speechrnn.acoustic.ctc import CTCHead
from speechrnn.acoustic.model import AcousticModel
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError, CorpusError, name_some
from speechrnn.model_folder import ModelFolder
from speechrnn.settings import rename_settings
from speechrnn.text.normalize import TextConfig, normalize_text
from speechrnn.text.phone_tokens import LEXICON_FILE
from speechrnn.text.token_files import build_tokens
from speechrnn.text.tokens import CharacterTokens, Tokens, WordTokens
from speechrnn.training.config import Alphabet, Config, StartConfig
from speechrnn.types import BLANK_ID

logger = logging.getLogger("speechrnn")

_FEWEST_OF_A_WORD = 3

MAY_DIFFER = frozenset({"dropout", "input_dropout", "locked_dropout", "recurrent_dropout", "initial_state"})
"""Settings of the encoder that may differ from the model's: they change training alone, or start at zero."""


def check_start(base: ModelFolder, config: Config) -> None:
    """Compare a configuration with the model that training starts from.

    Raises:
        ConfigError: A setting that cannot change differs from the model's.
    """
    for section, own in (("front_end", base.acoustic.front_end.config), ("encoder", base.acoustic.encoder.config)):
        asked = getattr(config, section)
        for name, value in dataclasses.asdict(own).items():
            if getattr(asked, name) != value and not (section == "encoder" and name in MAY_DIFFER):
                raise ConfigError(
                    f"{section}.{name}: {getattr(asked, name)}, but start.model ({config.start.model}) has {value}; "
                    "leave it out"
                )
    if base.tokens.kind != config.tokens.kind and config.start.alphabet != "replace":
        raise ConfigError(
            f"tokens.kind: {config.tokens.kind}, but start.model has {base.tokens.kind}; leave it out, or train a new "
            "output layer with start.alphabet replace"
        )


def make_tokens(base: Tokens, config: Config, texts: Iterable[str]) -> Tokens:
    """Make the tokens of the fine-tuned model.

    Args:
        base: The original model's tokens.
        config: The run's configuration.
        texts: Normalised training transcripts.

    Raises:
        CorpusError: The texts share no symbol with the original model, whose symbols are kept.
        ConfigError: Tokens of this kind cannot be extended.
    """
    texts = list(texts)
    if config.start.alphabet == "replace":
        return build_tokens(config.tokens, texts, normalize=partial(normalize_text, config=config.text))
    known, unknown = count_symbols(base, texts)
    if not known:
        raise CorpusError(
            f"the training texts share no symbol with the model: it has {name_some(base.symbols[1:])}, they have "
            f"{name_some(unknown)}; train a new output layer with --alphabet replace, or write the texts as the model "
            "does (phones for a model of phones)"
        )
    if config.start.alphabet != "extend" or not unknown:
        return base
    if not isinstance(base, CharacterTokens | WordTokens):
        raise ConfigError(
            f"start.alphabet extend: {base.kind} tokens cannot be extended; make new ones from the texts with replace"
        )
    return type(base)([*base.symbols, *sorted(unknown)])


def count_symbols(tokens: Tokens, texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count symbols of texts that a model has, and those that it lacks (of SentencePiece tokens: characters)."""
    known, unknown = Counter[str](), Counter[str]()
    for text in texts:
        parts = text.split() if tokens.kind in ("words", "phones") else text.replace(" ", "")
        lacking = set(tokens.unknown(text))
        for part in parts:
            (unknown if part in lacking else known)[part] += 1
    return known, unknown


def propose_alphabet(tokens: Tokens, texts: Sequence[str], *, kind: str | None = None) -> tuple[Alphabet, str]:
    """Propose what to do about symbols that a model lacks, and why, in one line.

    Args:
        tokens: The model's tokens.
        texts: Normalised training transcripts.
        kind: Kind of the new tokens; None: the model's kind.
    """
    if kind not in (None, tokens.kind):
        return "replace", f"the model has {tokens.kind}, asked for: {kind}; a new output layer is trained"
    known, unknown = count_symbols(tokens, texts)
    if not unknown:
        return "keep", "the model has every symbol of these texts"
    share = sum(bool(tokens.unknown(text)) for text in texts) / len(texts)
    lacking = f"the model lacks {name_some((symbol for symbol, _ in unknown.most_common()), 12)}"
    if tokens.kind == "phones":
        return "keep", f"{lacking}, in {100 * share:.0f} % of the utterances: its lexicon lacks them"
    if not isinstance(tokens, CharacterTokens | WordTokens):
        return "replace", f"{lacking}, and SentencePiece tokens cannot be extended: new ones are made from these texts"
    if known.total() < unknown.total():
        return "replace", f"{lacking}, most of these texts' symbols: its symbols are replaced by theirs"
    return "extend", f"{lacking}, in {100 * share:.0f} % of the utterances: they are added to its symbols"


def start_from(base: ModelFolder, config: Config, tokens: Tokens) -> AcousticModel:
    """Make a model with the weights of another; rows of new symbols start near those of the most similar symbol.

    Random noise separates two new symbols that start near the same one.
    """
    model = AcousticModel(config.front_end, config.encoder, len(tokens), blank_bias=config.ctc.blank_bias)
    weights = {**model.state_dict(), **base.acoustic.state_dict()}  # a new initial state is zero
    if tokens.kind != base.tokens.kind:  # a new output layer
        weights |= {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    elif tokens.symbols != base.tokens.symbols:
        weights |= {f"head.{name}": value for name, value in _start_head(base, model.head, tokens).items()}
    known = model.state_dict()
    model.load_state_dict({name: value for name, value in weights.items() if name in known})
    return model


def _start_head(base: ModelFolder, head: CTCHead, tokens: Tokens) -> dict[str, Tensor]:
    old, new = base.acoustic.head.projection, head.projection
    row_of = {symbol: row for row, symbol in enumerate(base.tokens.symbols)}
    weight, bias = torch.empty_like(new.weight), torch.empty_like(new.bias)
    mean, deviation = old.weight[BLANK_ID + 1 :].mean(dim=0), float(old.weight.detach().std())
    begun = []
    with torch.no_grad():
        for row, symbol in enumerate(tokens.symbols):
            if symbol in row_of:
                weight[row], bias[row] = old.weight[row_of[symbol]], old.bias[row_of[symbol]]
                continue
            similar = find_similar(symbol, row_of)
            near = (old.weight[row_of[similar]], old.bias[row_of[similar]]) if similar else (mean, old.bias[1:].mean())
            weight[row] = near[0] + 0.1 * deviation * torch.randn_like(mean)
            bias[row] = near[1]
            begun.append(f"{symbol} near {similar}" if similar else symbol)
    if begun:
        logger.info("new symbols: %s", name_some(begun, 12))
    return {"projection.weight": weight, "projection.bias": bias}


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


def take_settings(base: ModelFolder, folder: Path, replacements: dict[str, str]) -> dict[str, Any]:
    """Settings of a model: front end, encoder, text and tokens, and those of its training."""
    earlier = rename_settings(base.provenance.get("configuration", {}))
    lexicon = str(folder / LEXICON_FILE) if base.tokens.kind == "phones" else None
    return {
        "front_end": dataclasses.asdict(base.acoustic.front_end.config),
        "encoder": dataclasses.asdict(base.acoustic.encoder.config),
        "text": dataclasses.asdict(
            dataclasses.replace(base.text, replacements={**base.text.replacements, **replacements})
        ),
        "tokens": {**earlier.get("tokens", {}), "kind": base.tokens.kind, "alphabet": None, "lexicon": lexicon},
        # Two masked copies of everything double the time, which buys more as epochs with so little data.
        "ctc": {**earlier.get("ctc", {}), "lexicon": None, "consistency": 0.0},
        "augment": earlier.get("augment", {}),
    }


def choose_settings(
    base: ModelFolder,
    utterances: Sequence[Utterance],
    *,
    text: TextConfig,
    alphabet: Alphabet | None,
    kind: str | None = None,
    epochs: int | None = None,
) -> dict[str, Any]:
    """Choose settings for a model and an amount of speech; log what happens to the alphabet.

    Args:
        base: The model.
        utterances: The training corpus.
        text: Normalisation of its texts.
        alphabet: What to do about symbols that the model lacks; None: what suits the texts.
        kind: Kind of the fine-tuned model's tokens, such as ``words``; None: the model's kind.
        epochs: Number of epochs; None (or anything but a positive number): what suits the recordings.

    Raises:
        ConfigError: ``map`` without a mapping, or a mapping without ``map``.
    """
    new = {old: text.replacements[old] for old in text.replacements if old not in base.text.replacements}
    if (alphabet == "map") != bool(new):
        raise ConfigError("--alphabet map and --map need each other: give a mapping, as in --map 'ä=ae ß=ss'")
    for old, written in new.items():
        logger.info("map: %s becomes %s", old, written)
    texts = [normalize_text(each.text, text) for each in utterances]
    proposed, why = propose_alphabet(base.tokens, texts, kind=kind)
    if alphabet is None and proposed != "keep" and kind in (None, base.tokens.kind):
        _refuse_rare_words(base.tokens, texts)
    chosen = alphabet or proposed
    logger.info("alphabet: %s (%s)", chosen, why if proposed == chosen else f"asked for; proposed: {proposed}, {why}")
    is_new = chosen in ("extend", "replace") and proposed != "keep"
    training = _choose_training(count_hours(utterances), epochs, new=chosen if is_new else None)
    return {"start.alphabet": chosen, **training}


def _refuse_rare_words(tokens: Tokens, texts: Sequence[str]) -> None:
    """Refuse to add words to a model of words if most of them are too rare to learn, as in sentences."""
    if not isinstance(tokens, WordTokens):
        return
    _, unknown = count_symbols(tokens, texts)
    rare = sum(count < _FEWEST_OF_A_WORD for count in unknown.values())
    if 2 * rare > len(unknown):
        raise ConfigError(
            f"the model has whole words and lacks {len(unknown)} words of these texts, {rare} of which occur less than "
            f"{_FEWEST_OF_A_WORD} times; train a new output layer of letters with --tokens.kind characters, or add "
            "whole words with --alphabet replace or extend"
        )


def count_hours(utterances: Sequence[Utterance]) -> float:
    """Duration of a corpus, in hours."""
    return sum(each.seconds for each in utterances) / 3600


def _choose_training(hours: float, epochs: int | None, *, new: Alphabet | None) -> dict[str, Any]:
    """Epochs, learning rate and batches for an amount of speech; ``new``: how symbols are added, if any are."""
    if not isinstance(epochs, int) or epochs < 1:
        epochs = min(200, max(10, round(30.0 / max(hours, 1e-3))))
    return {
        "data.batch_seconds": round(min(32.0, max(4.0, 360.0 * hours)), 1),
        "trainer.max_epochs": epochs,
        "trainer.gradient_clip_val": 5.0,
        # At 5e-4 another language learned no faster than from random weights (recipes/german/RESULTS.md).
        "optimizer.learning_rate": 5e-4 if new is None else 3e-3,
        "optimizer.warmup_share": 0.1,
        # Twice the epochs gave a fifth fewer errors (recipes/fsdd/RESULTS.md).
        "checkpoints.best": max(3, round(0.15 * epochs)),
        "checkpoints.average": True,
        "checkpoints.shift_blank": True,
        # Letters that start near similar ones gain nothing from an epoch of the output layer alone in a short training
        # (recipes/german/RESULTS.md); a new output layer gets it.
        "start.head_epochs": 0 if new is None else max(int(new == "replace"), epochs // 20),
        "start.layer_decay": 0.9 if new is None else 1.0,
    }


def describe_plan(config: Config) -> str:
    """What is trained, for how long and at what rate, in one line."""
    start = config.start
    several = f"the output layer and {start.layers} layers below it"
    parts = [f"training {({None: 'all layers', 0: 'only the output layer'}).get(start.layers, several)}"]
    if start.head_epochs and start.layers != 0:
        first = "first epoch" if start.head_epochs == 1 else f"first {start.head_epochs} epochs"
        parts.append(f"the output layer alone in the {first}")
    if start.unfreeze_every:
        parts.append(f"one more layer every {start.unfreeze_every} epochs")
    if start.layer_decay < 1.0:
        parts.append(f"learning rate times {start.layer_decay:g} from each layer to the one below it")
    if start.replay:
        parts.append(f"{100 * start.replay_share:.0f} % of the training data is replayed")
    seconds = config.data.batch_seconds
    budget = seconds if seconds == "auto" else f"{seconds:g} s"
    return (
        f"{config.trainer['max_epochs']} epochs in batches of {budget}, learning rate "
        f"{config.optimizer.learning_rate:g}; {', '.join(parts)}"
    )


class UnfreezeSchedule:
    """Which parameters are trained in an epoch, and the factors of their learning rates.

    Args:
        model: The model in training.
        config: Layers, epochs and decay.
    """

    def __init__(self, model: AcousticModel, config: StartConfig) -> None:
        self.config = config
        self.num_layers = model.encoder.config.resolved_num_layers
        self.depths = {name: self._find_depth(name) for name, _ in model.named_parameters()}
        deepest = self.num_layers + 1 if config.layers is None else config.layers
        self.deepest = min(deepest, self.num_layers + 1)

    def _find_depth(self, name: str) -> int:
        """0: the output layer, 1: the top recurrent layer, …, num_layers + 1: the subsampling."""
        parts = name.split(".")
        if parts[0] == "head":
            return 0
        if parts[1] == "subsampling":
            return self.num_layers + 1
        if parts[1] == "stack" and parts[2] in ("layers", "norms"):
            return self.num_layers - int(parts[3])
        return 1  # the initial state and the look-ahead: with the top layer

    def factor(self, name: str) -> float:
        """Factor of a parameter's learning rate."""
        return self.config.layer_decay ** self.depths[name]

    def trains(self, name: str, epoch: int) -> bool:
        """Whether a parameter is trained in an epoch, counted from 0."""
        config = self.config
        if epoch < config.head_epochs:
            return self.depths[name] == 0
        reached = self.deepest
        if config.unfreeze_every:
            reached = min(reached, 1 + (epoch - config.head_epochs) // config.unfreeze_every)
        return self.depths[name] <= reached

    def apply(self, parameters: Iterable[tuple[str, Parameter]], epoch: int) -> None:
        """Compute gradients for the epoch's parameters only."""
        for name, parameter in parameters:
            parameter.requires_grad_(self.trains(name, epoch))
