"""Pretraining in PyTorch: the textbook's model and loop, and transformers'. Neither is part of the default install."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from bertjax.config import BertConfig
from bertjax.config.recipes import load_config
from bertjax.data.batching.batch import Batch
from bertjax.data.prepare import prepare
from bertjax.hub.bert import ACTIVATIONS
from bertjax.models.operations import training_figures

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def train(*, config: str, model: str, bf16: bool, warm: int, steps: int, patience: float) -> dict[str, Any]:
    """Times steps on the pairs that ours trains on, made beforehand, so that data costs nothing here.

    Args:
      model: "textbook" or "transformers".
      patience: seconds after which no further step is begun.
    """
    recipe = load_config(config)
    batches = prepare(recipe).train_batches
    made = [batches.batch_at(step) for step in range(warm + steps)]
    torch.manual_seed(recipe.seed)
    net, step_loss = {"textbook": _textbook, "transformers": _transformers}[model](recipe.model)
    net.to(DEVICE).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.optim.learning_rate)
    seconds: list[float] = []
    for batch in made:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = step_loss(net, batch)
        loss.backward()
        optimizer.step()
        loss.item()  # both loops add up their losses on the host
        seconds.append(time.perf_counter() - start)
        if sum(seconds[warm:]) > patience:
            break
    return training_figures(recipe.model, made[warm:], seconds[warm:])


StepLoss = Callable[[nn.Module, Batch], Tensor]


def _on_device(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(DEVICE, torch.int64 if array.dtype == np.int32 else None)


def _transformers(config: BertConfig) -> tuple[nn.Module, StepLoss]:
    net = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position,
            hidden_act=ACTIVATIONS[config.hidden_act],
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            layer_norm_eps=config.layer_norm_eps,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        return net(
            input_ids=_on_device(batch.tokens_bt),
            token_type_ids=_on_device(batch.segments_bt),
            attention_mask=_on_device((batch.sequences_bt > 0).astype(np.int32)),
            labels=_on_device(labels_everywhere(batch)),
            next_sentence_label=_on_device(1 - batch.nsp_labels_bk[:, 0]),  # there 0 is "is next"
        ).loss

    return net, loss


def labels_everywhere(batch: Batch) -> np.ndarray:
    """Returns MLM labels as transformers has them: int32 [b, t], -100 where there is nothing to predict."""
    labels_bt = np.full(batch.tokens_bt.shape, -100, np.int32)
    rows, slots = np.nonzero(batch.mlm_weights_bp)
    labels_bt[rows, batch.mlm_positions_bp[rows, slots]] = batch.mlm_labels_bp[rows, slots]
    return labels_bt


def _textbook(config: BertConfig) -> tuple[nn.Module, StepLoss]:
    assert config.vocab_size is not None

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        lengths_b = _on_device((batch.sequences_bt > 0).sum(axis=1))
        mlm_logits, nsp_logits = net(
            _on_device(batch.tokens_bt), _on_device(batch.segments_bt), lengths_b, _on_device(batch.mlm_positions_bp)
        )
        # The criterion averages over all slots before the weights come in, so that the empty ones count.
        weights = _on_device(batch.mlm_weights_bp).reshape(-1, 1)
        labels = _on_device(batch.mlm_labels_bp).reshape(-1)
        weighted = functional.cross_entropy(mlm_logits.reshape(-1, mlm_logits.shape[-1]), labels) * weights
        mlm = weighted.sum() / (weights.sum() + 1e-8)
        return mlm + functional.cross_entropy(nsp_logits, _on_device(batch.nsp_labels_bk[:, 0]))

    return TextbookBert(config, config.vocab_size), loss


class TextbookBert(nn.Module):
    """The model of "Dive into Deep Learning", sections 15.8 and 15.10, written anew from its description."""

    def __init__(self, config: BertConfig, vocab_size: int):
        super().__init__()
        hidden = config.hidden_size
        self.tokens = nn.Embedding(vocab_size, hidden)
        self.segments = nn.Embedding(2, hidden)
        self.positions = nn.Parameter(torch.randn(1, config.max_position, hidden))
        self.blocks = nn.ModuleList(TextbookBlock(config) for _ in range(config.num_layers))
        self.mlm = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.LayerNorm(hidden), nn.Linear(hidden, vocab_size)
        )
        self.pooler = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())
        self.nsp = nn.Linear(hidden, 2)

    def forward(self, tokens: Tensor, segments: Tensor, lengths: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and segments [b, t], lengths [b], predicted positions [b, p] -> logits [b, p, v] and [b, 2]."""
        x = self.tokens(tokens) + self.segments(segments)
        x = x + self.positions[:, : x.shape[1]]
        for block in self.blocks:
            x = block(x, lengths)
        rows = torch.arange(len(x), device=x.device).repeat_interleave(predictions.shape[1])
        at_predictions = x[rows, predictions.reshape(-1)].reshape(*predictions.shape, -1)
        return self.mlm(at_predictions), self.nsp(self.pooler(x[:, 0]))


class TextbookBlock(nn.Module):
    """Attention and feed-forward, each followed by dropout, residual and layer norm."""

    def __init__(self, config: BertConfig):
        super().__init__()
        hidden, self.num_heads = config.hidden_size, config.num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.attention_norm, self.ffn_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.ffn = nn.Sequential(
            nn.Linear(hidden, config.intermediate_size), nn.ReLU(), nn.Linear(config.intermediate_size, hidden)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.attention_norm(self.dropout(self.attend(x, lengths)) + x)
        return self.ffn_norm(self.dropout(self.ffn(x)) + x)

    def attend(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Attends with heads as rows, and a large negative number as the scores of padding."""
        b, t, d = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.reshape(b, t, self.num_heads, -1).permute(0, 2, 1, 3).reshape(b * self.num_heads, t, -1)

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        scores = torch.bmm(query, key.transpose(1, 2)) / query.shape[-1] ** 0.5
        padding = torch.arange(t, device=x.device) >= lengths.repeat_interleave(self.num_heads)[:, None, None]
        weights = functional.softmax(scores.masked_fill(padding, -1e6), dim=-1)
        mixed = torch.bmm(self.dropout(weights), value)
        return self.out(mixed.reshape(b, self.num_heads, t, -1).permute(0, 2, 1, 3).reshape(b, t, d))
