"""Fine-tuning by transformers' Trainer, and what its pipeline tells; neither is part of the default install."""

import contextlib
import csv
import tempfile
import time
from typing import Any

import numpy as np
import torch
import transformers

from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.storage.cores import num_cores

_ROWS = 32  # texts that the pipeline takes at once


def finetune(
    *, config: str, texts: str, grouped: bool, bf16: bool, steps: int = -1, seed: int | None = None
) -> dict[str, Any]:
    """Times Trainer as its documentation shows it, in the recipe's setting, then the labels of texts by pipeline.

    Args:
      texts: examples whose labels are told.
      grouped: whether the texts of a batch are of like length.
      bf16: whether products are in bfloat16, by autocast.
      steps: by default all of the recipe's epochs.
      seed: in place of the recipe's.
    """
    torch.set_num_threads(num_cores())
    recipe = load_config(config)
    task, seed = recipe.task, recipe.seed if seed is None else seed
    assert recipe.init_from is not None and task.train is not None
    rows, told = _rows(recipe, task.train), _rows(recipe, texts)
    # Of a task of numbers there is one output, and labels are numbers.
    names = None if recipe.task.kind == "score" else sorted({label for _, label in rows})
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(recipe.init_from)
    net = transformers.AutoModelForSequenceClassification.from_pretrained(
        recipe.init_from,
        **({"num_labels": 1} if names is None else {"num_labels": len(names), "id2label": dict(enumerate(names))}),
        dtype=torch.float32,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=net,
            args=_arguments(recipe, folder, grouped=grouped, bf16=bf16, steps=steps, seed=seed),
            train_dataset=_read(rows, names, tokenizer, recipe.data.max_length),
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        start = time.perf_counter()
        made = trainer.train().global_step
        trained = time.perf_counter() - start
    pipe = transformers.pipeline("text-classification", model=net.eval(), tokenizer=tokenizer, batch_size=_ROWS)
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
        how = {"truncation": True, "max_length": recipe.data.max_length}
        guesses = pipe([text for text, _ in told], **how, **({"function_to_apply": "none"} if names is None else {}))
    of_labels = time.perf_counter() - start
    size = recipe.train.batch_size
    epochs, batches = divmod(made, -(-len(rows) // size))
    return {
        "examples_per_second": (epochs * len(rows) + batches * size) / trained,
        "texts_per_second": len(told) / of_labels,
        "seconds": trained,
        **_figure(guesses, [label for _, label in told], numbers=names is None),
    }


def _figure(guesses: list[dict[str, Any]], labels: list[str], *, numbers: bool) -> dict[str, float]:
    if numbers:
        told = [[guess["score"] for guess in guesses], [float(label) for label in labels]]
        return {"Pearson": float(np.corrcoef(told)[0, 1])}
    return {"accuracy": float(np.mean([guess["label"] == label for guess, label in zip(guesses, labels, strict=True)]))}


def _rows(config: Config, path: str) -> list[tuple[str, str]]:
    """Returns the texts of a CSV file, each with its label."""
    with open(path, newline="", encoding="utf-8") as file:
        return [(row[config.task.text], row[config.task.label]) for row in csv.DictReader(file)]


def _read(
    rows: list[tuple[str, str]], names: list[str] | None, tokenizer: Any, max_length: int
) -> list[dict[str, Any]]:
    labels = [float(label) if names is None else names.index(label) for _, label in rows]
    return [
        {**tokenizer(text, truncation=True, max_length=max_length), "label": label}
        for (text, _), label in zip(rows, labels, strict=True)
    ]


def _arguments(config: Config, folder: str, *, grouped: bool, bf16: bool, steps: int, seed: int) -> Any:
    optim, train = config.optim, config.train
    return transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=train.batch_size,
        num_train_epochs=train.epochs or 1,
        max_steps=steps,
        learning_rate=optim.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=optim.warmup_share or optim.warmup_steps,  # below 1 it is a share
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.clip_norm or 0.0,
        seed=seed,
        bf16=bf16,
        use_cpu=True,
        train_sampling_strategy="group_by_length" if grouped else "random",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
