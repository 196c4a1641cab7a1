import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Tests run side by side: threads of their own would only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import FrontEndConfig
from speechrnn.model_folder import ModelFolder, save_model
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import CharacterTokens, Tokens
from speechrnn.training.train import TrainingResult, train


def make_tiny_model(
    *, seed: int = 2, tokens: Tokens | None = None, normalization: str = "utterance", **encoder: object
) -> ModelFolder:
    """A model that was never trained; it writes gibberish, several words a second, and always the same."""
    tokens = tokens if tokens is not None else CharacterTokens.build(["the quick fox"])
    front_end = FrontEndConfig(sample_rate=8000, n_mels=20, num_coefficients=13, normalization=normalization)
    config = EncoderConfig(**{"hidden_size": 16, "num_layers": 2, "subsampling_factor": 2, **encoder})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        acoustic = AcousticModel(front_end, config, len(tokens)).eval()
        with torch.no_grad():
            # Without this an untrained model emits one token for ever.
            acoustic.head.projection.weight.normal_(0.0, 1.0)
    provenance = {
        "languages": ["en"],
        "corpora": [{"corpus": "Nothing", "license": "CC0", "source": "-", "attribution": "A generator | seeded"}],
    }
    return ModelFolder(acoustic, tokens, TextConfig(), provenance)


def make_recording(seconds: float, *, seed: int = 0, sample_rate: int = 8000) -> np.ndarray:
    """Tones that change ten times a second in a little noise, (N,), float32."""
    rng = np.random.default_rng(seed)
    num_samples = round(seconds * sample_rate)
    tone = rng.uniform(100, 3000, num_samples * 10 // sample_rate + 1).repeat(sample_rate // 10)[:num_samples]
    wave = 0.3 * np.sin(2 * np.pi * np.cumsum(tone) / sample_rate) + 0.01 * rng.standard_normal(num_samples)
    return wave.astype(np.float32)


def cut_at_random(samples: np.ndarray, sizes: Sequence[int], seed: int = 0) -> Iterator[np.ndarray]:
    """Pieces of random sizes from the given ones, which may be 0."""
    rng = np.random.default_rng(seed)
    at = 0
    while at < len(samples):
        size = int(rng.choice(sizes))
        yield samples[at : at + size]
        at += size


@pytest.fixture(name="make_tiny_model", scope="session")
def _make_tiny_model() -> Callable[..., ModelFolder]:
    return make_tiny_model


@pytest.fixture(name="make_recording", scope="session")
def _make_recording() -> Callable[..., np.ndarray]:
    return make_recording


@pytest.fixture(scope="session")
def tiny_model() -> ModelFolder:
    return make_tiny_model()


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder, tiny_model)
    return folder


TONES_HZ = {"low": 400.0, "middle": 900.0, "high": 2000.0}
TONE_SETTINGS = {
    "front_end.sample_rate": 8000,
    "front_end.n_mels": 20,
    "front_end.num_coefficients": 13,
    "tokens.kind": "words",
    "encoder.hidden_size": 24,
    "encoder.num_layers": 1,
    "encoder.dropout": 0.0,
    "optimizer.learning_rate": 0.02,
    "data.batch_seconds": 8.0,
    "data.num_workers": 0,
    "trainer.max_epochs": 12,
    "trainer.accelerator": "cpu",
}
"""A configuration that learns the tone language in a few seconds on one core."""


def say_tones(words: list[str], rng: np.random.Generator) -> np.ndarray:
    """Each word as a fifth of a second of its tone, a little off key, with pauses between; (N,), float32, 8 kHz."""
    time = np.arange(1600) / 8000
    pause = np.zeros(800)
    pieces = [pause]
    for word in words:
        pitch = TONES_HZ[word] * rng.uniform(0.95, 1.05)
        pieces += [0.3 * np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6)), pause]
    wave = np.concatenate(pieces)
    return (wave + 0.003 * rng.standard_normal(len(wave))).astype(np.float32)


def make_tone_corpus(path: Path, count: int, *, seed: int, speakers: int = 3) -> Path:
    """A manifest at ``path`` of utterances of one to three words, and their recordings beside it."""
    import soundfile

    rng = np.random.default_rng(seed)
    audio = path.parent / path.stem
    audio.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        words = rng.choice(list(TONES_HZ), size=rng.integers(1, 4)).tolist()
        wave = say_tones(words, rng)
        soundfile.write(audio / f"{path.stem}-{number}.wav", wave, 8000)
        entry = {
            "audio_filepath": f"{path.stem}/{path.stem}-{number}.wav",
            "duration": len(wave) / 8000,
            "text": " ".join(words).capitalize() + ".",
            "speaker": f"s{number % speakers}",
        }
        lines.append(json.dumps(entry))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class ToneRun:
    """A model that learned the tone language, and the corpus that it learned from."""

    folder: Path
    result: TrainingResult

    @property
    def model(self) -> Path:
        return self.result.model


def make_tone_configuration(folder: Path, *, train: int = 60, valid: int = 15) -> Path:
    """config.yaml, train.jsonl (60 utterances), valid.jsonl and test.jsonl (15 each) in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": train, "valid": valid, "test": valid}.items()):
        make_tone_corpus(folder / f"{name}.jsonl", count, seed=seed)
    config = folder / "config.yaml"
    config.write_text("data: {train: train.jsonl, valid: valid.jsonl, test: {test: test.jsonl}}\n", encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def tone_run(tmp_path_factory: pytest.TempPathFactory) -> ToneRun:
    """A small model trained once for all tests: it knows three tones by name."""
    folder = tmp_path_factory.mktemp("tones")
    config = make_tone_configuration(folder)
    result = train(config, {**TONE_SETTINGS, "output": str(folder / "run")})
    return ToneRun(folder, result)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many threads in this process as in those that it starts: sums in another order are other sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def tone_configuration(tmp_path: Path) -> Path:
    """A configuration file with a corpus of its own beside it, to train on or to spoil."""
    return make_tone_configuration(tmp_path / "tones")
