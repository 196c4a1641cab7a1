"""The recipes' ``prepare.py``, short recordings for them, and the manifests that they write."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.utterance import Utterance

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"
PARTS = ("train", "valid", "test")
TONE = (0.1 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)).astype(np.float32)


def load(recipe: str, script: str = "prepare") -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{recipe}_{script}", RECIPES / recipe / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def put_tone(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, TONE, 8000, subtype="PCM_16")


def read_parts(output: Path) -> dict[str, list[Utterance]]:
    return {part: read_manifest(output / f"{part}.jsonl") for part in PARTS}
