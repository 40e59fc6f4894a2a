"""The model card of an exported folder."""

import dataclasses
import json
from typing import Any

from bertjax.config import Config
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.task_head import TaskHead
from bertjax.runs.metrics import figures
from bertjax.storage.hub_models import public_name

_SHOWN = 50  # labels that a card names
_PRIVATE = {"path", "eval_path", "cache"}  # settings of the data that name places on a machine


def make_task_card(
    run: Config,
    head: TaskHead,
    environment: dict[str, Any],
    held_out: dict[str, float],
    tokenizer: Tokenizer,
    *,
    steps: int,
) -> str:
    """Returns the text of README.md of a fine-tuned model; arguments and errors are those of `make_card`.

    Args:
      head: what the model tells.
    """
    examples = environment["corpus"]["train"]
    recipe = _recipe(run)
    recipe["task"] = {key: value for key, value in dataclasses.asdict(run.task).items() if key not in ("train", "eval")}
    heads = {key[9:-5]: key[9:-5] for key in held_out if key.startswith("held_out_") and key.endswith("_loss")}
    evaluation = "It was not evaluated."
    if held_out:
        told = "; ".join(of_head.described() for of_head in figures(held_out, heads, prefix="held_out_"))
        name = environment["corpus"]["held_out"]["name"]
        evaluation = f"Held out, {name} at step {held_out['step']:,}: {told}."
    names = head.targets.names if isinstance(head.targets, Labels) else ()
    what = f"one of {len(names):,} labels" if names else "a number"
    if head.kind == "classify" and isinstance(head.targets, Labels) and head.targets.several:
        what = f"some of {len(names):,} labels"
    of = "of a text" if run.task.pair is None else "of a pair of texts"
    what = {"tag": f"{what} of each word", "answer": "where in a text the answer to a question stands"}.get(
        head.kind, f"{what} {of}"
    )
    files = {"tag": ("sentences.conll", "tagged.conll"), "answer": ("questions.json", "answers.json")}
    source, out = files.get(head.kind, ("texts.csv", "predictions.csv"))
    model = "A BERT" if run.init_from is None else _start(run)
    return _TASK_CARD.format(
        pipeline=head.pipeline,
        what=what,
        model=model,
        examples=examples["name"],
        count=examples["examples"],
        steps=steps,
        batch_size=run.train.batch_size,
        evaluation=evaluation,
        labels=f" The labels: {', '.join(names)}." if 0 < len(names) <= _SHOWN else "",
        use=_USE[head.kind],
        files=f"--input {source} --out {out}",
        versions=", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        recipe=json.dumps(recipe, indent=2),
    )


def make_card(
    run: Config, environment: dict[str, Any], held_out: dict[str, float], tokenizer: Tokenizer, *, steps: int
) -> str:
    """Returns the text of README.md: what was trained, on what, how well, and how to load it.

    Args:
      run: its configuration.
      environment: the content of its environment.json.
      held_out: a line of metrics.jsonl with held-out figures, or an empty one.
      steps: those that led to what is exported.

    Raises:
      ValueError, KeyError, TypeError, AttributeError: the environment is not what a run writes.
    """
    corpus, model, recipe = environment["corpus"], run.model, _recipe(run)
    begun = f" It began with the weights of {_start(run)}." if run.init_from else ""
    evaluation = "It was not evaluated."
    if held_out:
        of_heads = figures(held_out, run.data.heads, prefix="held_out_")
        heads = "; ".join(head.described() for head in of_heads)
        evaluation = f"Held out, {corpus['held_out']['name']} at step {held_out['step']:,}: {heads}."
    return _CARD.format(
        **dataclasses.asdict(model) | {"vocab_size": tokenizer.vocab_size},
        text=corpus["train"]["name"],
        tokens=corpus["train"]["tokens"],
        steps=steps,
        batch_size=run.train.batch_size,
        begun=begun,
        sequences="sequences" if run.data.objective == "mlm" else "pairs of sentences",
        evaluation=evaluation,
        mask=tokenizer.rules.special[-1],
        versions=", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        recipe=json.dumps(recipe, indent=2),
    )


def make_embedding_card(
    run: Config, environment: dict[str, Any], held_out: dict[str, float], tokenizer: Tokenizer, *, steps: int
) -> str:
    """Returns the text of README.md for a run that learned embeddings, of the arguments that `make_card` takes."""
    corpus, task = environment["corpus"], run.task
    evaluation = "It was not evaluated."
    if held_out:
        name, step, loss = corpus["held_out"]["name"], held_out["step"], held_out["held_out_contrastive_loss"]
        evaluation = f"Held out, {name} at step {step:,}: contrastive loss {loss:.3f}."
    learned = {
        "pairs with scores, whose order the cosines follow (CoSENT)": task.loss == "cosent",
        "texts alone, each its own positive (SimCSE)": task.pair is None,
    }
    recipe = _recipe(run)
    recipe["task"] = {key: value for key, value in dataclasses.asdict(task).items() if key not in ("train", "eval")}
    return _EMBEDDING_CARD.format(
        **dataclasses.asdict(run.model) | {"vocab_size": tokenizer.vocab_size},
        begun=_start(run),
        text=corpus["train"]["name"],
        examples=corpus["train"]["examples"],
        learned=next((name for name, is_it in learned.items() if is_it), "texts that belong together, against others"),
        steps=steps,
        batch_size=run.train.batch_size,
        sizes=f" The first {', '.join(map(str, task.matryoshka))} numbers do alone too." if task.matryoshka else "",
        evaluation=evaluation,
        versions=", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        recipe=json.dumps(recipe, indent=2),
    )


def _start(run: Config) -> str:
    """Names what a run started from, and the layers of it where they are not all."""
    layers = "" if run.init_layers is None else f" (of its layers {', '.join(map(str, run.init_layers))})"
    return f"`{public_name(run.init_from or '')}`{layers}"


def _recipe(run: Config) -> dict[str, Any]:
    """Returns what others may read of a configuration."""
    recipe = dataclasses.asdict(run)
    data = {key: value for key, value in recipe["data"].items() if key not in _PRIVATE}
    del recipe["tokenizer"]["path"], recipe["tokenizer"]["add"]
    return {"seed": run.seed, "data": data} | {part: recipe[part] for part in ("tokenizer", "model", "optim", "train")}


_EMBEDDING_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [bert, sentence-transformers]
---

# Vectors of texts, learned with bertjax

{num_layers} layers, {hidden_size} hidden, {num_heads} heads, {vocab_size:,} tokens in the vocabulary. It began with the
weights of {begun}, and learned from {text}: {examples:,} examples, {learned}, for {steps:,} steps of {batch_size:,}.
{sizes}

{evaluation}

```python
from sentence_transformers import SentenceTransformer

SentenceTransformer("FOLDER").encode(["a crane is flying", "a bird in the air"])
```

`bertjax.Encoder.load("FOLDER").encode([...])` gives the same with JAX.

Versions: {versions}.

```json
{recipe}
```
"""


_CARD = """\
---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, sentence-transformers]
---

# A BERT pretrained with bertjax

{num_layers} layers, {hidden_size} hidden, {num_heads} heads, {vocab_size:,} tokens in the vocabulary. Trained on {text}
({tokens:,} tokens) for {steps:,} steps of {batch_size:,} {sequences}.{begun}

{evaluation}

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer, model = (kind.from_pretrained("FOLDER") for kind in (AutoTokenizer, AutoModelForMaskedLM))
model(**tokenizer("the {mask} sat", return_tensors="pt")).logits
```

`sentence_transformers.SentenceTransformer("FOLDER")` gives one vector a text, the mean over its tokens, and
`bertjax.Encoder.load("FOLDER")` the same with JAX.

Versions: {versions}.

```json
{recipe}
```
"""

_USE = {
    "classify": """\
from transformers import pipeline

pipeline("text-classification", "FOLDER")("a text")""",
    "tag": """\
from transformers import pipeline

pipeline("token-classification", "FOLDER", aggregation_strategy="simple")("a text")""",
    "answer": """\
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer, model = (kind.from_pretrained("FOLDER") for kind in (AutoTokenizer, AutoModelForQuestionAnswering))
read = tokenizer("a question", "a context", return_tensors="pt")
told = model(**read)
tokenizer.decode(read["input_ids"][0, told.start_logits.argmax() : told.end_logits.argmax() + 1])""",
    "score": """\
from sentence_transformers import CrossEncoder

CrossEncoder("FOLDER").predict([("a text", "another")])""",
    "rerank": """\
from sentence_transformers import CrossEncoder

CrossEncoder("FOLDER").rank("a query", ["a passage", "another"])""",
}

_TASK_CARD = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags: [bert]
---

# A model fine-tuned with bertjax

It tells {what}.{labels} {model} was trained further on {examples} ({count:,} examples) for {steps:,} steps of
{batch_size:,}.

{evaluation}

```python
{use}
```

`bertjax predict FOLDER {files}` does the same with JAX.

Versions: {versions}.

```json
{recipe}
```
"""
