"""The release format of a model: one folder that holds all it takes to transcribe, and says where it comes from.

``config.json``        format version, front end, encoder, text, kind of tokens, provenance
``model.safetensors``  every trained number
``tokens.json``        the symbols it writes (and ``tokenizer.model`` for SentencePiece, ``lexicon.txt`` for phones)
``README.md``          the model card
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.overrides import TorchFunctionMode

import speechrnn
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import ConfigError, ModelError
from speechrnn.model_card import make_model_card
from speechrnn.text.normalize import TextConfig
from speechrnn.text.phone_tokens import LEXICON_FILE
from speechrnn.text.pieces import PIECES_FILE
from speechrnn.text.token_files import load_tokens
from speechrnn.text.tokens import TOKENS_FILE, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

LANGUAGE_FOLDER = "language"
CONFIDENCE_FILE = "confidence.json"
SPEAKERS_FOLDER = "speakers"
ADDITIONS = (LANGUAGE_FOLDER, CONFIDENCE_FILE, SPEAKERS_FOLDER)
"""What is found out about a model's weights later, and kept beside them."""

MODEL_FILES = frozenset({CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, TOKENS_FILE, PIECES_FILE, LEXICON_FILE, *ADDITIONS})
_TYPES: dict[str, type] = {
    "format_version": int,
    "speechrnn_version": str,
    "front_end": dict,
    "encoder": dict,
    "text": dict,
    "tokens": dict,
    "vocabulary_size": int,
    "num_parameters": int,
    "provenance": dict,
}
_ADDED = frozenset(
    {
        *("encoder.input_dropout", "encoder.locked_dropout", "encoder.recurrent_dropout", "encoder.output"),
        *("text.apostrophes", "text.numbers", "text.language", "text.replacements"),
    }
)
"""Settings that models of an earlier speechrnn do not have; each has a default that means what those models were."""

Config = TypeVar("Config", FrontEndConfig, EncoderConfig, TextConfig)


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder holds.

    Attributes:
        acoustic: Waveforms to log-probabilities.
        tokens: What its outputs stand for.
        text: How its training transcripts were normalised.
        provenance: Where it comes from; what JSON can hold. Keys that the model card shows: ``languages`` (list of
            tags such as "en"), ``corpora`` (list of ``{"corpus", "license", "source", "attribution"}``), ``training``
            (dict of whatever describes it) and ``results`` (as a recipe's ``results.json``:
            ``{"interval_method", "sets": {name: {"utterances", "words", "wer", "wer_low", "wer_high"}}}``).
    """

    acoustic: AcousticModel
    tokens: Tokens
    text: TextConfig
    provenance: dict[str, Any]


def save_model(folder: str | Path, model: ModelFolder, *, card: str | None = None) -> None:
    """Write a model folder; whoever looks sees the old one or the new one, never a half-written one.

    Args:
        folder: Where to; parents are made. A model folder that stands there is replaced once the new one is complete.
        model: What to write.
        card: Text of README.md; None: what :func:`speechrnn.model_card.make_model_card` makes of the provenance.

    Raises:
        ModelError: The tokens do not fit the model, the provenance is not JSON, something else than a model stands
            there, or the folder cannot be written.
    """
    with _replacing(Path(folder).resolve()) as new:
        _fill(new, model, card)


def _fill(new: Path, model: ModelFolder, card: str | None) -> None:
    config = _write_config(model)
    if card is None:
        card = make_model_card(
            model.provenance, num_parameters=model.acoustic.num_parameters, sample_rate=model.acoustic.sample_rate
        )
    # Cloned, because cuDNN keeps a layer's weights in one block of memory, and safetensors refuses shared memory.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.acoustic.state_dict().items()}
    (new / CONFIG_FILE).write_text(config, encoding="utf-8")
    # Not with save_file, which lets nobody but the user read the file.
    (new / WEIGHTS_FILE).write_bytes(save(weights, metadata={"format": "pt"}))
    model.tokens.save(new)
    (new / CARD_FILE).write_text(card, encoding="utf-8")


def load_model(folder: str | Path, *, device: str | torch.device = "cpu") -> ModelFolder:
    """Read a model folder; nothing in it is ever executed.

    Args:
        folder: What :func:`save_model` wrote.
        device: Where the weights go.

    Returns:
        The model, its weights bit for bit as they were saved, in evaluation mode.

    Raises:
        ModelError: The folder or one of its files is missing, damaged or of a newer format, or the files do not fit
            each other; the message names the file, and what was expected and arrived.
    """
    folder = Path(folder)
    _check_files(folder)
    config = _read_config(folder / CONFIG_FILE)
    text = _build_config(TextConfig, config["text"], section="text", path=folder / CONFIG_FILE)
    tokens = load_tokens(folder)
    _check_tokens(tokens, config, folder)
    acoustic = _build_acoustic(config, folder)
    _load_weights(acoustic, folder / WEIGHTS_FILE)
    return ModelFolder(acoustic.to(device).eval(), tokens, text, config["provenance"])


def add_results(folder: str | Path, results: dict[str, Any]) -> None:
    """Write error rates into a model folder's provenance, and its card anew with them; all else stays.

    Args:
        folder: A model folder.
        results: As ``provenance["results"]`` in :class:`ModelFolder`; replaces what is there.

    Raises:
        ModelError: The folder holds no usable model, or cannot be written.
    """
    folder = Path(folder).resolve()
    model = load_model(folder)
    with _replacing(folder) as new:
        _fill(new, dataclasses.replace(model, provenance={**model.provenance, "results": results}), None)
        for name in ADDITIONS:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, new / name)
            elif (folder / name).exists():
                shutil.copy2(folder / name, new / name)


def _write_config(model: ModelFolder) -> str:
    acoustic = model.acoustic
    if len(model.tokens) != acoustic.vocabulary_size:
        raise ModelError(
            f"cannot save the model: it has {acoustic.vocabulary_size} outputs and {len(model.tokens)} tokens; "
            "give the tokens it was trained with"
        )
    config = {
        "format_version": FORMAT_VERSION,
        "speechrnn_version": speechrnn.__version__,
        "front_end": dataclasses.asdict(acoustic.front_end.config),
        "encoder": dataclasses.asdict(acoustic.encoder.config),
        "text": dataclasses.asdict(model.text),
        "tokens": {"kind": model.tokens.kind},
        "vocabulary_size": len(model.tokens),
        "num_parameters": acoustic.num_parameters,
        "provenance": model.provenance,
    }
    try:
        return json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ModelError(f"cannot save the model: its provenance is not plain JSON ({error}); correct it") from error


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Give a new folder to fill, and put it in the place of ``folder`` once it is filled."""
    _check_replaceable(folder)
    new = old = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        new.mkdir()
        yield new
        if folder.exists():
            old = new.with_name(new.name + "-old")
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        if old is not None and old.exists() and not folder.exists():
            old.rename(folder)
        raise ModelError(f"{folder}: the model cannot be written ({error.strerror or error})") from error
    finally:
        for leftover in (new, old):
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ModelError(f"{folder}: a model is a folder, and a file stands there; choose another place")
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in MODEL_FILES)
    if foreign:
        raise ModelError(
            f"{folder}: saving would delete {foreign[0]}, which is no part of a model; choose a new or empty folder"
        )


def _check_files(folder: Path) -> None:
    if not folder.exists():
        raise ModelError(f"{folder}: there is no such model folder; check the path")
    if not folder.is_dir():
        raise ModelError(f"{folder}: a model is a folder, this is a file; give the folder that holds {CONFIG_FILE}")
    for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: no model folder, {name} is missing; give a complete one")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); restore the file") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelError(f"{path}: expected a format_version of 1 or more, got {version!r}; is this a speechrnn model?")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: made by a newer speechrnn, format {version}; this one reads up to {FORMAT_VERSION}: "
            "upgrade with pip install -U speechrnn"
        )
    _check_keys(config, frozenset(_TYPES), section="", path=path)
    _check_types(config, _TYPES, section="", path=path)
    return config


def _build_config(kind: type[Config], values: Any, *, section: str, path: Path) -> Config:
    """Make a configuration dataclass of a section of config.json; every key must be there, and no other.

    A setting that came after the format's first release is not in older files: there its default holds.
    """
    hints = get_type_hints(kind)
    added = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in fields(kind)
        if f"{section}.{field.name}" in _ADDED
    }
    values = {**added, **values}
    _check_keys(values, frozenset(hints), section=f"{section}.", path=path)
    _check_types(values, hints, section=f"{section}.", path=path)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from error


def _check_keys(values: dict[str, Any], expected: frozenset[str], *, section: str, path: Path) -> None:
    for name in sorted(expected - values.keys()):
        raise ModelError(f"{path}: {section}{name} is missing; restore the file")
    for name in sorted(values.keys() - expected):
        raise ModelError(f"{path}: unknown setting {section}{name}; restore the file, or upgrade speechrnn")


def _check_types(values: dict[str, Any], hints: dict[str, Any], *, section: str, path: Path) -> None:
    for name, hint in hints.items():
        if not _is_of(values[name], hint):
            wanted = getattr(hint, "__name__", None) or str(hint).replace("typing.", "")
            raise ModelError(f"{path}: {section}{name} is {values[name]!r}, expected {wanted}; restore the file")


def _is_of(value: Any, hint: Any) -> bool:
    """Tell whether a JSON value is of an annotated type: a plain one, a choice of literals, or a union."""
    if get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return any(_is_of(value, choice) for choice in get_args(hint))
    if get_origin(hint) is dict:
        name, content = get_args(hint)
        return type(value) is dict and all(_is_of(k, name) and _is_of(v, content) for k, v in value.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _check_tokens(tokens: Tokens, config: dict[str, Any], folder: Path) -> None:
    kind = config["tokens"].get("kind")
    if tokens.kind != kind:
        raise ModelError(f"{folder}: {CONFIG_FILE} says tokens of kind {kind}, {TOKENS_FILE} holds {tokens.kind}")
    if len(tokens) != config["vocabulary_size"]:
        raise ModelError(
            f"{folder}: {CONFIG_FILE} says {config['vocabulary_size']} tokens, {TOKENS_FILE} holds {len(tokens)}; "
            "restore both from the same model"
        )


class _WithoutWeights(TorchFunctionMode):
    """Modules made under this mode get parameters without memory: a file brings their values.

    Drawing values to overwrite them would take longer than all else in loading, orthogonal ones above all. Modules make
    their parameters with ``torch.empty``; what the front end computes is made otherwise and so is real.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _build_acoustic(config: dict[str, Any], folder: Path) -> AcousticModel:
    """Make the model that config.json describes; :func:`_load_weights` is to fill it."""
    path = folder / CONFIG_FILE
    front_end = _build_config(FrontEndConfig, config["front_end"], section="front_end", path=path)
    encoder = _build_config(EncoderConfig, config["encoder"], section="encoder", path=path)
    try:
        with _WithoutWeights():
            return AcousticModel(front_end, encoder, config["vocabulary_size"])
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from error


def _load_weights(acoustic: AcousticModel, path: Path) -> None:
    try:
        # Cloned, because safetensors maps the file into memory: whatever became of it later would become of the model.
        weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: the file is damaged ({error}); restore it") from error
    expected = acoustic.state_dict()
    for name in sorted(expected.keys() - weights.keys()):
        raise ModelError(f"{path}: tensor {name} is missing; restore the file, or {CONFIG_FILE}, from the same model")
    for name in sorted(weights.keys() - expected.keys()):
        raise ModelError(f"{path}: tensor {name} is none of this model's; restore the file, or {CONFIG_FILE}")
    for name, tensor in expected.items():
        wanted, arrived = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (tensor, weights[name]))
        if wanted != arrived:
            raise ModelError(f"{path}: tensor {name}: expected {wanted} by {CONFIG_FILE}, got {arrived}")
        if not math.isfinite(float(weights[name].sum())):  # much faster than to ask each number
            raise ModelError(f"{path}: tensor {name} holds values that are not finite; the training failed")
    acoustic.load_state_dict(weights, assign=True)
