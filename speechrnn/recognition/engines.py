"""What computes encoder and output layer on a CPU instead of torch in float32.

============  ==========  =====================================================================
backend       precision   how
============  ==========  =====================================================================
torch         float32     the model itself; also what an engine does not do, and all on a GPU
torch         bfloat16    LSTM layers in bfloat16 through oneDNN; the rest in float32
onnx          float32     ONNX Runtime
onnx          int8        ONNX Runtime with 8-bit weights in LSTM layers; the rest in float32
============  ==========  =====================================================================

``auto`` is float32: ONNX Runtime for GRUs, which it computes up to twice as fast, else torch. A recogniser that was not
told otherwise transcribes a minute of audio with torch first, because ONNX Runtime takes longer to start than it saves
on a short recording; log-probabilities that it returns are always torch's.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import platform
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from speechrnn.acoustic.model import AcousticModel
from speechrnn.atomic_io import write_atomic
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.model_folder.content import ENGINES_FOLDER, ModelFolder
from speechrnn.model_folder.embedded import DIGESTS_FILE
from speechrnn.processes import torch_threads
from speechrnn.types import Emission

Backend = Literal["auto", "torch", "onnx"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]

_GRAPH_VERSION = 1  # part of a cached graph's name; raised when the same model gets another graph
_MOST_ROWS = 8  # of one run: ONNX Runtime's recurrent layers slow down with more, and torch's threads pay from there on

logger = logging.getLogger("speechrnn")


class Engine(ABC):
    """Features to log-probabilities on a CPU.

    Attributes:
        name: Backend and precision.
        returns_state: Whether it can return the final state.
    """

    name: str
    returns_state = False

    def emit(
        self,
        model: AcousticModel,
        waveforms: Tensor,
        lengths: Tensor,
        *,
        state: Tensor | None = None,
        speaker_stats: Tensor | None = None,
        return_state: bool = False,
    ) -> Emission:
        """What the model's own forward pass returns; the model does what the engine does not."""
        log_mels, frames = model.front_end.log_mel(waveforms, lengths)
        features = model.front_end.derive_features(log_mels, frames, speaker_stats=speaker_stats)
        if 0 in features.shape or (return_state and not self.returns_state):
            encoded, steps, final, _ = model.encoder(features, frames, state=state, return_state=return_state)
            return Emission(model.head(encoded), steps, final)
        return self.compute(features, frames, state, return_state=return_state)

    @abstractmethod
    def compute(
        self, features: Tensor, lengths: Tensor, state: Tensor | None, *, return_state: bool = False
    ) -> Emission:
        """Compute a batch.

        Args:
            features: (B, T, F), float32, zero past each length; B and T at least 1.
            lengths: Valid frames, (B,), int64.
            state: Initial state, (L, P, D, B, H), float32; None for the model's own.
            return_state: Also return the final state.
        """


class BFloat16Engine(Engine):
    """LSTM layers in bfloat16 through oneDNN; features, normalisation, output layer and what is kept in float32.

    Args:
        model: The model, which is not changed.
    """

    name = "torch bfloat16"

    def __init__(self, model: AcousticModel) -> None:
        self._head, self._encoder = model.head, copy.deepcopy(model.encoder)
        for layer in self._encoder.stack.layers:
            assert isinstance(layer.directions, nn.ModuleList)
            for number, direction in enumerate(layer.directions):
                layer.directions[number] = _BFloat16Layer(direction)

    def compute(
        self, features: Tensor, lengths: Tensor, state: Tensor | None, *, return_state: bool = False
    ) -> Emission:
        """As :meth:`Engine.compute`."""
        with torch_threads.one(features.device) if len(features) < _MOST_ROWS else nullcontext():
            frames, steps, _, _ = self._encoder(features, lengths, state=state)
        return Emission(self._head(frames), steps)


class _BFloat16Layer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.to(torch.bfloat16)

    def forward(self, inputs: Tensor, initial: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        output, state = self.layer(inputs.bfloat16(), tuple(part.bfloat16() for part in initial))
        return output.float(), state


class OnnxEngine(Engine):
    """ONNX Runtime, with utterances of similar length in groups of eight, spread over torch's number of threads.

    Args:
        model: The model; its graph is read from a cache or built (:func:`load_graph`).
        int8: Use 8-bit weights in LSTM layers.

    Raises:
        ConfigError: onnxruntime or onnx is not installed, or the model has no graph.
    """

    returns_state = True

    def __init__(self, model: ModelFolder, *, int8: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError("backend onnx: needs onnxruntime; pip install 'speechrnn[onnx]'") from error
        self.name = "onnx int8" if int8 else "onnx float32"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # groups are spread over threads instead
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            load_graph(model, int8=int8), options, providers=["CPUExecutionProvider"]
        )
        self._encoder = model.acoustic.encoder

    def compute(
        self, features: Tensor, lengths: Tensor, state: Tensor | None, *, return_state: bool = False
    ) -> Emission:
        """As :meth:`Engine.compute`."""
        if state is None:
            state = self._encoder.make_initial_state(None, None, like=features)
        threads = torch.get_num_threads()
        size = min(_MOST_ROWS, math.ceil(len(features) / threads))
        groups = lengths.argsort(descending=True, stable=True).split(size)
        outputs = ["log_probs", "frames", "final_state"][: 3 if return_state else 2]

        def run(group: Tensor) -> list[np.ndarray]:
            longest = max(1, int(lengths[group].max()))
            given = {"features": features[group, :longest], "lengths": lengths[group], "state": state[:, :, :, group]}
            found: list[np.ndarray] = self._session.run(
                outputs, {name: each.contiguous().numpy() for name, each in given.items()}
            )
            return found

        if len(groups) == 1 or threads == 1:
            return _join(groups, [run(group) for group in groups])
        with ThreadPoolExecutor(threads) as pool:
            return _join(groups, list(pool.map(run, groups)))


def _join(groups: tuple[Tensor, ...], found: list[list[np.ndarray]]) -> Emission:
    """The results of groups of a batch's rows, in the order of the batch."""
    parts = [[torch.from_numpy(each) for each in arrays] for arrays in found]
    order = torch.cat(groups).argsort()
    longest = max(each.shape[1] for each, *_ in parts)
    log_probs = torch.cat([nn.functional.pad(each, (0, 0, 0, longest - each.shape[1])) for each, *_ in parts])
    steps = torch.cat([each for _, each, *_ in parts])
    state = torch.cat([each for _, _, each in parts], dim=3)[:, :, :, order] if len(parts[0]) == 3 else None
    return Emission(log_probs[order], steps[order], state)


def choose_engine(
    model: ModelFolder, device: torch.device, *, backend: Backend = "auto", precision: Precision = "auto"
) -> Engine | None:
    """Prepare what computes the model; None for the model itself.

    Args:
        model: The model.
        device: Where it runs.
        backend: See the module.
        precision: See the module.

    Raises:
        ConfigError: There is no such backend or precision, they do not fit each other, the model or the processor, or
            a library is missing.
    """
    check_choice(model.acoustic, device, backend, precision)
    if precision == "bfloat16":
        return BFloat16Engine(model.acoustic)
    if backend == "onnx" or precision == "int8":
        return OnnxEngine(model, int8=precision == "int8")
    if backend == "torch" or device.type != "cpu" or model.acoustic.encoder.config.cell != "gru":
        return None
    try:
        return OnnxEngine(model)
    except ConfigError as error:
        logger.debug("computes with torch: %s", error)
        return None


def check_choice(model: AcousticModel, device: torch.device, backend: str, precision: str) -> None:
    """Check that a backend and a precision exist and fit each other, the model and the processor.

    Raises:
        ConfigError: They do not.
    """
    for name, value, known in (("backend", backend, Backend), ("precision", precision, Precision)):
        if value not in get_args(known):
            raise ConfigError(f"{name} {str(value)[:80]!r}: expected one of {', '.join(get_args(known))}")
    cell, asked = model.encoder.config.cell, f"precision {precision}"
    if device.type != "cpu" and (backend == "onnx" or precision in ("bfloat16", "int8")):
        raise ConfigError(f"{'backend onnx' if backend == 'onnx' else asked}: is for the CPU; use device cpu")
    wanted = {"bfloat16": "torch", "int8": "onnx"}.get(precision, backend)
    if backend not in ("auto", wanted):
        raise ConfigError(f"{asked}: needs backend {wanted}, got {backend}")
    if precision in ("bfloat16", "int8") and cell != "lstm":
        raise ConfigError(f"{asked}: is only for LSTMs, and this model has encoder.cell {cell}; use float32")
    if precision == "bfloat16" and not has_native_bfloat16(device):
        raise ConfigError(f"{asked}: this processor has no instructions for it (avx512_bf16, amx_bf16); use float32")
    if precision == "int8" and not has_native_int8():
        raise ConfigError(f"{asked}: this processor has no instructions for it (avx512_vnni, avx_vnni); use float32")


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for matrix products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_native_int8() -> bool:
    """Whether the processor has instructions for sums of 8-bit products; without them x86 saturates at 16 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(torch.cpu._is_vnni_supported() or known.get("avx_vnni"))


def load_graph(model: ModelFolder, *, int8: bool) -> bytes:
    """The graph of encoder and output layer, from a cache, or built and cached.

    The cache is the folder ``engines`` of the model folder or, if that cannot be written to, ``speechrnn/engines`` in
    the user's cache folder (``XDG_CACHE_HOME``). A file's name is a hash of the weights and the configuration; a file
    that is damaged is written again.

    Raises:
        ConfigError: onnx is not installed, or the model has no graph.
    """
    name = f"{_hash_encoder(model.acoustic)}-{'int8' if int8 else 'float32'}.onnx.sum"
    folders = [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speechrnn" / ENGINES_FOLDER]
    if model.path is not None and not (model.path / DIGESTS_FILE).exists():  # models of the package do not change
        folders.insert(0, model.path / ENGINES_FOLDER)
    for folder in folders:
        if (graph := _read_sealed(folder / name)) is not None:
            return graph
    try:
        from speechrnn.export.build import build_encoder_graph
    except ImportError as error:
        raise ConfigError("backend onnx: needs onnx; pip install 'speechrnn[onnx]'") from error
    graph = build_encoder_graph(model.acoustic, int8=int8)
    for folder in folders:
        try:
            write_atomic(folder / name, hashlib.sha256(graph).digest() + graph)
            break
        except SpeechRNNError as error:
            logger.debug("the graph is not cached: %s", error)
    return graph


def _read_sealed(path: Path) -> bytes | None:
    """What follows a hash of it in a file; None without the file, or if they do not agree."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


def _hash_encoder(model: AcousticModel) -> str:
    digest = hashlib.sha256(f"{_GRAPH_VERSION} {asdict(model.encoder.config)}".encode())
    for part in (model.encoder, model.head):
        for name, tensor in part.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()[:32]
