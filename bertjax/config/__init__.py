"""Configuration of a run as frozen dataclasses, one file a section; recipes are its YAML form."""

from bertjax.config.config import Config as Config
from bertjax.config.data import HEADS as HEADS
from bertjax.config.data import DataConfig as DataConfig
from bertjax.config.data import Objective as Objective
from bertjax.config.data import Source as Source
from bertjax.config.data import Split as Split
from bertjax.config.data import TokenizerConfig as TokenizerConfig
from bertjax.config.distill import DistillConfig as DistillConfig
from bertjax.config.lora import LoraConfig as LoraConfig
from bertjax.config.model import BertConfig as BertConfig
from bertjax.config.optim import OptimConfig as OptimConfig
from bertjax.config.parallel import DistributedConfig as DistributedConfig
from bertjax.config.parallel import MeshConfig as MeshConfig
from bertjax.config.task import TaskConfig as TaskConfig
from bertjax.config.train import CheckpointConfig as CheckpointConfig
from bertjax.config.train import EvalConfig as EvalConfig
from bertjax.config.train import LoggingConfig as LoggingConfig
from bertjax.config.train import OnFailure as OnFailure
from bertjax.config.train import TrainConfig as TrainConfig
