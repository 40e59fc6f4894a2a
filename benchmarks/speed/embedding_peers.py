"""Embeddings by sentence-transformers' trainer, which is no part of the default install."""

import tempfile
import time
from typing import Any

import datasets
import sentence_transformers as st
import torch
import transformers

from bertjax.config.recipes import load_config
from bertjax.data.tuples import read_tuples
from bertjax.storage.cores import num_cores


class _Clock(transformers.TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **more: Any) -> None:
        self.ends.append(time.perf_counter())


def embed(*, config: str, bf16: bool, steps: int) -> dict[str, Any]:
    """Times the trainer's steps as its documentation shows it, with in-batch negatives, the first one left out.

    Args:
      bf16: whether products are in bfloat16, by autocast.
    """
    torch.set_num_threads(num_cores())
    recipe = load_config(config)
    assert recipe.init_from is not None and recipe.task.train is not None
    rows = read_tuples(recipe.task, recipe.task.train, "task.train")
    model = st.SentenceTransformer(recipe.init_from, device="cpu")
    model.max_seq_length = recipe.data.max_length
    columns = {name: [row.texts[number] for row in rows] for number, name in enumerate(("anchor", "positive"))}
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = st.SentenceTransformerTrainer(
            model=model,
            args=st.SentenceTransformerTrainingArguments(
                folder,
                per_device_train_batch_size=recipe.train.batch_size,
                max_steps=1 + steps,
                learning_rate=recipe.optim.learning_rate,
                lr_scheduler_type="linear",
                warmup_steps=recipe.optim.warmup_share or recipe.optim.warmup_steps,  # below 1 it is a share
                weight_decay=recipe.optim.weight_decay,
                max_grad_norm=recipe.optim.clip_norm or 0.0,
                seed=recipe.seed,
                bf16=bf16,
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            # `from_dict` would make a fingerprint of the table, and not every pyarrow's can be pickled for one.
            train_dataset=datasets.Dataset(datasets.table.InMemoryTable.from_pydict(columns), fingerprint="pairs"),
            loss=st.sentence_transformer.losses.MultipleNegativesRankingLoss(model, scale=1 / recipe.task.temperature),
            callbacks=[clock],
        )
        trainer.train()
    seconds = clock.ends[-1] - clock.ends[0]
    return {"pairs_per_second": recipe.train.batch_size * (len(clock.ends) - 1) / seconds}
