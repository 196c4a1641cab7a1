"""``speechrnn corpus check``: statistics and problems of a corpus."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.cli import arguments
from speechrnn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from speechrnn.corpus.survey import ModelView

SUMMARY = "check all audio and texts of a corpus before training, without changing it"
EXAMPLE = "speechrnn corpus check mine/train -m runs/en/model --test mine/test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    arguments.add_corpus_argument(parser)
    arguments.add_group(parser, "input").add_argument("--test", metavar="PATH", help="a test corpus: report overlap")
    arguments.add_model_argument(parser, count="optional")
    group = arguments.add_group(parser, "model")
    group.description = (
        "With a model or a configuration, unknown characters and texts too long for CTC are reported too."
    )
    group.add_argument("--config", metavar="FILE", help="a configuration instead of a model")
    output = arguments.add_group(parser, "output")
    output.add_argument("--json", action="store_true", help="print everything as JSON")
    output.add_argument("--plot", metavar="FILE", help="draw durations and speaking rates (PNG; needs matplotlib)")
    output.add_argument(
        "--write-clean",
        metavar="DST",
        help="write DST/clean.jsonl, and DST/left_out.jsonl with the reasons",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Survey, print and write; 1 if utterances would be left out, or a test corpus overlaps."""
    from speechrnn.corpus.report import check_clean_folder, describe_survey, write_clean
    from speechrnn.corpus.survey import compare, survey_corpus

    if args.plot is not None:
        from speechrnn.inspection.pictures import require_matplotlib

        require_matplotlib()  # before hours of audio are read
    if args.write_clean is not None:
        check_clean_folder(Path(args.write_clean))
    view = _choose_view(args)
    with arguments.show_progress(args.corpus) as advance:
        survey = survey_corpus(args.corpus, format=args.format, view=view, advance=advance)
    if args.test is not None:
        with arguments.show_progress(args.test) as advance:
            survey.leakage = compare(survey, survey_corpus(args.test, format=args.format, advance=advance))
    arguments.print_text(json.dumps(survey.to_dict(), ensure_ascii=False) if args.json else describe_survey(survey))
    if args.write_clean is not None:
        arguments.print_note(write_clean(survey, Path(args.write_clean)))
    if args.plot is not None:
        from speechrnn.inspection.pictures import write_histograms

        durations = [each.seconds for each in survey.utterances]
        rates = [len(each.text) / each.seconds for each in survey.utterances if each.text.strip()]
        write_histograms({"duration, s": durations, "characters a second": rates}, Path(args.plot))
    return 1 if survey.left_out or survey.leakage else 0


def _choose_view(args: argparse.Namespace) -> partial[ModelView] | None:
    """The model's view of texts, from a model or a configuration, or None."""
    if args.config is None:
        return None if args.model is None else partial(_view_model, args.model)
    if args.models:
        raise ConfigError("-m and --config: give one of them")
    return partial(_view_configuration, args.config)


def _view_model(model: str, texts: Sequence[str]) -> ModelView:
    from speechrnn.corpus.survey import ModelView
    from speechrnn.model_folder import load_model
    from speechrnn.text.normalize import normalize_text

    loaded = load_model(model)
    acoustic = loaded.acoustic
    normalize = partial(normalize_text, config=loaded.text)
    return ModelView(normalize, loaded.tokens, acoustic.sample_rate, acoustic.explain_infeasible)


def _view_configuration(path: str, texts: Sequence[str]) -> ModelView:
    from speechrnn.acoustic.model import AcousticModel, WithoutWeights
    from speechrnn.corpus.survey import ModelView
    from speechrnn.text.normalize import normalize_text
    from speechrnn.text.token_files import build_tokens
    from speechrnn.training.config_file import load_config
    from speechrnn.training.preflight import find_token_files

    config = load_config(path)
    normalize = partial(normalize_text, config=config.text)
    wanted = find_token_files(config.tokens, [Path(path).parent])
    tokens = build_tokens(wanted, [normalize(text) for text in texts], normalize=normalize)
    with WithoutWeights():
        model = AcousticModel(config.front_end, config.encoder, len(tokens))
    return ModelView(normalize, tokens, model.sample_rate, model.explain_infeasible)
