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
from speechrnn.settings import bounded, check_settings
from speechrnn.text.normalize import TextConfig
from speechrnn.text.tokens import TokensConfig


@dataclass(frozen=True)
class DataConfig:
    """Which recordings, and how they are batched.

    Attributes:
        train: Corpus to train on, in any format that is known: a manifest, a table, a Kaldi data folder, a LibriSpeech
            tree … A relative path is looked for in the output folder, then beside the configuration.
        valid: Corpus that checkpoints are chosen on.
        test: Manifests that are scored once, after training, by name.
        batch_seconds: Budget of a batch, padding included, in seconds.
        format: Of training and validation data, where two formats would fit (``speechrnn corpus check --help`` lists
            them); None: it is found by looking.
        weights: How often an epoch has each utterance of a corpus, by the names under ``corpus`` in the training
            manifest: 2 is twice, 0.5 a half of them, chosen anew for each epoch; those of other corpora come once.
        num_buckets: Most buckets of like duration.
        shards_at_once: For corpora that ``speechrnn corpus pack`` has written: how many shards are mixed at a time. The
            more, the better they are shuffled, and the more of the disk is in use.
        num_workers: Processes that read and augment audio; None: 4 beside a GPU, and on a CPU one where there is a
            second core. On a CPU the other cores train.
        carry_state: Whether the forward direction's hidden state goes on from one utterance to the next, without its
            gradient (truncated back-propagation through time): ``recording``: between pieces of one recording;
            ``speaker``: between a speaker's utterances, in the corpus's order; ``no``. For one process.
        cache_gigabytes: Memory for training recordings, all reading processes together: what fits is read and decoded
            once, not in every epoch. An hour at 16 kHz takes 0.23.
    """

    train: str | None = None
    valid: str | None = None
    test: dict[str, str] = field(default_factory=dict)
    batch_seconds: float = bounded(120.0, 0, 10**6, open="low", unit="seconds")
    format: str | None = None
    weights: dict[str, float] = bounded(dict, 0, 100, open="low")
    num_buckets: int = bounded(30, 1, 10_000)
    shards_at_once: int = bounded(8, 1, 10_000)
    num_workers: int | None = bounded(None, 0, 1024)
    carry_state: CarryState = "no"
    cache_gigabytes: float = bounded(1.0, 0, 100_000, unit="GB")

    def __post_init__(self) -> None:
        check_settings(self, "data")
        if self.carry_state != "no" and self.weights:
            raise ConfigError(
                "data.carry_state: what follows what leaves no room for data.weights; leave one of them out"
            )
        if "valid" in self.test:
            raise ConfigError("data.test: valid is the name of the validation set in the results; choose another")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and how its learning rate moves.

    Attributes:
        learning_rate: Highest learning rate.
        weight_decay: Decoupled weight decay of matrices; biases and normalisation have none.
        schedule: ``one_cycle`` rises over warmup_share of the steps and falls along a cosine to a thousandth;
            ``plateau`` multiplies by plateau_factor when validation has not improved for plateau_patience epochs;
            ``constant`` stays.
        warmup_share: Share of all steps in which the rate rises (one_cycle), in [0, 1).
        plateau_factor: In (0, 1).
        plateau_patience: Epochs.
        weight_noise: Standard deviation of noise that is added to every matrix while a step's gradients are taken, and
            then taken away again; 0 is off.

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

    def __post_init__(self) -> None:
        check_settings(self, "optimizer")


@dataclass(frozen=True)
class CheckpointsConfig:
    """What a run keeps while it trains.

    Attributes:
        every_minutes: A run that is killed loses no more than this; 0 saves after every step.
        best: How many of the best validations keep their weights.
        average: Also try the mean of those weights on the validation set, and release it if it is better than the best
            of them.
        shift_blank: Also try what a higher or lower bias of the blank does to the validation set's word errors, and
            release the best that has fewer, and no more character errors: a network that was trained with much dropout
            and masking says too little or too much.
    """

    every_minutes: float = bounded(5.0, 0, 10**6, unit="minutes")
    best: int = bounded(1, 1, 1000)
    average: bool = False
    shift_blank: bool = False

    def __post_init__(self) -> None:
        check_settings(self, "checkpoints")
        if self.average and self.best == 1:
            raise ConfigError("checkpoints.average: the mean of one is itself; set checkpoints.best to 2 or more")


@dataclass(frozen=True)
class FaultsConfig:
    """Fault-tolerance limits.

    Attributes:
        unreadable_share: Share of the training recordings that may turn out unreadable, in [0, 1]; each is named and
            skipped. The run stops when there are more.
        nonfinite_in_a_row: Steps in a row that may be called off because loss or gradient is not finite; then the run
            stops.
    """

    unreadable_share: float = bounded(0.01, 0, 1)
    nonfinite_in_a_row: int = bounded(5, 1, 10**6)

    def __post_init__(self) -> None:
        check_settings(self, "faults")


@dataclass(frozen=True)
class GradientsConfig:
    """How the gradients of a run are watched (:mod:`speechrnn.training.gradient_watch`).

    Attributes:
        every_steps: Steps from one look at how far back in time gradients reach to the next; 0 never looks. A look
            takes as long as some tens of steps.
        utterances: Validation utterances that a look is averaged over.
    """

    every_steps: int = bounded(2000, 0, 10**9)
    utterances: int = bounded(32, 1, 10_000)

    def __post_init__(self) -> None:
        check_settings(self, "gradients")


Alphabet = Literal["keep", "extend", "replace", "map"]


@dataclass(frozen=True)
class StartConfig:
    """What training begins from, and what of it moves: for fine-tuning.

    Attributes:
        model: Folder of the model whose weights, front end, encoder and text normalisation it begins with; None: it
            begins from nothing, and the rest of this section says nothing.
        alphabet: What becomes of symbols that the model lacks. ``keep``: utterances with them are left out; ``extend``:
            they are added, each beginning near the most similar symbol; ``replace``: the training texts' symbols alone
            are kept, what both have with its weights, or tokens of another ``tokens.kind`` with a new output layer
            (from phones: with ``tokens.lexicon: null``); ``map``: ``text.replacements`` writes them with its own.
        layers: How many recurrent layers move, counted from the top; 0: the output layer alone. None: everything, the
            subsampling too.
        unfreeze_every: Epochs after which one layer more begins to move, the output layer and the top layer first; 0:
            all of them at once.
        head_epochs: Epochs in which the output layer moves alone, so that new symbols are no noise for the rest.
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

    def __post_init__(self) -> None:
        check_settings(self, "start")


@dataclass(frozen=True)
class Config:
    """Everything that a training run is made from.

    Attributes:
        data: Recordings and batches.
        front_end: Sample rate, features, normalisation.
        text: What is done to transcripts before they become tokens.
        tokens: What the model's outputs stand for.
        encoder: Subsampling and recurrent stack.
        ctc: How the output layer begins, and what is added to the loss.
        augment: What training does to recordings.
        optimizer: AdamW and its schedule.
        checkpoints: What a run keeps while it trains.
        faults: Fault-tolerance limits.
        gradients: Measurements of how far back in time gradients reach.
        start: The model to fine-tune, if any.
        trainer: Lightning's own options.
        early_stopping_patience: Stop after so many validations without a better word error rate (where most words
            are wrong, characters count, too); None never stops.
        seed: Seed of initialisation, batches, augmentation and dropout.
        prepare: What a recipe's prepare.py is told, by the names of its arguments: which parts of a corpus, say.
        output: Folder to write to; None: ``runs/`` and the name of the configuration's folder.
    """

    data: DataConfig = field(default_factory=DataConfig)
    front_end: FrontEndConfig = field(default_factory=FrontEndConfig)
    text: TextConfig = field(default_factory=TextConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    ctc: CTCConfig = field(default_factory=CTCConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
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
        check_settings(self)
        if self.data.carry_state != "no" and self.encoder.initial_state == "encoded":
            raise ConfigError("data.carry_state: a state is either carried on or encoded; set encoder.initial_state")
        layers = self.encoder.resolved_num_layers
        if any(layer >= layers for layer in self.ctc.intermediate_layers):
            raise ConfigError(
                f"ctc.intermediate_layers: expected layers below the last of {layers}, got "
                f"{list(self.ctc.intermediate_layers)}"
            )
        _check_trainer(self.trainer)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, as YAML would hold them."""
        return dataclasses.asdict(self)


def _check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse what Lightning takes and then breaks on."""
    clip = options.get("gradient_clip_val")
    if clip is not None and clip < 0:
        raise ConfigError(f"trainer.gradient_clip_val: expected 0 or more (0 is off), got {clip}")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        value = options.get(name)
        if value is not None and value < 1:
            raise ConfigError(f"trainer.{name}: expected 1 or more, got {value}")
    algorithm = options.get("gradient_clip_algorithm")
    if algorithm not in (None, "norm", "value"):
        raise ConfigError(f"trainer.gradient_clip_algorithm: expected norm or value, got {algorithm}")
