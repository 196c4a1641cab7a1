"""What pyproject.toml declares is what the code imports, and docs/dependencies.md says what each is for."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORT_NAMES = {"pyyaml": "yaml", "flashlight-text": "flashlight", "myst-nb": "myst_nb"}
# Programs and plugins that are run, not imported.
TOOLS = {"pytest-timeout", "pytest-xdist", "ruff", "mypy", "sphinx", "furo"}
# Lightning imports it for its TensorBoardLogger, which training uses.
BY_LIGHTNING = {"tensorboard"}
# Its wheel holds weights; importing it would import torch.
READ_AS_DATA = {"silero_vad"}
# Peers that some benchmarks compare with; installed in environments of their own.
PEERS = {"speechbrain", "pyctcdecode", "kenlm", "pocketsphinx", "kaldi_native_fbank"}
CHOSEN_BY_THE_USER = {"torch", "torchaudio", "librosa", "soundfile", "lightning", "pytest"}


def read_names(requirements):
    return {re.match(r"[A-Za-z0-9_.-]+", each)[0].lower() for each in requirements}


CORE = read_names(PROJECT["dependencies"])
EXTRAS = {extra: read_names(each) for extra, each in PROJECT["optional-dependencies"].items()}


def name_import(distribution):
    return IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def find_imported(folder):
    """Top-level names of all imports under a folder, those in functions included, but not those of our own modules."""
    own = {path.stem for part in ("tests", "recipes", "docs") for path in (ROOT / part).rglob("*.py")} | {"speechrnn"}
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - {*sys.stdlib_module_names, "_typeshed"} - (own - to_imports(CORE.union(*EXTRAS.values())))


def to_imports(distributions):
    return {name_import(each) for each in distributions}


def test_package_imports_what_it_declares_and_nothing_else():
    extras = set().union(*(names for extra, names in EXTRAS.items() if extra not in ("dev", "docs")))
    imported = find_imported(ROOT / "speechrnn")
    assert sorted(to_imports(CORE - BY_LIGHTNING) - imported) == [], "declared and never imported"
    assert sorted(to_imports(extras) - imported - READ_AS_DATA) == [], "declared as an extra and never imported"
    assert sorted(imported - to_imports(CORE | extras)) == [], "imported and not declared"


def test_recipes_import_what_is_declared():
    imported = find_imported(ROOT / "recipes")
    optional = EXTRAS["quickstart"] | EXTRAS["pictures"]
    assert sorted(imported - to_imports(CORE | optional)) == []


def test_tests_import_what_is_declared():
    imported = find_imported(ROOT / "tests") | find_imported(ROOT / "recipes") | find_imported(ROOT / "speechrnn")
    declared = to_imports(CORE | EXTRAS["dev"] | EXTRAS["docs"])
    assert sorted(imported - declared - to_imports(EXTRAS["hub"] | EXTRAS["cluster"]) - PEERS) == [], (
        "imported and not declared"
    )
    assert sorted(to_imports(EXTRAS["dev"] - TOOLS) - imported - READ_AS_DATA) == [], "declared and never imported"


def test_each_dependency_is_declared_once():
    for extra, names in EXTRAS.items():
        assert not names & CORE, f"{extra}: {', '.join(sorted(names & CORE))} is required anyway"


def test_lightning_s_logger_is_used():
    assert "TensorBoardLogger" in "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "speechrnn" / "training").glob("*.py")
    )


def test_an_import_that_is_not_declared_is_found(tmp_path):
    (tmp_path / "module.py").write_text(
        "import os, soundfile\ndef f():\n    from pandas.core import x\n    import torch.nn as nn\n"
    )
    assert find_imported(tmp_path) == {"soundfile", "pandas", "torch"}


def test_libraries_that_the_user_chose_are_used():
    assert CHOSEN_BY_THE_USER - {"pytest"} <= CORE
    assert "pytest" in EXTRAS["dev"]


@pytest.mark.parametrize("name", sorted(CORE.union(*EXTRAS.values())))
def test_each_dependency_has_its_purpose_in_the_documentation(name):
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(rf"\| {re.escape(name)} \|", line, re.IGNORECASE)]
    assert len(rows) == 1
    assert len(rows[0].split("|")[2].strip()) > 8
