"""``speechrnn corpus``: what a corpus holds and what is wrong with it; the same corpus in another format."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn.atomic_io import write_atomic, write_json_lines
from speechrnn.cli.arguments import add_format_argument, show_progress
from speechrnn.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from speechrnn.corpus.survey import ModelView, Survey

SUMMARY = "check a corpus before anything is trained on it, write it in another format, or pack it"
EXAMPLE = "speechrnn corpus check mine/train -m runs/en/model --test mine/test"

HAS_ACTIONS = True

_SHOWN = 5
_CLEAN, _LEFT_OUT = "clean.jsonl", "left_out.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|convert|pack")
    check = actions.add_parser("check", help="one pass over all audio and texts; nothing is changed")
    check.add_argument("corpus", metavar="PATH", help="a corpus in any known format")
    add_format_argument(check)
    check.add_argument(
        "-m",
        "--model",
        dest="of_model",
        metavar="M",
        help="a model: what it does not know or cannot align is told too (default: the variable SPEECHRNN_MODEL)",
    )
    check.add_argument("--config", metavar="FILE", help="a configuration instead of a model: what it would make of it")
    check.add_argument("--test", metavar="PATH", help="a test corpus: what both have in common is told")
    check.add_argument("--json", action="store_true", help="print everything as JSON")
    check.add_argument("--plot", metavar="FILE", help="draw durations and speaking rates (PNG; needs matplotlib)")
    check.add_argument(
        "--write-clean", metavar="DST", help="write DST/clean.jsonl, and DST/left_out.jsonl with the reasons"
    )
    convert = actions.add_parser(
        "convert", help="write the corpus as NeMo manifest, table, Kaldi folder, lhotse's cuts"
    )
    convert.add_argument("corpus", metavar="SRC", help="a corpus in any known format")
    convert.add_argument(
        "destination",
        metavar="DST",
        help="NAME.jsonl (NeMo), NAME.csv or .tsv, NAME.jsonl.gz (lhotse) or a folder (Kaldi)",
    )
    add_format_argument(convert)
    convert.add_argument("--to", metavar="NAME", help="nemo, table, kaldi or lhotse (default: by DST's name)")
    pack = actions.add_parser(
        "pack", help="write the corpus as shards (lhotse's Shar), for disks that dislike many small files"
    )
    pack.add_argument("corpus", metavar="SRC", help="a corpus in any known format")
    pack.add_argument("destination", metavar="DST", help="a folder that is not there yet")
    add_format_argument(pack)
    pack.add_argument("--encoding", default="flac", metavar="E", help="flac, wav or opus (default: flac)")
    pack.add_argument("--shard-size", type=int, default=1000, metavar="N", help="utterances a shard (default: 1000)")
    pack.add_argument("--sample-rate", type=int, metavar="HZ", help="resample to this (default: as recorded)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Check, convert or pack."""
    return {"check": _check, "convert": _convert, "pack": _pack}[args.action](args)


def _convert(args: argparse.Namespace) -> int:
    from speechrnn.audio.archives import find_archive
    from speechrnn.corpus.readers import read_corpus
    from speechrnn.corpus.writers import WRITERS, find_writer

    destination = Path(args.destination)
    name = find_writer(destination, args.to)
    if destination.exists() and (destination.is_dir() if name != "kaldi" else any(destination.iterdir())):
        raise ConfigError(f"{destination}: is there already; choose a new name")
    utterances = read_corpus(args.corpus, args.format)
    if any(find_archive(each.audio_path) for each in utterances):
        raise ConfigError(
            f"{args.corpus}: its recordings lie in archives, where other programs do not find them; convert the corpus "
            "that it was packed from"
        )
    WRITERS[name](destination, utterances)
    print(f"{destination}: {len(utterances):,} utterances as {name}")
    return 0


def _pack(args: argparse.Namespace) -> int:
    from speechrnn.corpus.pack import pack_corpus
    from speechrnn.corpus.readers import read_corpus

    unusable: dict[str, str] = {}
    utterances = read_corpus(
        args.corpus, args.format, on_error=lambda utterance, reason: unusable.update({utterance.id: reason})
    )
    with show_progress(args.destination) as advance:
        packed = pack_corpus(
            utterances,
            args.destination,
            encoding=args.encoding,
            shard_size=args.shard_size,
            sample_rate=args.sample_rate,
            advance=advance,
        )
    left_out = {**unusable, **packed.failed}
    for id, reason in left_out.items():
        print(f"speechrnn: {id} is left out: {reason}", file=sys.stderr)
    hours = packed.seconds / 3600
    print(f"{packed.folder}: {packed.utterances:,} utterances ({hours:.2f} h) in {packed.shards:,} shards")
    return 1 if left_out else 0


def _check(args: argparse.Namespace) -> int:
    from speechrnn.corpus.survey import compare, survey_corpus

    if args.of_model is not None and args.config is not None:
        raise ConfigError("-m and --config: give one of them")
    model = args.of_model or os.environ.get("SPEECHRNN_MODEL")
    if args.plot is not None:
        from speechrnn.inspection.pictures import require_matplotlib

        require_matplotlib()  # before hours of audio are read
    if args.write_clean is not None:
        _refuse_to_replace(Path(args.write_clean))
    view = partial(_view_configuration, args.config) if args.config else partial(_view_model, model or "")
    with show_progress(args.corpus) as advance:
        survey = survey_corpus(
            args.corpus, format=args.format, view=view if model or args.config else None, advance=advance
        )
    if args.test is not None:
        with show_progress(args.test) as advance:
            survey.leakage = compare(survey, survey_corpus(args.test, format=args.format, advance=advance))
    print(json.dumps(survey.to_dict(), ensure_ascii=False) if args.json else "\n".join(describe(survey)))
    if args.write_clean is not None:
        _write_clean(survey, Path(args.write_clean))
    if args.plot is not None:
        _plot(survey, Path(args.plot))
    return 1 if survey.left_out or survey.leakage else 0


def _view_model(model: str, texts: Sequence[str]) -> ModelView:
    from speechrnn.corpus.survey import ModelView
    from speechrnn.model_folder import load_model
    from speechrnn.text.normalize import normalize_text

    loaded = load_model(model)
    return ModelView(
        partial(normalize_text, config=loaded.text),
        loaded.tokens,
        loaded.acoustic.sample_rate,
        loaded.acoustic.explain_infeasible,
    )


def _view_configuration(path: str, texts: Sequence[str]) -> ModelView:
    from speechrnn.acoustic.model import AcousticModel
    from speechrnn.corpus.survey import ModelView
    from speechrnn.text.normalize import normalize_text
    from speechrnn.text.token_files import build_tokens
    from speechrnn.training.config_file import load_config

    config = load_config(path)
    normalize = partial(normalize_text, config=config.text)
    wanted = config.tokens
    for name in ("alphabet", "lexicon"):
        file = getattr(wanted, name)
        if file is not None and not Path(file).exists():
            beside: dict[str, Any] = {name: str(Path(path).parent / file)}
            wanted = replace(wanted, **beside)
    tokens = build_tokens(wanted, [normalize(text) for text in texts], normalize=normalize)
    model = AcousticModel(config.front_end, config.encoder, len(tokens))
    return ModelView(normalize, tokens, model.sample_rate, model.explain_infeasible)


def describe(survey: Survey) -> list[str]:
    """The survey as lines to read."""
    found = survey.to_dict()
    shortest, _, median, _, longest = found["duration_quantiles"]
    lines = [
        f"{survey.path} ({survey.format}): {found['utterances']:,} utterances, {survey.seconds / 3600:.2f} h, "
        + (f"{found['speakers']:,} speakers" if found["speakers"] else "speakers not known"),
        f"durations {shortest:.2f} to {longest:.2f} s, half of them below {median:.2f} s",
        "sample rates: " + ", ".join(f"{int(rate):,} Hz ({count:,})" for rate, count in found["sample_rates"].items()),
    ]
    if survey.band_limit_hz is not None:
        lines.append(
            f"nothing above {survey.band_limit_hz / 1000:.1f} kHz in any recording: as a telephone or strong "
            "compression leaves it; a model of a lower sample rate loses nothing"
        )
    shown = "".join(symbol for symbol in sorted(survey.characters) if not symbol.isspace())
    lines.append(f"{len(shown)} characters: {shown}")
    for symbol, (count, proposal) in survey.unknown.items():
        lines.append(f"  the model does not have {symbol!r} ({count:,} times): {proposal}")
    kinds = Counter(finding.kind for finding in survey.findings)
    for kind, count in kinds.most_common():
        members = [finding for finding in survey.findings if finding.kind == kind]
        effect = ", left out of training" if members[0].is_left_out else ""
        lines.append(f"{kind}: {count:,}{effect}")
        lines += [f"  {finding.id}: {finding.detail}" for finding in members[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"  and {count - _SHOWN:,} more (--json has all)")
    lines += [f"leak: {leak}" for leak in survey.leakage]
    left = len(survey.left_out)
    lines.append(
        f"{left:,} utterances would be left out of training" if left else "nothing would be left out of training"
    )
    return lines


def _refuse_to_replace(folder: Path) -> None:
    """What is there may well be the corpus that is being checked."""
    there = next((folder / name for name in (_CLEAN, _LEFT_OUT) if (folder / name).exists()), None)
    if there is not None:
        raise ConfigError(f"--write-clean {folder}: {there} is there already; choose a new folder")


def _write_clean(survey: Survey, folder: Path) -> None:
    from speechrnn.corpus.manifest import write_manifest

    if not survey.clean:
        raise CorpusError(f"{survey.path}: nothing is left to write")
    write_manifest(folder / _CLEAN, survey.clean)
    left_out = [{"id": id, "reason": reason} for id, reason in survey.left_out.items()]
    write_json_lines(folder / _LEFT_OUT, left_out)
    counts = f"{len(survey.clean):,} utterances; {folder / _LEFT_OUT}: {len(left_out):,}"
    print(f"{folder / _CLEAN}: {counts}", file=sys.stderr)


def _plot(survey: Survey, path: Path) -> None:
    from speechrnn.inspection.pictures import new_figure, to_png

    figure = new_figure(9, 3.5)
    left, right = figure.subplots(1, 2)
    left.hist([each.seconds for each in survey.utterances], bins=50)
    left.set_xlabel("duration, s")
    left.set_ylabel("utterances")
    right.hist([len(each.text) / each.seconds for each in survey.utterances if each.text.strip()], bins=50)
    right.set_xlabel("characters a second")
    figure.suptitle(f"{len(survey.utterances):,} utterances, {survey.seconds / 3600:.2f} h")
    write_atomic(path, to_png(figure), error=ConfigError)
