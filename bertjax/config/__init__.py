"""What a run is made of, as frozen dataclasses."""

from bertjax.config.config import HEADS as HEADS
from bertjax.config.config import BertConfig as BertConfig
from bertjax.config.config import CheckpointConfig as CheckpointConfig
from bertjax.config.config import Config as Config
from bertjax.config.config import DataConfig as DataConfig
from bertjax.config.config import DistributedConfig as DistributedConfig
from bertjax.config.config import EvalConfig as EvalConfig
from bertjax.config.config import LoggingConfig as LoggingConfig
from bertjax.config.config import MeshConfig as MeshConfig
from bertjax.config.config import Objective as Objective
from bertjax.config.config import OnFailure as OnFailure
from bertjax.config.config import OptimConfig as OptimConfig
from bertjax.config.config import Source as Source
from bertjax.config.config import Split as Split
from bertjax.config.config import TokenizerConfig as TokenizerConfig
from bertjax.config.config import TrainConfig as TrainConfig
