"""``speechrnn models``: the models that come with the package."""

from __future__ import annotations

import argparse

from speechrnn.cli.arguments import print_text

SUMMARY = "list the models that come with the package"
EXAMPLE = "speechrnn models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments: none."""


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print one line per model."""
    from speechrnn.atomic_io import read_json
    from speechrnn.errors import ModelError
    from speechrnn.model_folder.embedded import DEFAULT_MODEL, list_embedded

    models = list_embedded()
    if not models:
        print_text(
            "this speechrnn has no models; train one (speechrnn recipe), or give -m owner/name of the Hugging Face Hub"
        )
    for name, model in models.items():
        model.check()
        config = read_json(model.folder / "config.json", error=ModelError)
        languages = ", ".join(config["provenance"].get("languages") or ["unknown language"])
        direction = "bidirectional" if config["encoder"]["bidirectional"] else "for streams"
        default = ", used without -m" if name == DEFAULT_MODEL else ""
        size = f"{config['num_parameters']:,} parameters, {model.size / 1e6:.1f} MB"
        print_text(f"{name}: {languages}, {direction}, {size}{default}; card: {model.folder / 'README.md'}")
    return 0
