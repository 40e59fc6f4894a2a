"""What a run is made of: one frozen dataclass per part. The text under a field is its help on the command line."""

import dataclasses
import math
import re
from typing import Literal

from bertjax.errors import BertjaxError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BertjaxError(message)


def _at_least(part: object, prefix: str, least: float, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        _require(least <= value < 2**31, f"{prefix}.{name}={value} is impossible; give {least} or more, below 2**31")


def _shares(part: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        _require(value is None or 0 < value <= 1, f"{prefix}.{name}={value} is not a share; give 0 < {name} <= 1")


Source = Literal["wikitext-2", "python-docs", "files"]
Split = Literal["train", "valid", "test"]
Objective = Literal["mlm+nsp", "mlm+sop", "mlm"]
HEADS: dict[Objective, dict[str, str]] = {
    "mlm+nsp": {"mlm": "MLM", "nsp": "NSP"},
    "mlm+sop": {"mlm": "MLM", "nsp": "SOP"},
    "mlm": {"mlm": "MLM"},
}
"""The heads that learn, by their names in metrics, and what people call them."""
OnFailure = Literal["stop", "continue"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Text: where it comes from and how it becomes sequences to learn from"""

    source: Source = "wikitext-2"
    """WikiText-2, the documentation that ships inside Python (needs no download), or your own files"""
    path: str | None = None
    """your files, folders and globs such as texts/**/*.jsonl.gz, apart by ':' (text, .jsonl, .parquet, .gz, .zst); for
    WikiText-2 a folder that already holds wiki.{train,valid,test}.tokens, which is looked in first"""
    eval_path: str | None = None
    """your held-out files; by default one document in a hundred of data.path is valid, and another test"""
    document: Literal["file", "line", "block"] = "block"
    """what a document is in plain text: a file, a line, or a block of lines up to a blank one; pairs stay inside"""
    sentence: Literal["split", "line"] = "split"
    """whether the text of files is split into sentences, or has one on each line"""
    language: str = "en"
    """of the text of files, for its splitting: a code of two letters"""
    text_field: str = "text"
    """field of JSON lines, column of Parquet files that holds the text; a record is a document"""
    on_bad: Literal["stop", "skip"] = "stop"
    """what to do about a file, or a record in it, that cannot be read: stop, or skip it with a warning"""
    workers: int | None = None
    """processes that tokenise files, each on one core; by default one a core"""
    fallback: Literal["python-docs"] | None = None
    """corpus to use when the source cannot be had; without it that is an error"""
    cache: str | None = None
    """folder for downloads and tokenised corpora; by default bertjax in the user's cache folder"""
    train_split: Split = "train"
    """split to learn from; the vocabulary is built from it too"""
    eval_split: Split = "valid"
    """split that is held out"""
    objective: Objective = "mlm+nsp"
    """masked words and whether the second sentence of a pair is the next (BERT), or whether the two are in order
    (ALBERT); or masked words alone, in as many sentences of a paragraph as fit (RoBERTa)"""
    max_length: int = 128
    """tokens in a pair, or in what the objective has instead, at most; <cls> and <sep> included"""
    row_length: int | None = None
    """tokens in a row; rows longer than max_length hold several pairs, packed; by default max_length, one pair a row"""
    too_long: Literal["truncate", "drop"] = "truncate"
    """a pair longer than that loses words from its longer side, or is left out (the textbook's way); where there are no
    pairs, a sentence"""
    mlm_probability: float = 0.15
    """share of the words of a pair, or what the objective has instead, to predict; at least one is"""
    mlm_probability_end: float | None = None
    """rate of the last step, to which it rises or falls evenly; by default it stays"""
    mask_unit: Literal["token", "word", "span"] = "token"
    """what is chosen to be predicted: tokens, words with all their pieces, or spans of up to 10 words (SpanBERT)"""
    predict_unk: bool = False
    """let <unk> itself be a word to predict (the textbook's way)"""

    def __post_init__(self) -> None:
        _at_least(self, "data", 5, "max_length")
        if self.workers is not None:
            _at_least(self, "data", 1, "workers")
        if self.row_length is not None:
            _require(
                self.max_length <= self.row_length < 2**31,
                f"data.row_length={self.row_length} is below data.max_length={self.max_length}; "
                "give rows at least as long as the pairs, or leave it out",
            )
        if self.source == "files":
            _require(bool(self.path), "data.source=files needs data.path; give your files, folders or globs")
        else:
            _require(
                self.eval_path is None,
                f"data.eval_path={self.eval_path} has no effect with data.source={self.source}; give data.source=files",
            )
        _shares(self, "data", "mlm_probability", "mlm_probability_end")

    @property
    def heads(self) -> dict[str, str]:
        """The heads that learn, by their names in metrics, and what people call them.

        In parameters and metrics the head for pairs is always "nsp".
        """
        return HEADS[self.objective]

    @property
    def sequences(self) -> str:
        """What a sequence is called, in the plural."""
        return "sequences" if self.objective == "mlm" else "pairs"


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Vocabulary, made of the training split"""

    kind: Literal["word", "wordpiece"] = "word"
    """words as white space has them (the textbook's way), or pieces of words (BERT's)"""
    vocab_size: int | None = None
    """tokens at most, special ones included; by default all that are frequent enough, of pieces 30,522 as BERT has"""
    min_frequency: int = 5
    """a word, or a piece, seen less often than this is no token; a word that is none becomes <unk>"""
    max_megabytes: int = 512
    """of files that the vocabulary is made of at most, taken evenly from all over them"""
    lowercase: bool = True
    """whether Crane and crane are one"""
    strip_accents: bool | None = None
    """whether pieces lose their accents; by default they do where lowercase is true, as in BERT"""
    path: str | None = None
    """folder of a run or of a Hugging Face model, or its tokenizer.json, to take the vocabulary from instead of making
    one; the other keys then become what that one is"""

    def __post_init__(self) -> None:
        _at_least(self, "tokenizer", 1, "min_frequency", "max_megabytes")
        if self.vocab_size is not None:
            _require(
                6 <= self.vocab_size <= 2**24,
                f"tokenizer.vocab_size={self.vocab_size} is impossible; give 6 to 16,777,216 tokens",
            )
        _require(
            self.kind == "wordpiece" or self.strip_accents is None,
            f"tokenizer.strip_accents={self.strip_accents} has no effect with tokenizer.kind=word; use wordpiece",
        )


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Model; the defaults are BERT-base as published (Devlin et al. 2019, section 3)"""

    vocab_size: int | None = None
    """rows of the embedding table; by default as many as the tokenizer has tokens"""
    hidden_size: int = 768
    """features of a token"""
    num_layers: int = 12
    """encoder layers"""
    num_heads: int = 12
    """attention heads in a layer; must divide hidden_size"""
    intermediate_size: int = 3072
    """features inside a feed-forward layer"""
    max_position: int = 512
    """longest sequence that can be read, in tokens"""
    dropout: float = 0.1
    """rate on attention weights and on every sublayer's output while training"""
    hidden_act: Literal["gelu", "gelu_tanh", "relu", "silu", "geglu", "swiglu"] = "gelu"
    """activation of the feed-forward layers and of the MLM head; gelu is the exact one, geglu and swiglu have a second
    matrix in the feed-forward layers, whose product gates that of the first (Shazeer 2020)"""
    layer_norm_eps: float = 1e-12
    """added to the variance in norms"""
    norm: Literal["post", "pre"] = "post"
    """where norms are: after each sublayer and its residual, as in BERT, or before it, and one after the last layer"""
    norm_kind: Literal["layer", "rms"] = "layer"
    """layer norm, as in BERT, or by the root of the mean square alone (Zhang and Sennrich 2019)"""
    embedding_norm: bool = True
    """norm, then dropout, on the summed embeddings: BERT has it, the textbook has not"""
    positions: Literal["learned", "rotary"] = "learned"
    """an embedding of each position, as in BERT, or queries and keys turned by it (Su et al. 2021)"""
    biases: bool = True
    """in linear layers and norms, as in BERT; words to predict always have theirs"""
    nsp_features: Literal["cls", "pair"] = "cls"
    """what the NSP head reads: <cls>, as in BERT, or also how the means of both sentences' tokens differ"""
    tie_word_embeddings: bool = True
    """predict words with the transposed token embeddings: BERT does, the textbook has a matrix of its own"""
    init: Literal["bert", "textbook"] = "bert"
    """truncated normal of init_scale, or PyTorch's defaults as the textbook has them"""
    init_scale: float = 0.02
    """standard deviation of init: bert"""
    frequency_bias: bool = False
    """start the vocabulary's biases at the log of the words' frequencies in the training text"""
    cooccurrence_embedding: bool = False
    """start token embeddings from which words stand near each other in the training text (Levy et al. 2015); it is
    counted in the first 2**27 tokens"""

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "max_position")
        _at_least(self, "model", 1, *sizes)
        if self.vocab_size is not None:
            _at_least(self, "model", 6, "vocab_size")
        _require(
            self.hidden_size % self.num_heads == 0,
            f"model.hidden_size={self.hidden_size} is not divisible by model.num_heads={self.num_heads}; "
            "change one of them",
        )
        features = self.hidden_size // self.num_heads
        _require(
            self.positions == "learned" or features % 2 == 0,
            f"model.positions=rotary turns pairs of features, and a head has {features}; give an even number",
        )
        _require(0 <= self.dropout < 1, f"model.dropout={self.dropout} is not a rate; give 0 <= rate < 1")
        for name in ("layer_norm_eps", "init_scale"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"model.{name}={value} is impossible; give a positive number")

    @classmethod
    def textbook(cls, vocab_size: int | None = None) -> "BertConfig":
        """The small model of "Dive into Deep Learning", section 15.10: 2 layers, 128 hidden, 2 heads."""
        return cls(
            vocab_size=vocab_size,
            hidden_size=128,
            num_layers=2,
            num_heads=2,
            intermediate_size=256,
            max_position=1000,
            dropout=0.2,
            hidden_act="relu",
            layer_norm_eps=1e-5,
            embedding_norm=False,
            tie_word_embeddings=False,
            init="textbook",
        )

    @classmethod
    def base(cls, vocab_size: int | None = None) -> "BertConfig":
        """BERT-base (Devlin et al. 2019, section 3)."""
        return cls(vocab_size=vocab_size)

    @classmethod
    def large(cls, vocab_size: int | None = None) -> "BertConfig":
        """BERT-large (Devlin et al. 2019, section 3)."""
        return cls(vocab_size=vocab_size, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser"""

    name: Literal["adam", "adamw", "lamb", "muon"] = "adamw"
    """Adam; AdamW or LAMB, with decay on matrices only (no biases, no norms); or Muon on the matrices of the encoder's
    layers, with AdamW on the rest"""
    learning_rate: float = 1e-4
    """highest learning rate"""
    muon_learning_rate: float = 0.02
    """highest learning rate of what Muon is for"""
    warmup_steps: int = 0
    """steps over which the learning rate rises in equal parts to its highest"""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """what the learning rate does after warm-up: stays, or falls to 0 at the last step, or stays, then falls (wsd)"""
    decay_share: float = 0.2
    """share of the steps in which the learning rate falls under wsd"""
    b1: float = 0.9
    """decay of the mean of gradients"""
    b2: float = 0.999
    """decay of the mean of squared gradients"""
    eps: float = 1e-8
    """added to the root of the mean of squares"""
    weight_decay: float = 0.0
    """AdamW's decay, times the learning rate"""
    clip_norm: float | None = None
    """largest global norm of the gradients; longer ones are scaled down to it"""
    ema_decay: float | None = None
    """mean of the weights over the last steps, each older step counting so many times less, such as 0.999; it is what
    is evaluated, encoded with and exported, and what another run starts from"""

    def __post_init__(self) -> None:
        _at_least(self, "optim", 0, "warmup_steps", "weight_decay")
        for name in ("learning_rate", "muon_learning_rate", "eps", "clip_norm"):
            value = getattr(self, name)
            _require(
                value is None or 0 < value < math.inf, f"optim.{name}={value} is impossible; give a positive number"
            )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optim.{name}={value} is not a decay; give 0 <= {name} < 1")
        _require(
            self.name != "adam" or self.weight_decay == 0,
            f"optim.weight_decay={self.weight_decay} has no effect with optim.name=adam; use adamw or give 0",
        )
        _require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"optim.ema_decay={self.ema_decay} is not a decay; give 0 < ema_decay < 1, or leave it out",
        )
        _shares(self, "optim", "decay_share")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Training"""

    steps: int = 1000
    """optimiser steps"""
    budget: str | None = None
    """wall-clock time of the whole run, restarts and evaluations included, such as 90s, 10m or 2h; the learning rate of
    optim.schedule=wsd begins to fall when it has to for that, and train.steps are the most steps"""
    batch_size: int = 256
    """pairs, or what the objective has instead, in a step, over all devices"""
    batch_warmup_steps: int = 0
    """first steps, which have smaller batches: an eighth in the first third of them, then a quarter, then a half"""
    gradient_accumulation_steps: int = 1
    """parts a batch is computed in, one after the other, to save memory; the gradients are the same"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """what matrix products multiply; parameters, optimiser state and sums of products are float32 with either"""
    nsp_weight: float = 1.0
    """what the NSP loss counts for beside the MLM loss in what gradients are taken of; 1 in BERT"""
    z_loss: float = 0.0
    """of the squared log of the softmax's denominator over the vocabulary, added to what gradients are taken of, so
    that logits stay near 0 (Chowdhery et al. 2022, section 5, have 1e-4); the losses told are without it"""
    remat: bool = False
    """compute a layer's activations again on the way back instead of keeping them: less memory, more time"""
    scan_layers: bool = False
    """compile one encoder layer and loop over it: deep models compile several times faster"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    max_bad_steps: int = 10
    """steps in a row whose loss or gradients are not finite, each of which changes nothing, until the run stops"""
    spike_factor: float | None = None
    """go back to the last checkpoint, and leave out the batches since, when the loss is so many times the recent"""

    def __post_init__(self) -> None:
        _at_least(self, "train", 1, "steps", "batch_size", "gradient_accumulation_steps", "log_every", "max_bad_steps")
        _require(
            self.spike_factor is None or 1 < self.spike_factor < math.inf,
            f"train.spike_factor={self.spike_factor} is no rise; give a number above 1, or leave it out",
        )
        _require(
            self.batch_size % self.gradient_accumulation_steps == 0,
            f"train.batch_size={self.batch_size} is not divisible by train.gradient_accumulation_steps="
            f"{self.gradient_accumulation_steps}; change one of them",
        )
        _require(
            self.budget is None or self.budget_seconds is not None,
            f"train.budget={self.budget} is no time; give seconds, minutes or hours, such as 90s, 10m or 2h",
        )
        _at_least(self, "train", 0, "batch_warmup_steps")
        _require(
            self.batch_warmup_steps <= self.steps,
            f"train.batch_warmup_steps={self.batch_warmup_steps} is above train.steps={self.steps}; "
            "warm up for fewer steps or train longer",
        )
        _require(
            self.budget is None or self.batch_warmup_steps == 0,
            f"train.batch_warmup_steps={self.batch_warmup_steps} makes steps of unlike length, from which "
            f"train.budget={self.budget} cannot tell how many there is time for; leave one of them out",
        )
        for name in ("nsp_weight", "z_loss"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"train.{name}={value} is impossible; give 0 or more")

    @property
    def budget_seconds(self) -> float | None:
        """The budget as a number; None where there is none."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.budget or "")
        if match is None or float(match[1]) == 0:
            return None
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Held-out figures"""

    every: int = 0
    """steps between evaluations; 0 for one at the end only"""
    mlm_probability: float | None = None
    """share of the words to predict; it, max_length and too_long are the same in all runs whose figures are to be
    compared; by default data.mlm_probability"""
    max_length: int | None = None
    """tokens in a held-out sequence at most; by default data.max_length"""
    too_long: Literal["truncate", "drop"] | None = None
    """what becomes of a held-out sequence longer than that; by default data.too_long"""

    def __post_init__(self) -> None:
        _at_least(self, "eval", 0, "every")
        if self.max_length is not None:
            _at_least(self, "eval", 5, "max_length")
        _shares(self, "eval", "mlm_probability")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints"""

    every: int = 0
    """steps between checkpoints; 0 for one at the end only"""
    keep: int = 3
    """newest checkpoints that stay"""
    on_failure: OnFailure = "stop"
    """what to do when the disk is full or otherwise fails: stop, or train on and try again at the next checkpoint"""

    def __post_init__(self) -> None:
        _at_least(self, "checkpoint", 0, "every")
        _at_least(self, "checkpoint", 1, "keep")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Logging"""

    tensorboard: bool = False
    """write what metrics.jsonl and timings.jsonl get as TensorBoard's events too, in run_dir/tensorboard"""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices; the product of the three is their number, and -1 stands for what the others leave"""

    data: int = -1
    """parts of a batch's rows; each part's devices hold the whole model between them"""
    fsdp: int = 1
    """parts of a batch's rows, and of parameters and optimiser state; must divide model.hidden_size"""
    tensor: int = 1
    """parts of heads, feed-forward layers and vocabulary; must divide model.num_heads and model.intermediate_size"""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            _require(
                value == -1 or 1 <= value < 2**31,
                f"mesh.{name}={value} is impossible; give 1 or more devices, or -1 for what is left",
            )
        left = [f"mesh.{name}" for name, value in dataclasses.asdict(self).items() if value == -1]
        _require(len(left) < 2, f"{' and '.join(left)} are all -1; give a number to all but one of them")


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Several processes; on SLURM, Open MPI and Cloud TPU they are found without this"""

    coordinator: str | None = None
    """HOST:PORT of process 0, as the others reach it"""
    num_processes: int | None = None
    """processes of the run"""
    process_id: int | None = None
    """this one's number, from 0"""
    bind_address: str | None = None
    """address that process 0 listens on, where it is not the coordinator's HOST"""
    timeout: float = 300.0
    """seconds in which all have to come, and process 0 to prepare the corpus"""

    def __post_init__(self) -> None:
        given = [getattr(self, name) is not None for name in ("coordinator", "num_processes", "process_id")]
        _require(
            all(given) or not any(given),
            "distributed.coordinator, distributed.num_processes and distributed.process_id belong together; "
            "give all of them or none",
        )
        _require(
            1 <= self.timeout < 2**31, f"distributed.timeout={self.timeout} is impossible; give 1 or more, below 2**31"
        )
        if self.coordinator is None or self.num_processes is None or self.process_id is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        _require(
            bool(host.strip("[]")) and port.isdecimal() and 0 < int(port) < 2**16,
            f"distributed.coordinator={self.coordinator} is not an address; give HOST:PORT, such as 127.0.0.1:8476",
        )
        _at_least(self, "distributed", 1, "num_processes")
        _require(
            0 <= self.process_id < self.num_processes,
            f"distributed.process_id={self.process_id} is not one of distributed.num_processes={self.num_processes}; "
            f"give 0 to {self.num_processes - 1}",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """Run"""

    run_dir: str = "runs/bert"
    """folder that is made for everything the run writes"""
    seed: int = 0
    """of the weights, the pairs, the masks and the dropout"""
    init_from: str | None = None
    """folder of a run or of a Hugging Face BERT that the run starts from: weights, vocabulary and the model section are
    its, but for model.dropout; a head that it lacks is fresh, and so is the optimiser"""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    model: BertConfig = dataclasses.field(default_factory=BertConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)

    def __post_init__(self) -> None:
        _require(bool(self.run_dir.strip()), "run_dir is empty; give the name of a folder to make")
        _require(0 <= self.seed < 2**32, f"seed={self.seed} is not a seed; give 0 or more, below 2**32")
        _require(
            self.init_from is None or self.tokenizer.path is None,
            f"tokenizer.path={self.tokenizer.path} has no effect with init_from={self.init_from}, which brings its "
            "vocabulary; leave one of them out",
        )
        for name in ("frequency_bias", "cooccurrence_embedding"):
            _require(
                self.init_from is None or not getattr(self.model, name),
                f"model.{name}=true has no effect with init_from={self.init_from}, which brings its weights; "
                "leave one of them out",
            )
        _require(
            self.data.max_length <= self.model.max_position,
            f"data.max_length={self.data.max_length} is above model.max_position={self.model.max_position}; "
            "shorten the pairs or give the model more positions",
        )
        _require(
            self.eval.max_length is None or self.eval.max_length <= self.data.max_length,
            f"eval.max_length={self.eval.max_length} is above data.max_length={self.data.max_length}; "
            "hold out no longer sequences than are learned from",
        )
        _require(
            self.optim.warmup_steps <= self.train.steps,
            f"optim.warmup_steps={self.optim.warmup_steps} is above train.steps={self.train.steps}; "
            "warm up for fewer steps or train longer",
        )
        if self.train.budget is not None:
            budget = f"train.budget={self.train.budget}"
            _require(
                self.optim.schedule == "wsd" and self.optim.decay_share < 1,
                f"{budget} needs a learning rate that may stay until its fall is due, and has optim.schedule="
                f"{self.optim.schedule}, optim.decay_share={self.optim.decay_share}; give wsd, and a share below 1",
            )
            _require(
                self.data.mlm_probability_end is None,
                f"data.mlm_probability_end={self.data.mlm_probability_end} is that of a last step that {budget} does "
                "not tell beforehand; leave one of them out",
            )

    @property
    def held_out_data(self) -> DataConfig:
        """How held-out sequences are made: as those to learn from, but for what the eval section says."""
        of_eval = {name: getattr(self.eval, name) for name in ("mlm_probability", "max_length", "too_long")}
        given = {name: value for name, value in of_eval.items() if value is not None}
        return dataclasses.replace(self.data, mlm_probability_end=None, **given)

    def mesh_sizes(self, devices: int) -> tuple[int, int, int]:
        """Sizes of data, fsdp and tensor over so many devices.

        Raises:
          BertjaxError: they do not suit the devices or the model.
        """
        sizes = dataclasses.asdict(self.mesh)
        known = math.prod(size for size in sizes.values() if size != -1)
        sizes = {name: max(1, devices // known) if size == -1 else size for name, size in sizes.items()}
        given = " x ".join(f"mesh.{name}={size}" for name, size in sizes.items())
        _require(
            math.prod(sizes.values()) == devices,
            f"{given} is a mesh of {math.prod(sizes.values())} devices, and there are {devices}; "
            f"give sizes whose product is {devices}, or -1 to one of them",
        )
        for axis, name in (("fsdp", "hidden_size"), ("tensor", "num_heads"), ("tensor", "intermediate_size")):
            _require(
                getattr(self.model, name) % sizes[axis] == 0,
                f"model.{name}={getattr(self.model, name)} is not divisible by mesh.{axis}={sizes[axis]}; "
                "change one of them",
            )
        return sizes["data"], sizes["fsdp"], sizes["tensor"]
