"""The import law between packages, checked by parsing the imports of every module."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile

import speechrnn
from speechrnn.model_folder import save_model

PACKAGE = Path(speechrnn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

_BASE = {"errors", "types", "atomic_io", "processes", "settings"}
_SOUND_AND_TEXT = _BASE | {"audio", "text"}
_MODEL = _SOUND_AND_TEXT | {"acoustic", "language", "decoding"}
_RELEASE = _MODEL | {"model_folder"}
_TRAINING = _RELEASE | {"corpus"}
_EVALUATION = _RELEASE | {"corpus", "recognition"}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"errors", "audio", "recognition", "training", "fine_tuning"},
    "__main__": {"cli"},
    "errors": set(),
    "types": {"errors"},
    "atomic_io": {"errors"},
    "settings": {"errors"},
    "processes": {"errors"},
    "text": _BASE,
    "audio": _BASE,
    "acoustic": _SOUND_AND_TEXT,
    "language": _SOUND_AND_TEXT | {"acoustic"},
    "decoding": _BASE | {"language"},
    "model_folder": _RELEASE,
    "recognition": _RELEASE | {"export"},
    "lite": (_RELEASE - {"acoustic"}) | {"recognition", "export"},
    "corpus": _SOUND_AND_TEXT,
    "export": _RELEASE,
    "web": _RELEASE | {"recognition", "export"},
    "inspection": _RELEASE | {"recognition"},
    "training": _TRAINING | {"inspection"},
    "evaluation": _EVALUATION,
    "cluster": _EVALUATION,
    "recipe": _TRAINING | _EVALUATION | {"training", "evaluation"},
    "fine_tuning": _TRAINING | _EVALUATION | {"training", "evaluation"},
    "benchmarking": _TRAINING | _EVALUATION | {"training"},
    "cli": _TRAINING
    | _EVALUATION
    | {"training", "evaluation", "recipe", "fine_tuning", "inspection", "benchmarking", "cluster"}
    | {"export", "lite", "web"},
}
MAY_IMPORT_LIBRARY = {"lightning": {"training"}, "lhotse": {"corpus"}, "onnx": {"export"}, "ray": {"cluster"}}
HEAVY = (
    "lightning",
    "lhotse",
    "librosa",
    "torchaudio",
    "jsonargparse",
    "rich",
    "jiwer",
    "sentencepiece",
    "scipy",
    "huggingface_hub",
    "torch._dynamo",
    "torch._inductor",
    "sympy",
    "matplotlib",
    "numba",
    "onnx",
)


class Import(NamedTuple):
    name: str
    line: int
    is_for_types: bool


def find_package(path: Path) -> str:
    """The part of the package that a module belongs to; a ``__main__`` of any folder is a command."""
    return "__main__" if path.stem == "__main__" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def find_imports(path: Path) -> list[Import]:
    """Every import of a module, those in functions included, as dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_blocks = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for_types = {inner for block in type_blocks for statement in block.body for inner in ast.walk(statement)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, node in for_types) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write it in full"
            found += [Import(f"{node.module}.{alias.name}", node.lineno, node in for_types) for alias in node.names]
    return found


def test_imports_are_found_anywhere_in_a_module(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\n"
        "if TYPE_CHECKING:\n"
        "    from lhotse import CutSet\n"
        "def f():\n"
        "    from speechrnn.cli import main, train\n"
    )
    assert sorted(find_imports(path)) == [
        ("lhotse.CutSet", 3, True),
        ("os.path", 1, False),
        ("speechrnn.cli.main", 5, False),
        ("speechrnn.cli.train", 5, False),
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_package_imports_only_what_the_import_rules_allow(path):
    package = find_package(path)
    assert package in MAY_IMPORT, f"{package}: a new package; add to this test what it may import"
    for name, line, _ in find_imports(path):
        parts = name.split(".")
        if parts[0] != "speechrnn" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert parts[1] in MAY_IMPORT[package] | {package}, f"{path}:{line}: {package} must not import {name}"


def test_only_what_reads_and_writes_its_formats_imports_lhotse():
    users = {path.stem for path in MODULES for name, _, _ in find_imports(path) if name.split(".")[0] == "lhotse"}
    assert users == {"lhotse", "pack", "writers"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_libraries_are_imported_by_their_packages_only(path):
    for name, line, is_for_types in find_imports(path):
        library = name.split(".")[0].replace("pytorch_lightning", "lightning")
        packages = MAY_IMPORT_LIBRARY.get(library)
        is_allowed = packages is None or find_package(path) in packages or is_for_types
        assert is_allowed, f"{path}:{line}: only {' and '.join(sorted(packages or ()))} may import {library}"
        assert library != "recipes", f"{path}:{line}: recipes import speechrnn, never the other way"


def test_no_two_modules_import_each_other():
    imports = {}
    for path in MODULES:
        names = {".".join(name.split(".")[:end]) for name, _, _ in find_imports(path) for end in (-1, None)}
        imports[name_module(path)] = names
    circles = {
        (one, other)
        for one, names in imports.items()
        for other in names & imports.keys()
        if one < other and one in imports[other]
    }
    assert circles <= {
        ("speechrnn.training.faults", "speechrnn.training.module"),
    }


def test_decoding_does_not_import_models():
    names = [name for path in (PACKAGE / "decoding").rglob("*.py") for name, _, _ in find_imports(path)]
    assert names
    assert not [name for name in names if "acoustic" in name or "model" in name or name.startswith("torch.nn")]


def run_python(script: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_library():
    run_python("import sys, speechrnn; assert not {'torch', 'numpy', 'soundfile'} & set(sys.modules)")


def test_recognition_without_a_torch_model_imports_no_torch():
    modules = "transcriber", "batches", "longform", "decoders", "transcript"
    names = ", ".join(f"speechrnn.recognition.{name}" for name in modules)
    others = "speechrnn.model_folder.content, speechrnn.decoding.greedy, speechrnn.audio.feature_config"
    run_python(f"import sys, {names}, {others}; assert not {{'torch', 'numba', 'onnxruntime'}} & set(sys.modules)")


def test_transcribing_imports_only_what_it_needs(make_tiny_model, make_recording, tmp_path):
    folders = []
    for cell in ("tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"):
        folders.append(tmp_path / cell)
        save_model(folders[-1], make_tiny_model(cell=cell, subsampling="convolution", initial_state="learned"))
    soundfile.write(tmp_path / "tones.wav", make_recording(0.5), 8000)
    script = (
        "import sys\n"
        "from speechrnn.cli.main import main\n"
        "for folder in sys.argv[2:]:\n"
        "    assert main(['transcribe', sys.argv[1], '-m', folder, '--device', 'cpu']) == 0\n"
        f"stray = [name for name in {(*HEAVY, 'soxr')!r} if name in sys.modules]\n"
        "assert not stray, stray\n"
    )
    run_python(script, str(tmp_path / "tones.wav"), *map(str, folders))


def test_compiled_code_calls_compiled_code_of_its_own_file():
    """numba keeps it on disk and does not see when another file's has changed; the hash table says what to do then."""
    compiled = {path for path in MODULES if "@njit(" in path.read_text(encoding="utf-8")}
    assert {path.name for path in compiled} >= {"kernels.py", "alignment.py", "hash_table.py"}
    modules = {name_module(path): path for path in compiled}
    for path in compiled:
        used = {name.rpartition(".")[0] for name, _, _ in find_imports(path)} & modules.keys()
        assert used <= {"speechrnn.language.hash_table"}, f"{path}: imports from {', '.join(sorted(used))}"
