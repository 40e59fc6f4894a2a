"""The model card of an exported folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bertjax.config import Config
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.runs.metrics import figures

_PRIVATE = {"path", "eval_path", "cache"}  # settings of the data that name places on a machine


def make_card(run: Config, environment: dict[str, Any], held_out: dict[str, float], tokenizer: Tokenizer) -> str:
    """Returns the text of README.md: what was trained, on what, how well, and how to load it.

    Args:
      run: its configuration, with as many steps as were made.
      environment: the content of its environment.json.
      held_out: a line of metrics.jsonl with held-out figures, or an empty one.

    Raises:
      ValueError, KeyError, TypeError, AttributeError: the environment is not what a run writes.
    """
    corpus, model, recipe = environment["corpus"], run.model, _recipe(run)
    begun = f" It began with the weights of `{Path(run.init_from).name}`." if run.init_from else ""
    evaluation = "It was not evaluated."
    if held_out:
        of_heads = figures(held_out, run.data.heads, prefix="held_out_")
        heads = "; ".join(head.described() for head in of_heads)
        evaluation = f"Held out, {corpus['held_out']['name']} at step {held_out['step']:,}: {heads}."
    return _CARD.format(
        **dataclasses.asdict(model) | {"vocab_size": tokenizer.vocab_size},
        text=corpus["train"]["name"],
        tokens=corpus["train"]["tokens"],
        steps=run.train.steps,
        batch_size=run.train.batch_size,
        begun=begun,
        sequences="sequences" if run.data.objective == "mlm" else "pairs of sentences",
        evaluation=evaluation,
        mask=tokenizer.rules.special[-1],
        versions=", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        recipe=json.dumps(recipe, indent=2),
    )


def make_embedding_card(
    run: Config, environment: dict[str, Any], held_out: dict[str, float], tokenizer: Tokenizer
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
        begun=Path(run.init_from or "").name,
        text=corpus["train"]["name"],
        examples=corpus["train"]["examples"],
        learned=next((name for name, is_it in learned.items() if is_it), "texts that belong together, against others"),
        steps=run.train.steps,
        batch_size=run.train.batch_size,
        sizes=f" The first {', '.join(map(str, task.matryoshka))} numbers do alone too." if task.matryoshka else "",
        evaluation=evaluation,
        versions=", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        recipe=json.dumps(recipe, indent=2),
    )


def _recipe(run: Config) -> dict[str, Any]:
    """Returns what others may read of a configuration."""
    recipe = dataclasses.asdict(run)
    data = {key: value for key, value in recipe["data"].items() if key not in _PRIVATE}
    del recipe["tokenizer"]["path"]
    return {"seed": run.seed, "data": data} | {part: recipe[part] for part in ("tokenizer", "model", "optim", "train")}


_EMBEDDING_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [bert, sentence-transformers]
---

# Vectors of texts, learned with bertjax

{num_layers} layers, {hidden_size} hidden, {num_heads} heads, {vocab_size:,} tokens in the vocabulary. It began with the
weights of `{begun}`, and learned from {text}: {examples:,} examples, {learned}, for {steps:,} steps of {batch_size:,}.
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
