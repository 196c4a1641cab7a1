"""What the pages show holds: links lead somewhere, commands and settings exist, and examples run as they stand.

An example runs in a temporary folder in which the quickstart has run and which holds the files that examples name
(``make_reader_files``). Where an example cannot run, the comment ``<!-- not run: reason -->`` stands before it.
"""

import ast
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import textwrap
from functools import cache
from pathlib import Path
from typing import NamedTuple

import generated_pages
import numpy as np
import pytest
import soundfile
from example_shell import make_shell

from speechrnn.cli import main as cli
from speechrnn.training.config_file import build_parser, load_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OTHERS = [*ROOT.glob("*.md"), *ROOT.glob("recipes/**/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob(".github/**/*.md")]
GENERATED = {ROOT / "docs" / name: describe for name, describe in generated_pages.GENERATED.items()}
DOCS = sorted(path for path in ROOT.glob("docs/**/*.md") if path.parent.name in ("docs", "reference", "tutorials"))
DOCS = [path for path in DOCS if path not in GENERATED and path.name not in generated_pages.COPIED]
PAGES = sorted({*OTHERS, *DOCS})


class Example(NamedTuple):
    """A fenced block: where it is, its language, its text, why it is not run, what it prints."""

    place: str
    language: str
    text: str
    not_run: str | None
    output: str | None


_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$"
    r"(?:\n\n```\n(?P<output>.*?)^```$)?",
    flags=re.MULTILINE | re.DOTALL,
)


@cache
def read(page: Path) -> str:
    return GENERATED[page]() if page in GENERATED else page.read_text(encoding="utf-8")


def find_examples(text: str, name: str = "page") -> list[Example]:
    examples = []
    for found in _BLOCK.finditer(text):
        place = f"{name}:{text.count(chr(10), 0, found.start('indent')) + 1}"
        block = textwrap.dedent(found["text"])
        examples.append(Example(place, found["language"], block, found["reason"], found["output"]))
    return examples


def find_all(language: str) -> list[Example]:
    """The examples of all pages in a language."""
    examples = [example for page in PAGES for example in find_examples(read(page), name_page(page))]
    return [example for example in examples if example.language == language]


def name_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_examples_are_found_with_their_marks_and_outputs():
    text = "<!-- not run: a GPU -->\n```sh\nnvidia-smi\n```\n- item\n\n  ```python\n  print(1)\n  ```\n\n```\n1\n```\n"
    assert find_examples(text) == [
        ("page:2", "sh", "nvidia-smi\n", "a GPU", None),
        ("page:7", "python", "print(1)\n", None, "1\n"),
    ]


def find_anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_broken_links(page: Path, text: str) -> list[str]:
    broken = []
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", text)):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        is_there = path in GENERATED or path.exists()
        if not is_there or (anchor and path.suffix == ".md" and anchor not in find_anchors(read(path))):
            broken.append(target)
    return broken


def test_links_have_targets():
    assert not [f"{name_page(page)}: {link}" for page in PAGES for link in find_broken_links(page, read(page))]


def test_a_broken_link_is_found():
    text = "[1](README.md) [2](LICENCE) [3](README.md#nothing) [4](#nothing) [5](https://x)"
    text += "[6](docs/reference/commands.md) [7](docs/reference/commands.md#speechrnn-train)"
    assert find_broken_links(README, text) == ["LICENCE", "README.md#nothing", "#nothing"]


def test_files_that_the_text_names_exist():
    named = {
        (name_page(page), name)
        for page in PAGES
        for name in re.findall(r"`((?:speechrnn|tests|docs|recipes|\.github)/[\w./-]+\.\w+)`", read(page))
    }
    assert not [missing for missing in named if missing[0] != "CHANGELOG.md" and not (ROOT / missing[1]).exists()]


def test_names_in_contributors_pages_exist():
    folders = ("speechrnn", "recipes", "tests", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    words = {word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "conventions.md"):
        names = re.findall(r"`([A-Za-z]\w*(?:\.[A-Za-z_]\w*)*)`", read(page))
        lacking = {name for name in names if not words.issuperset(name.split(".")) and not (ROOT / name).exists()}
        assert not lacking, page


@cache
def read_settings() -> frozenset[str]:
    return frozenset(build_parser()._option_string_actions)


def find_slips(script: str) -> list[str]:
    """Commands and options of speechrnn in a shell script that do not exist."""
    slips = []
    for line in script.replace("\\\n", " ").splitlines():
        words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
        for start, word in enumerate(words):
            if word == "speechrnn" and (start == 0 or words[start - 1] != "install"):
                slips += check_command([word for word in words[start + 1 :] if word != ")"])
    return slips


def check_command(words: list[str]) -> list[str]:
    """What does not exist in the words of one command, up to an operator of the shell."""
    parsers = generated_pages.find_parsers()
    name = "speechrnn"
    while words and any(f"{parser} ".startswith(f"{name} {words[0]} ") for parser in parsers):
        name = f"{name} {words.pop(0)}"
    if name not in parsers:
        return [] if not words or words[0].isupper() or words[0] in ("--help", "--version") else words[:1]
    known = set(parsers[name]._option_string_actions)
    if getattr(cli._find_command(name.removeprefix("speechrnn ")), "TAKES_REST", False):
        known |= read_settings()
    slips = []
    for word in words:
        if word in ("&&", "||", "|", ";", ">", ">>"):
            break
        option = word.partition("=")[0]
        if re.match(r"--?[a-zA-Z]", option) and option not in known and not option.startswith("--prepare."):
            slips.append(f"{name} {option}")
    return slips


def test_errors_in_commands_are_found():
    assert not find_slips(
        "pip install speechrnn && speechrnn train --config a.yaml \\\n  --encoder.cell lstm -v | tail -n 1"
    )
    assert not find_slips("torchrun --nproc-per-node 2 $(which speechrnn) train --trainer.devices 2")
    assert find_slips("ls -l; speechrnn trian x") == ["trian"]
    assert find_slips("speechrnn train --encoder.cel lstm; speechrnn transcribe a -m b --encoder.cell gru") == [
        "speechrnn train --encoder.cel",
        "speechrnn transcribe --encoder.cell",
    ]
    assert find_slips("speechrnn corpus check a --tset b") == ["speechrnn corpus check --tset"]


def test_commands_in_the_text_exist():
    spans = [(page, span) for page in PAGES for span in re.findall(r"`(speechrnn [^`\n]+)`", read(page))]
    assert spans
    assert not [f"{name_page(page)}: {slip}" for page, span in spans for slip in find_slips(span)]


def test_shell_examples_parse_and_their_commands_exist():
    for example in find_all("sh"):
        parsed = subprocess.run(["bash", "-n"], input=example.text, text=True, capture_output=True, check=False)
        assert not parsed.stderr, f"{example.place}: {parsed.stderr}"
    assert not [f"{example.place}: {slip}" for example in find_all("sh") for slip in find_slips(example.text)]


def test_python_and_json_examples_parse():
    for example in find_all("python"):
        compile(example.text, example.place, "exec")
    for line in [line for example in find_all("json") for line in example.text.splitlines()]:
        json.loads(line)


def test_yaml_examples_are_configurations(tmp_path):
    for example in [example for example in find_all("yaml") if example.not_run is None]:
        path = tmp_path / example.place.replace("/", "-")
        path.write_text(example.text, encoding="utf-8")
        load_config(path)


def test_messages_in_troubleshooting_are_those_of_the_code():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "speechrnn").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    code = "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    page = find_examples(read(ROOT / "docs" / "troubleshooting.md"))
    messages = [example.text for example in page if example.language == "text" and "OSError" not in example.text]
    assert len(messages) > 5
    for message in messages:
        text = re.sub(r"^speechrnn: (?:error|warning): ", "", message.strip())
        parts = [part.strip(" .:") for part in re.split(r"…|\d+|\bloss\b", text)]
        assert not [part for part in parts if part and part not in re.sub(r"%\.?\d*[sdf]", "…", code)], message


def test_no_page_has_a_placeholder_for_a_number():
    waits = re.compile(r"\b[A-Z]+_(?:RESULT|TABLE|OUTPUT)\b|TODO|TBD")
    assert not [f"{name_page(page)}: {found}" for page in PAGES for found in waits.findall(read(page))]


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= 9_000


def test_python_examples_of_the_readme_are_short():
    examples = [example for example in find_examples(read(README)) if example.language == "python"]
    assert all(len(example.text.splitlines()) <= 10 for example in examples)


# Examples are run below.


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> dict[str, str]:
    return make_shell(tmp_path_factory.mktemp("bin"))


def run_example(example: Example, folder: Path, shell: dict[str, str], names: dict[str, object]) -> None:
    """Run an example in a folder; what it prints begins with the first line that the page shows."""
    if example.language == "sh":
        command = ["bash", "-euo", "pipefail", "-c", example.text]
        done = subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{example.place}: exit code {done.returncode}\n{done.stderr}"
        printed = done.stdout
    else:
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as written:
            exec(compile(example.text, example.place, "exec"), names)
        printed = written.getvalue()
    if example.output is not None:
        # Times and confidences move with the machine's rounding; the words do not.
        assert printed.splitlines()[:1] == example.output.splitlines()[:1], example.place


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, shell) -> Path:
    """A folder in which the README's first command has run, with the files that examples name."""
    pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")
    folder = tmp_path_factory.mktemp("reader")
    for name in ("recipes", "data"):
        (folder / name).symlink_to(ROOT / name)
    first = next(example for example in find_examples(read(README)) if example.language == "sh")
    assert "speechrnn recipe recipes/quickstart" in first.text
    run_example(first, folder, shell, {})
    make_reader_files(folder)
    return folder


def make_reader_files(folder: Path) -> None:
    """What a reader brings: recordings with texts, texts for a language model, a configuration, a model."""
    run = folder / "runs" / "quickstart"
    parts = {part: read_manifest(run / f"{part}.jsonl") for part in ("train", "valid", "test")}
    (folder / "MODEL").symlink_to("runs/quickstart/model")
    (folder / "mine.yaml").write_text(MINE, encoding="utf-8")
    for part, entries in parts.items():
        lines = [{**entry, "audio_filepath": f"runs/quickstart/{entry['audio_filepath']}"} for entry in entries[:30]]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    add_noise(folder / "valid.jsonl")
    for name, entries in {
        "mine": parts["train"][:24],
        "mine-valid": parts["valid"][:15],
        "mine-test": parts["test"][:15],
    }.items():
        (folder / name).mkdir()
        for number, entry in enumerate(entries):
            shutil.copy(run / entry["audio_filepath"], folder / name / f"{number:04}.wav")
            (folder / name / f"{number:04}.txt").write_text(entry["text"], encoding="utf-8")
    (folder / "books").mkdir()
    for name in ("transcripts.txt", "sentences.txt", "books/first.txt"):
        (folder / name).write_text("\n".join(entry["text"] for entry in parts["train"]), encoding="utf-8")
    samples, rate = soundfile.read(ROOT / "data" / "samples" / "command-3.flac")
    for name in ("talk.flac", "interview.mp3", "chapter.mp3", "clip.wav", "memo.wav", "anna-1.wav", "anna-2.wav"):
        soundfile.write(folder / name, samples, rate)
    (folder / "calls").mkdir()
    shutil.copy(folder / "clip.wav", folder / "calls")
    soundfile.write(folder / "meeting.flac", np.tile(samples, 30), rate)  # longer than a piece
    soundfile.write(folder / "call.wav", np.stack([samples, np.roll(samples, rate)], axis=1), rate)
    (folder / "chapter.txt").write_text("set a timer for seven minutes", encoding="utf-8")


def add_noise(manifest: Path) -> None:
    """Replace the recordings of a manifest by noisy copies, so that a language model helps."""
    entries, rng = read_manifest(manifest), np.random.default_rng(0)
    for number, entry in enumerate(entries):
        samples, rate = soundfile.read(manifest.parent / entry["audio_filepath"])
        entry["audio_filepath"] = f"noisy-{number}.wav"
        noise = rng.normal(scale=samples.std(), size=len(samples))
        soundfile.write(manifest.parent / entry["audio_filepath"], (samples + noise).clip(-1, 1), rate)
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def read_manifest(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


MINE = """
data: {train: train.jsonl, valid: valid.jsonl, batch_seconds: 10}
encoder: {hidden_size: 32, num_layers: 1, subsampling_factor: 4}
tokens: {kind: words}
trainer: {max_epochs: 2}
"""
"""A configuration that trains in seconds."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [README, *DOCS], ids=name_page)
def test_examples_run(page, quickstart, shell, tmp_path):
    examples = [each for each in find_examples(read(page), name_page(page)) if each.language in ("sh", "python")]
    examples = [each for each in examples if each.not_run is None][1 if page == README else 0 :]
    if not examples:
        pytest.skip("no example that runs")
    folder = shutil.copytree(quickstart, tmp_path / "reader", symlinks=True, copy_function=os.link)
    for model in ("mine", "seed-0", "seed-1"):  # models of the reader's own, unless the page trains one
        if f"--output runs/{model}" not in read(page):
            (folder / "runs" / model).symlink_to("quickstart")
    names: dict[str, object] = {}
    for example in examples:
        run_example(example, folder, shell, names)
