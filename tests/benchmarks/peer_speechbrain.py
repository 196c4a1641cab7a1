"""SpeechBrain's CRDNN with CTC on the manifests that one of our recipes prepared, for as many minutes as ours had.

It needs an environment of its own, and nothing of speechrnn::

    pip install 'torch==2.11.*' 'torchaudio==2.11.*' speechbrain soundfile
    python tests/benchmarks/peer_speechbrain.py runs/speechocean762 --minutes 85 --output peer

What SpeechBrain's own CTC recipe for TIMIT sets is kept: 40 log-mels, two CNN blocks of 128 and 256 channels, dropout
0.15, two DNN blocks, batches of 8, Adadelta with NewBob annealing, speed perturbation with dropped bands and chunks
beside the original (its noise is a download and is left out). The recurrent part is as given: its four layers of 512
LiGRU units are a Python loop over frames, so on a CPU a smaller LSTM may get further in the same time. Characters,
greedy decoding, the best epoch by validation WER; the test set is scored once, at the end. On two cores the
recipe's convolutions take too long as well, and options make them smaller.

Source: SpeechBrain 1.1, recipes/TIMIT/ASR/CTC.
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import soundfile
import speechbrain
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import DropChunk, DropFreq, SpeedPerturb
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.CRDNN import CRDNN
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.losses import ctc_loss
from speechbrain.nnet.schedulers import NewBobScheduler
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.metric_stats import ErrorRateStats

SAMPLE_RATE = 16000
BLANK = 0
PARTS = ("train", "valid", "test")


def read_manifest(path: Path) -> list[dict]:
    """Utterances of a NeMo manifest, shortest first, with their text in lower case."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["audio_filepath"] = str(path.parent / row["audio_filepath"])
        row["text"] = row["text"].lower()
    return sorted(rows, key=lambda row: row["duration"])


class Batches(torch.utils.data.IterableDataset):
    """Batches of 8 neighbours in duration, in random order where asked for, until the time is over."""

    def __init__(self, rows: list[dict], symbols: list[str], *, shuffle: bool, deadline: float) -> None:
        self.rows, self.shuffle, self.deadline = rows, shuffle, deadline
        self.ids = {symbol: number for number, symbol in enumerate(symbols, start=1)}
        self.groups = [rows[start : start + 8] for start in range(0, len(rows), 8)]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[tuple]:
        groups = random.sample(self.groups, len(self.groups)) if self.shuffle else self.groups
        for group in groups:
            if time.perf_counter() > self.deadline:
                return
            yield self._read(group)

    def _read(self, group: list[dict]) -> tuple:
        waves = [torch.from_numpy(soundfile.read(row["audio_filepath"], dtype="float32")[0]) for row in group]
        tokens = [torch.tensor([self.ids[c] for c in row["text"] if c in self.ids]) for row in group]
        return (group, *_pad(waves), *_pad(tokens))


def _pad(parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded, and lengths relative to the longest, as SpeechBrain has them."""
    lengths = torch.tensor([len(part) for part in parts], dtype=torch.float32)
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), lengths / lengths.max()


class Recogniser(speechbrain.Brain):
    """CRDNN and a linear layer, trained with CTC."""

    def compute_forward(self, batch, stage):
        _, waves, lengths, _, _ = batch
        if stage == speechbrain.Stage.TRAIN:
            waves, lengths = self.hparams.augment(waves, lengths)
        features = self.modules.normalize(self.hparams.features(waves), lengths, epoch=self.hparams.epoch[0])
        return torch.log_softmax(self.modules.output(self.modules.model(features)), dim=-1), lengths

    def compute_objectives(self, predictions, batch, stage):
        log_probs, lengths = predictions
        rows, _, _, tokens, token_lengths = batch
        if stage == speechbrain.Stage.TRAIN:
            tokens = self.hparams.augment.replicate_labels(tokens)
            token_lengths = self.hparams.augment.replicate_labels(token_lengths)
        else:
            decoded = ctc_greedy_decode(log_probs, lengths, blank_id=BLANK)
            texts = ["".join(self.hparams.symbols[i - 1] for i in sequence) for sequence in decoded]
            said = [row["text"].split() for row in rows]
            self.errors.append([row["id"] for row in rows], [text.split() for text in texts], said)
        return ctc_loss(log_probs, tokens, lengths, token_lengths, BLANK, reduction="batchmean")

    def on_stage_start(self, stage, epoch=None):
        self.hparams.epoch[0] = epoch or 0
        if stage != speechbrain.Stage.TRAIN:
            self.errors = ErrorRateStats()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == speechbrain.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        self.wer = self.errors.summarize("error_rate")
        if stage == speechbrain.Stage.VALID:
            _, new = self.hparams.annealing(self.wer)
            speechbrain.nnet.schedulers.update_learning_rate(self.optimizer, new)
            minutes = (time.perf_counter() - self.hparams.started) / 60
            print(f"epoch {epoch}: loss {self.train_loss:.1f}, WER {self.wer:.2f} %, {minutes:.1f} min", flush=True)
            if self.wer < self.hparams.best.get("wer", float("inf")):
                weights = {name: value.clone() for name, value in self.modules.state_dict().items()}
                self.hparams.best.update(wer=self.wer, epoch=epoch, weights=weights)


def make_brain(args: argparse.Namespace, symbols: list[str]) -> Recogniser:
    """An untrained model with what SpeechBrain's recipe sets."""
    modules = {
        "model": CRDNN(
            input_size=40,
            time_pooling=True,
            time_pooling_size=args.time_pooling,
            cnn_channels=args.cnn_channels,
            rnn_class=getattr(speechbrain.nnet.RNN, args.rnn_class),
            rnn_layers=args.rnn_layers,
            rnn_neurons=args.rnn_neurons,
        ),
        "output": Linear(input_size=512, n_neurons=len(symbols) + 1),
        "normalize": InputNormalization(norm_type="global"),
    }
    augmentations = [
        SpeedPerturb(orig_freq=SAMPLE_RATE, speeds=[95, 100, 105]),
        DropFreq(drop_freq_low=0, drop_freq_high=1, drop_freq_count_low=1, drop_freq_count_high=3),
        DropChunk(drop_length_low=1000, drop_length_high=2000, drop_count_low=1, drop_count_high=5),
    ]
    settings = {
        "augment": Augmenter(
            concat_original=True,
            min_augmentations=len(augmentations),
            max_augmentations=len(augmentations),
            augment_prob=1.0,
            augmentations=augmentations,
        ),
        "features": Fbank(sample_rate=SAMPLE_RATE, n_fft=400, n_mels=40),
        "annealing": NewBobScheduler(initial_value=1.0, improvement_threshold=0.0025, annealing_factor=0.8),
        "symbols": symbols,
        "started": time.perf_counter(),
        "best": {},
        "epoch": [0],
    }
    return Recogniser(
        modules,
        opt_class=lambda parameters: torch.optim.Adadelta(parameters, lr=1.0, rho=0.95, eps=1e-8),
        hparams=settings,
        run_opts={"device": args.device, "precision": args.precision, "noprogressbar": True},
    )


def train_and_test(args: argparse.Namespace) -> dict:
    """What results.json holds."""
    parts = {name: read_manifest(args.data / f"{name}.jsonl") for name in PARTS}
    symbols = sorted({character for row in parts["train"] for character in row["text"]})
    brain = make_brain(args, symbols)
    started, best = brain.hparams.started, brain.hparams.best
    deadline = started + 60 * args.minutes

    def load(part: str, *, shuffle: bool = False, deadline: float = float("inf")) -> torch.utils.data.DataLoader:
        batches = Batches(parts[part], symbols, shuffle=shuffle, deadline=deadline)
        return torch.utils.data.DataLoader(batches, batch_size=None)

    epochs = itertools.takewhile(lambda _: time.perf_counter() < deadline, itertools.count(1))
    brain.fit(epochs, load("train", shuffle=True, deadline=deadline), load("valid"))
    minutes = (time.perf_counter() - started) / 60
    brain.modules.load_state_dict(best["weights"])
    brain.evaluate(load("test"))
    return {
        "speechbrain": speechbrain.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": args.device,
        "rnn": f"{args.rnn_layers} x {args.rnn_neurons} {args.rnn_class}",
        "cnn_channels": list(args.cnn_channels),
        "time_pooling": args.time_pooling,
        "precision": args.precision,
        "parameters": sum(parameter.numel() for parameter in brain.modules.parameters()),
        "minutes": round(minutes, 1),
        "epoch": best["epoch"],
        "valid_wer": best["wer"] / 100,
        "test_wer": brain.wer / 100,
    }


def main() -> None:
    """Train, choose, test, and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.jsonl, valid.jsonl and test.jsonl")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rnn-class", choices=["LiGRU", "LSTM", "GRU"], default="LiGRU")
    parser.add_argument("--rnn-layers", type=int, default=4)
    parser.add_argument("--rnn-neurons", type=int, default=512)
    parser.add_argument("--cnn-channels", type=int, nargs=2, default=(128, 256))
    parser.add_argument("--time-pooling", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    missing = [f"{name}.jsonl" for name in PARTS if not (args.data / f"{name}.jsonl").is_file()]
    if missing:
        parser.error(f"{args.data}: no {', '.join(missing)} there; pass what a recipe's prepare stage wrote")
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    results = train_and_test(args)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
