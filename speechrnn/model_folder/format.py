"""Saving and loading model folders."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import speechrnn
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel, WithoutWeights
from speechrnn.atomic_io import read_json, write_atomic
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import ConfigError, ModelError
from speechrnn.model_folder.additions import (
    CONFIDENCE_FILE,
    CONTEXT_FILE,
    LANGUAGE_FOLDER,
    LANGUAGE_MODEL_FILE,
    WEIGHTS_FILE,
    Calibration,
    Context,
    TunedWeights,
    read_named,
    write_named,
)
from speechrnn.model_folder.card import make_model_card
from speechrnn.model_folder.content import ENGINES_FOLDER, ModelFolder
from speechrnn.model_folder.replacing import recover, replacing
from speechrnn.model_folder.speakers import SPEAKER_ENDING, SPEAKERS_FOLDER
from speechrnn.settings import Settings, build, check_format_version, is_of, shorten
from speechrnn.text.normalize import TextConfig
from speechrnn.text.phone_tokens import LEXICON_FILE
from speechrnn.text.sentencepiece_tokens import SENTENCEPIECE_FILE
from speechrnn.text.token_files import load_tokens
from speechrnn.text.tokens import TOKENS_FILE

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
TENSORS_FILE = "model.safetensors"
CARD_FILE = "README.md"

_TOKEN_FILES = {TOKENS_FILE, SENTENCEPIECE_FILE, LEXICON_FILE}
_FILES = frozenset({CONFIG_FILE, TENSORS_FILE, CARD_FILE, CONFIDENCE_FILE, CONTEXT_FILE, *_TOKEN_FILES})
_FOLDERS = frozenset({LANGUAGE_FOLDER, SPEAKERS_FOLDER})
_SHOWN = {
    "languages": (tuple[str, ...] | None, 'a list of tags such as "en"'),
    "corpora": (tuple[dict[str, Any], ...] | None, "a list of mappings"),
    "training": (dict[str, Any] | None, "a mapping"),
    "results": (dict[str, Any] | None, "a mapping"),
}
"""Keys of the provenance that the model card shows, their types, and the types in words."""

_ADDED = {
    "encoder": ("input_dropout", "locked_dropout", "recurrent_dropout", "output"),
    "text": ("apostrophes", "numbers", "language", "replacements"),
}
"""Settings that earlier versions did not write; their defaults describe such models."""


@dataclass(frozen=True)
class _Config(Settings):
    """Keys of config.json."""

    format_version: int
    speechrnn_version: str
    front_end: dict[str, Any]
    encoder: dict[str, Any]
    text: dict[str, Any]
    tokens: dict[str, Any]
    vocabulary_size: int
    num_parameters: int
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (hint, wanted) in _SHOWN.items():
            if not is_of(self.provenance.get(name), hint):
                raise ConfigError(f"provenance.{name}: expected {wanted}, got {shorten(self.provenance.get(name))}")


def find_folder(name_or_path: str | os.PathLike[str], *, to_change: bool = False) -> Path:
    """Find a model's folder; a model of the Hugging Face Hub is downloaded.

    Args:
        name_or_path: A path, the name of a model that comes with the package, or ``owner/name`` of a model on the Hub.
            An existing path goes before a name.
        to_change: Whether something will be stored in it; models of the package do not change.

    Returns:
        The folder, not yet checked, but for a model of the package; for the folder of a run, the model in it. A killed
        save is undone.

    Raises:
        ModelError: There is no such folder, no such name, and no such model on the Hub; or a model of the package is
            damaged, or to be changed.
    """
    path = Path(name_or_path).expanduser()
    try:
        if not path.exists():
            recover(path.resolve())
        if path.exists():
            is_run = not (path / CONFIG_FILE).exists() and (path / "model" / CONFIG_FILE).exists()
            return path / "model" if is_run else path
    except (OSError, ValueError) as error:  # a name that is too long or holds a null byte, a folder without permission
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{str(path)[:200]!r}: cannot be opened ({reason}); check the path") from error
    from speechrnn.model_folder.embedded import find_embedded
    from speechrnn.model_folder.hub import download

    name = os.fspath(name_or_path)
    return find_embedded(name, to_change=to_change) or download(name, [*_FILES, *(f"{each}/*" for each in _FOLDERS)])


def save_model(folder: str | Path, model: ModelFolder, *, card: str | None = None, half: bool = False) -> None:
    """Write a model folder; at every instant the old or the new one is there, complete.

    Args:
        folder: Where to; parents are created. An existing model folder is replaced once the new one is complete.
        model: What to write.
        card: Text of README.md; None: :func:`speechrnn.model_folder.card.make_model_card` of the provenance.
        half: Round the weights to float16, which halves the file; the loaded model computes in float32 as before.

    Raises:
        ModelError: The tokens do not fit the model, the provenance is not JSON, ``folder`` holds something else than a
            model, a weight is too large for float16, or it cannot be written.
    """
    folder = Path(folder).resolve()
    try:
        _check_replaceable(folder)
        with replacing(folder) as new:
            _fill(new, model, card, half)
    except OSError as error:
        raise ModelError(f"{folder}: the model cannot be written ({error.strerror or error})") from error


def _fill(new: Path, model: ModelFolder, card: str | None, half: bool) -> None:
    (new / CONFIG_FILE).write_text(_make_config(model), encoding="utf-8")
    # Cloned: cuDNN keeps a layer's weights in one block of memory, and safetensors refuses shared memory.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.acoustic.state_dict().items()}
    for name, tensor in weights.items() if half else ():
        weights[name] = tensor.half()
        if not weights[name].isfinite().all():
            raise ModelError(f"cannot save the model: tensor {name} has values beyond float16; save it in float32")
    # Not save_file, which makes the file readable for its owner alone.
    (new / TENSORS_FILE).write_bytes(save(weights, metadata={"format": "pt"}))
    model.tokens.save(new)
    (new / CARD_FILE).write_text(_make_card(model) if card is None else card, encoding="utf-8")
    if model.calibrations:
        write_named(new / CONFIDENCE_FILE, model.calibrations)
    if model.language_model is not None:
        write_atomic(new / LANGUAGE_MODEL_FILE, model.language_model.read_bytes())
    if model.tuned:
        write_named(new / WEIGHTS_FILE, model.tuned)
    if model.context is not None:
        write_named(new / CONTEXT_FILE, {"windows": model.context})
    for path in model.speakers.values():
        write_atomic(new / SPEAKERS_FOLDER / path.name, path.read_bytes())


def add_results(folder: str | Path, results: dict[str, Any]) -> None:
    """Write error rates into a model folder's provenance and its card; the rest stays as it is.

    Args:
        folder: A model folder.
        results: As ``provenance["results"]`` in :class:`ModelFolder`; replaces the old ones.

    Raises:
        ModelError: The folder holds no usable model, or cannot be written.
    """
    model = load_model(folder)
    model = dataclasses.replace(model, provenance={**model.provenance, "results": results})
    folder = find_folder(folder)
    write_atomic(folder / CONFIG_FILE, _make_config(model), error=ModelError)
    write_atomic(folder / CARD_FILE, _make_card(model), error=ModelError)


def _make_card(model: ModelFolder) -> str:
    acoustic = model.acoustic
    return make_model_card(model.provenance, num_parameters=acoustic.num_parameters, sample_rate=acoustic.sample_rate)


def _make_config(model: ModelFolder) -> str:
    acoustic = model.acoustic
    if len(model.tokens) != acoustic.vocabulary_size:
        raise ModelError(
            f"cannot save the model: it has {acoustic.vocabulary_size} outputs and {len(model.tokens)} tokens; "
            "give the tokens it was trained with"
        )
    try:
        config = _Config(
            FORMAT_VERSION,
            speechrnn.__version__,
            dataclasses.asdict(acoustic.front_end.config),
            dataclasses.asdict(acoustic.encoder.config),
            dataclasses.asdict(model.text),
            {"kind": model.tokens.kind},
            len(model.tokens),
            acoustic.num_parameters,
            model.provenance,
        )
        return json.dumps(vars(config), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ConfigError as error:
        raise ModelError(f"cannot save the model: {error}; correct it") from error
    except (TypeError, ValueError) as error:
        raise ModelError(f"cannot save the model: its provenance is not plain JSON ({error}); correct it") from error


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ModelError(f"{folder}: a model is a folder, and this is a file; choose another place")
    names = sorted(entry.name for entry in folder.iterdir())
    # A killed write_atomic leaves .NAME.PID.part.
    foreign = [
        name for name in names if name not in _FILES | _FOLDERS | {ENGINES_FOLDER} and not name.endswith(".part")
    ]
    if foreign:
        raise ModelError(
            f"{folder}: saving would delete {foreign[0]}, which is no part of a model; choose a new or empty folder"
        )


def add_calibration(folder: Path, decoder: str, calibration: Calibration) -> None:
    """Store a calibration in a model folder, replacing one for the same decoder."""
    path = folder / CONFIDENCE_FILE
    write_named(path, {**read_named(path, Calibration), decoder: calibration})


def add_weights(folder: Path, digest: str, weights: TunedWeights) -> None:
    """Store tuned weights in a model folder, replacing those for the same language model."""
    path = folder / WEIGHTS_FILE
    write_named(path, {**read_named(path, TunedWeights), digest: weights})


def add_context(folder: Path, context: Context) -> None:
    """Store the context of windows in a model folder, replacing an earlier one."""
    write_named(folder / CONTEXT_FILE, {"windows": context})


def load_model(name_or_path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> ModelFolder:
    """Read a model folder; nothing in it is ever executed.

    Args:
        name_or_path: A folder that :func:`save_model` wrote, the name of a model of the package, or a model of the
            Hugging Face Hub as ``owner/name``.
        device: Where the weights go.

    Returns:
        The model, its weights bit for bit as they were saved (float16 as float32), in evaluation mode, with what is
        stored beside them. If another process replaces the folder during the call, the new model.

    Raises:
        ModelError: The folder or one of its files is missing, damaged or of a newer format, or the files do not fit
            each other; the message names the file, and what was expected and found.
    """
    folder = find_folder(name_or_path)
    failure: ModelError | None = None
    before = folder.stat()
    try:
        model = _read_folder(folder, os.fspath(name_or_path), device)
    except ModelError as error:
        failure = error
    if not folder.exists() or [before.st_ino, before.st_mtime_ns] != [(now := folder.stat()).st_ino, now.st_mtime_ns]:
        return load_model(name_or_path, device=device)  # a save has replaced the folder meanwhile
    if failure is not None:
        raise failure
    return model


def _read_folder(folder: Path, name: str, device: str | torch.device) -> ModelFolder:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise ModelError(f"{folder}: a model is a folder, this is a file; give the folder that holds {CONFIG_FILE}")
    for file in (CONFIG_FILE, TENSORS_FILE, TOKENS_FILE):
        if not (folder / file).is_file():
            raise ModelError(f"{folder}: no model folder, {file} is missing; give a complete one")
    values = read_json(path, error=ModelError)
    version = values.get("format_version") if isinstance(values, dict) else None
    check_format_version(version, FORMAT_VERSION, where=path)
    config = build(_Config, values, path=path)
    front_end = build(FrontEndConfig, config.front_end, path=path, section="front_end")
    encoder = build(EncoderConfig, config.encoder, path=path, section="encoder", optional=_ADDED["encoder"])
    text = build(TextConfig, config.text, path=path, section="text", optional=_ADDED["text"])
    tokens = load_tokens(folder)
    expected, found = (config.tokens.get("kind"), config.vocabulary_size), (tokens.kind, len(tokens))
    if found != expected:
        raise ModelError(
            f"{folder}: {CONFIG_FILE} says {expected[1]} tokens of kind {expected[0]}, {TOKENS_FILE} holds {found[1]} "
            f"of kind {found[0]}; restore both from the same model"
        )
    try:
        # Cloned: safetensors maps the file into memory, so later changes of the file would change the model.
        stored, kinds = load_file(folder / TENSORS_FILE), {torch.float16: torch.float32}
        weights = {key: tensor.to(kinds.get(tensor.dtype, tensor.dtype), copy=True) for key, tensor in stored.items()}
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder / TENSORS_FILE}: the file is damaged ({error}); restore it") from error
    return ModelFolder(
        _make_acoustic(folder, front_end, encoder, len(tokens), weights).to(device).eval(),
        tokens,
        text,
        config.provenance,
        name=name,
        path=folder,
        language_model=path if (path := folder / LANGUAGE_MODEL_FILE).is_file() else None,
        tuned=read_named(folder / WEIGHTS_FILE, TunedWeights),
        calibrations=read_named(folder / CONFIDENCE_FILE, Calibration),
        speakers={path.stem: path for path in sorted((folder / SPEAKERS_FOLDER).glob(f"*{SPEAKER_ENDING}"))},
        context=read_named(folder / CONTEXT_FILE, Context).get("windows"),
    )


def _make_acoustic(
    folder: Path, front_end: FrontEndConfig, encoder: EncoderConfig, num_tokens: int, weights: dict[str, torch.Tensor]
) -> AcousticModel:
    """Build the acoustic model around weights, if they fit its configuration."""
    # Layers that the file cannot hold are refused before they are built: each has a tensor and a number for each unit.
    layers, units = encoder.resolved_num_layers, encoder.resolved_hidden_size
    largest = max((tensor.numel() for tensor in weights.values()), default=0)
    if layers > len(weights) or max(units, encoder.lookahead_frames) > largest:
        raise ModelError(
            f"{folder}: {CONFIG_FILE} says {layers} layers of {units} units, {TENSORS_FILE} holds {len(weights)} "
            f"tensors of at most {largest:,} numbers; restore both from the same model"
        )
    try:
        with WithoutWeights():
            acoustic = AcousticModel(front_end, encoder, num_tokens)
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error}") from error
    path, expected = folder / TENSORS_FILE, acoustic.state_dict()
    for name in sorted(expected.keys() - weights.keys()):
        raise ModelError(f"{path}: tensor {name} is missing; restore the file, or {CONFIG_FILE}, from the same model")
    for name in sorted(weights.keys() - expected.keys()):
        raise ModelError(f"{path}: tensor {name} is not in this model; restore the file, or {CONFIG_FILE}")
    for name, tensor in expected.items():
        wanted, found = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (tensor, weights[name]))
        if wanted != found:
            raise ModelError(f"{path}: tensor {name}: expected {wanted} by {CONFIG_FILE}, got {found}")
        if not math.isfinite(float(weights[name].sum())):  # much faster than checking each number
            raise ModelError(f"{path}: tensor {name} holds values that are not finite; the training failed")
    acoustic.load_state_dict(weights, assign=True)
    return acoustic
