"""The configuration of a training run: one frozen dataclass of the packages' dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from speechrnn.acoustic.ctc import CTCConfig
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.recurrent import MOST_LAYERS
from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.features import FrontEndConfig
from speechrnn.corpus.streams import CarryState
from speechrnn.errors import ConfigError
from speechrnn.settings import Settings, bounded
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import TokensConfig

DEFAULT_BATCH_SECONDS = 120.0


@dataclass(frozen=True)
class DataConfig(Settings, section="data"):
    """Recordings and batches.

    Attributes:
        train: Training corpus in any known format: a manifest, a table, a Kaldi data folder, a LibriSpeech tree, … A
            relative path is looked for in the output folder, then beside the configuration.
        valid: Validation corpus, on which checkpoints are chosen.
        test: Test corpora by name, scored once after training.
        batch_seconds: Budget of a batch, padding included, in seconds. ``auto``: on a GPU what fits into memory, found
            by trying and stored with the run; on a CPU the default; in both cases at most a fiftieth of the corpus. A
            longer utterance is a batch of its own.
        format: Format of training and validation data (``speechrnn corpus check --help`` lists them); None: it is
            detected.
        weights: How often an epoch has each utterance of a corpus, by the names under ``corpus`` in the training
            manifest: 2 is twice, 0.5 half of them, drawn again for each epoch; those of other corpora come once.
        num_buckets: Maximum number of buckets of similar duration.
        shards_at_once: For a corpus of ``speechrnn corpus pack``: how many shards are mixed at a time. More shards are
            better shuffled, with more random disk access.
        num_workers: Processes that read and augment audio; None: 4 with a GPU; on a CPU 1 if there is a second core.
            On a CPU the other cores train.
        carry_state: Carry the forward direction's hidden state from one utterance to the next, without its gradient
            (truncated back-propagation through time): ``recording``: between parts of one recording; ``speaker``:
            between a speaker's utterances, in the corpus's order; ``no``. For one process only.
        cache_gigabytes: Memory for training recordings, over all reading processes: what fits is read and decoded once,
            not in every epoch. An hour at 16 kHz takes 0.23.
    """

    train: str | None = None
    valid: str | None = None
    test: dict[str, str] = field(default_factory=dict)
    batch_seconds: float | Literal["auto"] = bounded(DEFAULT_BATCH_SECONDS, 0, 10**6, open="low", unit="seconds")
    format: str | None = None
    weights: dict[str, float] = bounded(dict, 0, 100, open="low")
    num_buckets: int = bounded(30, 1, 10_000)
    shards_at_once: int = bounded(8, 1, 10_000)
    num_workers: int | None = bounded(None, 0, 1024)
    carry_state: CarryState = "no"
    cache_gigabytes: float = bounded(1.0, 0, 100_000, unit="GB")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.carry_state != "no" and self.weights:
            raise ConfigError("data.carry_state: cannot be combined with data.weights; leave one of them out")
        if self.carry_state != "no" and self.batch_seconds == "auto":
            raise ConfigError("data.batch_seconds: auto cannot be combined with data.carry_state; give a number")
        if "valid" in self.test:
            raise ConfigError("data.test: the results call the validation set valid; choose another name")

    @property
    def budget_seconds(self) -> float:
        """The budget as a number: the default where it is not found yet."""
        return DEFAULT_BATCH_SECONDS if self.batch_seconds == "auto" else self.batch_seconds


@dataclass(frozen=True)
class ChunksConfig(Settings, section="chunks"):
    """Training of a bidirectional encoder for latency-controlled streams (:mod:`speechrnn.acoustic.chunked`).

    In such a stream the backward direction sees the chunk and a limited right context alone. A model that was trained
    on whole utterances only has more errors there. Validation uses whole utterances.

    Attributes:
        probability: Share of the batches in which the encoder runs chunk by chunk, in [0, 1]; 0 is off. The others
            have whole utterances, so that one model serves streams and whole recordings.
        seconds: Shortest and longest chunk, in seconds; drawn uniformly for each batch.
        context_seconds: Shortest and longest right context of a chunk, in seconds; drawn uniformly for each batch.

    Source:
        B. Zhang et al., "Unified Streaming and Non-streaming Two-pass End-to-end Model for Speech Recognition",
        arXiv:2012.05481 (chunk sizes drawn per batch, there for self-attention).
    """

    probability: float = bounded(0.0, 0, 1)
    seconds: tuple[float, float] = bounded((0.2, 1.0), 0, 3600, open="low", unit="seconds")
    context_seconds: tuple[float, float] = bounded((0.1, 1.0), 0, 3600, unit="seconds")


@dataclass(frozen=True)
class OptimizerConfig(Settings, section="optimizer"):
    """AdamW and its learning rate schedule.

    Attributes:
        learning_rate: Maximum learning rate.
        weight_decay: Decoupled weight decay of matrices; biases and normalisation have none.
        schedule: ``one_cycle``: a linear warm-up over warmup_share of the steps, then a cosine decay to a thousandth;
            ``plateau``: times plateau_factor when validation has not improved for plateau_patience epochs;
            ``constant``.
        warmup_share: Share of all steps in the warm-up (one_cycle), in [0, 1).
        plateau_factor: Factor of the learning rate (plateau), in (0, 1).
        plateau_patience: Epochs without improvement (plateau).
        weight_noise: Standard deviation of noise that is added to every matrix while a step's gradients are computed;
            0: no noise.

    Source:
        A. Graves, "Practical Variational Inference for Neural Networks", NeurIPS 2011 (noise of fixed variance).
    """

    learning_rate: float = bounded(1e-3, 0, 10**9, open="low")
    weight_decay: float = bounded(1e-2, 0, 1000)
    schedule: Literal["one_cycle", "plateau", "constant"] = "one_cycle"
    warmup_share: float = bounded(0.2, 0, 1, open="high")
    plateau_factor: float = bounded(0.5, 0, 1, open="both")
    plateau_patience: int = bounded(3, 0, 10_000, unit="epochs")
    weight_noise: float = bounded(0.0, 0, 100)


@dataclass(frozen=True)
class CheckpointsConfig(Settings, section="checkpoints"):
    """Checkpoints and the choice of the released weights.

    Attributes:
        every_minutes: Minutes between saves: a killed run loses at most this; 0 saves after every step.
        best: How many of the best validations keep their weights.
        average: Also validate the mean of those weights, and release it if it is better than the best of them.
        shift_blank: Also validate higher and lower biases of the blank, and release the best with fewer word errors and
            no more character errors: after training with much dropout and masking a network emits too few or too many
            tokens.
    """

    every_minutes: float = bounded(5.0, 0, 10**6, unit="minutes")
    best: int = bounded(1, 1, 1000)
    average: bool = False
    shift_blank: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average and self.best == 1:
            raise ConfigError("checkpoints.average: needs two or more; set checkpoints.best to 2 or more")


@dataclass(frozen=True)
class FaultsConfig(Settings, section="faults"):
    """Fault-tolerance limits.

    Attributes:
        unreadable_share: Share of the training recordings that may be unreadable, in [0, 1]. Each is logged and
            skipped; the run stops when there are more.
        nonfinite_in_a_row: The run stops after so many consecutive steps with a non-finite loss or gradient.
    """

    unreadable_share: float = bounded(0.01, 0, 1)
    nonfinite_in_a_row: int = bounded(5, 1, 10**6)


@dataclass(frozen=True)
class GradientsConfig(Settings, section="gradients"):
    """Measurements of gradients (:mod:`speechrnn.training.gradient_watch`).

    Attributes:
        every_steps: Steps between measurements of how far back in time gradients reach; 0: none. A measurement takes as
            long as some tens of steps.
        utterances: Validation utterances to average over.
    """

    every_steps: int = bounded(2000, 0, 10**9)
    utterances: int = bounded(32, 1, 10_000)


Alphabet = Literal["keep", "extend", "replace", "map"]


@dataclass(frozen=True)
class StartConfig(Settings, section="start"):
    """Fine-tuning: the model to start from, and which of its layers are trained.

    Attributes:
        model: Model folder with the initial weights, front end, encoder and text normalisation; None: random weights,
            and the rest of this section has no effect.
        alphabet: What to do about symbols that the model lacks. ``keep``: leave utterances with them out; ``extend``:
            add them, each starting near the most similar symbol; ``replace``: use the training texts' symbols, common
            ones with their weights, or tokens of another ``tokens.kind`` with a new output layer (from phones: with
            ``tokens.lexicon: null``); ``map``: write them with the model's symbols by ``text.replacements``.
        layers: Number of recurrent layers to train, counted from the top; 0: the output layer alone. None: all layers
            and the subsampling.
        unfreeze_every: Train one more layer every so many epochs, the output layer and the top layer first; 0: all of
            them from the start.
        head_epochs: Epochs in which the output layer is trained alone, so that new symbols do not disturb the rest.
        layer_decay: Factor of the learning rate from each layer to the one below it, in (0, 1].
        replay: Corpus of original-domain recordings, mixed into training to reduce forgetting.
        replay_share: Share of the training audio that comes from it, in (0, 1).

    Source:
        J. Howard and S. Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018 (gradual
        unfreezing, learning rates by layer).
    """

    model: str | None = None
    alphabet: Alphabet = "keep"
    layers: int | None = bounded(None, 0, MOST_LAYERS)
    unfreeze_every: int = bounded(0, 0, 10_000, unit="epochs")
    head_epochs: int = bounded(0, 0, 10_000, unit="epochs")
    layer_decay: float = bounded(1.0, 0, 1, open="low")
    replay: str | None = None
    replay_share: float = bounded(0.3, 0, 1, open="both")


@dataclass(frozen=True)
class Config(Settings):
    """The configuration of a training run.

    Attributes:
        data: Recordings and batches.
        front_end: Sample rate, features, normalisation.
        text: Normalisation of transcripts before tokenisation.
        tokens: Tokens of the model's outputs.
        encoder: Subsampling and recurrent stack.
        ctc: Initial output layer, and terms of the loss.
        augment: Augmentation of training recordings.
        chunks: Training for latency-controlled streams.
        optimizer: AdamW and its schedule.
        checkpoints: Checkpoints and the choice of the released weights.
        faults: Fault-tolerance limits.
        gradients: Measurements of how far back in time gradients reach.
        start: The model to fine-tune, if any.
        trainer: Lightning's own options.
        early_stopping_patience: Stop after so many validations without a better word error rate (while most words are
            wrong, characters count too); None: never.
        seed: Seed of initialisation, batches, augmentation and dropout.
        prepare: Arguments of a recipe's prepare.py, by name, such as the parts of a corpus.
        output: Folder to write to; None: ``runs/`` and the name of the configuration's folder.
    """

    data: DataConfig = field(default_factory=DataConfig)
    front_end: FrontEndConfig = field(default_factory=FrontEndConfig)
    text: TextConfig = field(default_factory=TextConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    ctc: CTCConfig = field(default_factory=CTCConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    chunks: ChunksConfig = field(default_factory=ChunksConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    gradients: GradientsConfig = field(default_factory=GradientsConfig)
    start: StartConfig = field(default_factory=StartConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    early_stopping_patience: int | None = bounded(None, 1, 10**6)
    seed: int = bounded(0, 0, 2**32 - 1)
    prepare: dict[str, Any] = field(default_factory=dict)
    output: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.carry_state != "no" and self.encoder.initial_state == "encoded":
            raise ConfigError("data.carry_state: not with encoder.initial_state encoded; leave one of them out")
        if self.chunks.probability:
            self._check_chunks()
        layers = self.encoder.resolved_num_layers
        if any(layer >= layers for layer in self.ctc.intermediate_layers):
            raise ConfigError(
                f"ctc.intermediate_layers: expected layers below the last of {layers}, got "
                f"{list(self.ctc.intermediate_layers)}"
            )
        _check_trainer(self.trainer)

    def _check_chunks(self) -> None:
        faults = [
            (not self.encoder.bidirectional, "a unidirectional encoder streams without them; set it to 0"),
            (self.encoder.output == "final_state", "not with encoder.output final_state; set it to 0"),
            (self.data.carry_state != "no", "not with data.carry_state; leave one of them out"),
            (
                self.front_end.normalization == "utterance",
                "a stream cannot normalise by utterance; set front_end.normalization to corpus or sliding",
            ),
        ]
        for is_faulty, message in faults:
            if is_faulty:
                raise ConfigError(f"chunks.probability: {message}")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, as in YAML."""
        return dataclasses.asdict(self)


def _check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse values that Lightning accepts and then fails on."""
    least = {"gradient_clip_val": 0, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1}
    for name, low in least.items():
        value = options.get(name)
        if value is not None and value < low:
            raise ConfigError(f"trainer.{name}: expected {low} or more, got {value}")
    algorithm = options.get("gradient_clip_algorithm")
    if algorithm not in (None, "norm", "value"):
        raise ConfigError(f"trainer.gradient_clip_algorithm: expected norm or value, got {algorithm}")
