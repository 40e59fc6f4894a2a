"""The whole configuration of a run, and the checks that concern several sections."""

import dataclasses
from typing import Literal

from bertjax.config.checks import expand_homes, require, require_layers, require_types
from bertjax.config.data import DataConfig, TokenizerConfig
from bertjax.config.distill import DistillConfig
from bertjax.config.lora import LoraConfig
from bertjax.config.model import BertConfig
from bertjax.config.optim import OptimConfig
from bertjax.config.parallel import DistributedConfig, MeshConfig
from bertjax.config.task import TaskConfig
from bertjax.config.train import CheckpointConfig, EvalConfig, LoggingConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Run"""

    run_dir: str = "runs/bert"
    """folder to create for everything that the run writes"""
    seed: int = 0
    """seed of weights, sequences, masks and dropout"""
    init_from: str | None = None
    """folder of a run or of a Hugging Face BERT to start from, or ORG/NAME@REVISION on the hub: its weights, its
    vocabulary and its model section are used, whatever a recipe says of them (except model.dropout and
    model.attention); a head that it lacks starts fresh, and so does the optimiser"""
    init_layers: tuple[int, ...] | None = None
    """numbers, from 0 on, of the encoder layers of init_from that the run starts from, such as [0, 2, 4], in their
    order; by default all"""
    init_positions: Literal["tiled", "interpolated"] = "tiled"
    """where a model.max_position is typed above that of init_from, which learned positions the longer texts get: those
    there over and over (as in Longformer), or values between them, spread over the new length; rotary ones need none"""
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    model: BertConfig = dataclasses.field(default_factory=BertConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    distill: DistillConfig = dataclasses.field(default_factory=DistillConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)

    def __post_init__(self) -> None:
        require_types(self)
        expand_homes(self, "run_dir", "init_from")
        require(bool(self.run_dir.strip()), "run_dir is empty; give the name of a folder to make")
        require(0 <= self.seed < 2**32, f"seed={self.seed} is not a seed; give 0 or more, below 2**32")
        require(
            self.init_from is None or self.tokenizer.path is None,
            f"tokenizer.path={self.tokenizer.path} has no effect with init_from={self.init_from}, which brings its "
            "vocabulary; leave one of them out",
        )
        self._check_init()
        require(
            self.tokenizer.add is None or self.task.kind == "pretrain",
            f"tokenizer.add={self.tokenizer.add} is of pretraining; pretrain with it, and fine-tune that run",
        )
        self._check_distill()
        require(
            self.tokenizer.add is None or bool(self.init_from or self.tokenizer.path),
            f"tokenizer.add={self.tokenizer.add} adds to a vocabulary that is read; give init_from or tokenizer.path, "
            "or leave it out",
        )
        require(
            self.train.epochs is None or self.task.kind != "pretrain",
            f"train.epochs={self.train.epochs} is of labelled examples, as 'bertjax finetune' learns from; "
            "give train.steps to pretrain",
        )
        require(
            self.lora.rank is None or not self.task.reinit_layers,
            f"task.reinit_layers={self.task.reinit_layers} starts layers anew that lora.rank={self.lora.rank} leaves "
            "as they are; leave one of them out",
        )
        require(
            self.eval.best is None or self.eval.every > 0 or self.task.kind != "pretrain",
            f"eval.best={self.eval.best} has one evaluation to choose from; give eval.every",
        )
        if self.init_from is None:  # which brings its own model
            self.check_model()
        require(
            self.eval.max_length is None or self.eval.max_length <= self.data.max_length,
            f"eval.max_length={self.eval.max_length} is above data.max_length={self.data.max_length}; "
            "hold out no longer sequences than are learned from",
        )
        require(
            self.optim.warmup_steps <= self.train.steps,
            f"optim.warmup_steps={self.optim.warmup_steps} is above train.steps={self.train.steps}; "
            "warm up for fewer steps or train longer",
        )
        if self.train.budget is not None:
            budget = f"train.budget={self.train.budget}"
            require(
                self.optim.schedule == "wsd" and self.optim.decay_share < 1,
                f"{budget} needs a learning rate that may stay until its fall is due, and has optim.schedule="
                f"{self.optim.schedule}, optim.decay_share={self.optim.decay_share}; give wsd, and a share below 1",
            )
            require(
                self.data.mlm_probability_end is None,
                f"data.mlm_probability_end={self.data.mlm_probability_end} is that of a last step that {budget} does "
                "not tell beforehand; leave one of them out",
            )

    def _check_init(self) -> None:
        require(
            self.init_from is not None or self.init_positions == "tiled",
            f"init_positions={self.init_positions} is of positions of init_from, and there is none; leave it out",
        )
        if (layers := self.init_layers) is None:
            return
        given = f"init_layers={list(layers)}"
        require(
            self.init_from is not None, f"{given} are layers of init_from, and there is none; give it, or no layers"
        )
        require_layers("init_layers", layers)

    def _check_distill(self) -> None:
        given = f"distill.teacher={self.distill.teacher}"
        require(
            self.distill.teacher is None or self.task.kind == "pretrain",
            f"{given} teaches in pretraining; pretrain with it, and fine-tune that run",
        )
        require(
            self.distill.teacher is None or self.tokenizer.add is None,
            f"tokenizer.add={self.tokenizer.add} adds words that {given} does not know; leave one of them out",
        )

    def check_model(self) -> None:
        """Raises BertjaxError where sequences are longer than the model's positions, or layers asked for lack."""
        whose = f" of {self.init_from}" if self.init_from else ""
        typed = ", by --model.max_position" if self.init_from else ""
        require(
            self.data.max_length <= self.model.max_position,
            f"data.max_length={self.data.max_length} is above model.max_position={self.model.max_position}{whose}; "
            f"shorten the pairs or give the model more positions{typed}",
        )
        of_layers = {"optim.freeze_layers": self.optim.freeze_layers, "task.reinit_layers": self.task.reinit_layers}
        most, given = self.model.num_blocks, f"model.num_layers={self.model.num_layers}{whose}"
        given = f"1 ({given}, which share their parameters)" if self.model.share_layers else given
        for key, layers in of_layers.items():
            require(layers is None or layers <= most, f"{key}={layers} is above {given}; give as many at most")
        taught = self.distill.layers or (0,)
        require(
            taught[-1] < self.model.num_layers,
            f"distill.layers={list(taught)}: model.num_layers={self.model.num_layers}{whose}, whose layers are 0 to "
            f"{self.model.num_layers - 1}; give some of these",
        )
        fresh, frozen = self.task.reinit_layers, self.optim.freeze_layers or 0
        require(
            fresh + frozen <= most,
            f"task.reinit_layers={fresh} and optim.freeze_layers={frozen} of {given} have a layer that starts anew and "
            "never learns; give less of one of them",
        )

    def with_epochs(self, steps_in_epoch: int) -> "Config":
        """Returns the configuration with the steps that its epochs come to, of training and between evaluations."""
        config = self
        if self.train.epochs is not None:
            steps = max(1, round(self.train.epochs * steps_in_epoch))
            config = dataclasses.replace(config, train=dataclasses.replace(self.train, steps=steps))
        if self.eval.best is not None and not self.eval.every:
            config = dataclasses.replace(config, eval=dataclasses.replace(self.eval, every=steps_in_epoch))
        return config

    @property
    def split_seed(self) -> int:
        """Seed of the choice of the examples that are held out from those of training."""
        return self.seed if self.task.split_seed is None else self.task.split_seed

    @property
    def held_out_data(self) -> DataConfig:
        """Data section for held-out sequences: that of training, with what the eval section gives in its place."""
        of_eval = {name: getattr(self.eval, name) for name in ("mlm_probability", "max_length", "too_long")}
        given = {name: value for name, value in of_eval.items() if value is not None}
        return dataclasses.replace(self.data, mlm_probability_end=None, **given)

    def mesh_sizes(self, devices: int) -> tuple[int, int, int]:
        """Returns the sizes of the mesh's axes data, fsdp and tensor; see `MeshConfig.sizes`."""
        return self.mesh.sizes(devices, self.model)
