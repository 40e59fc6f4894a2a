"""Writes tags.json: what seqeval 1.2.2 finds in odd sequences of tags, and its figures of some taken as guesses.

Run by an environment that has it beside numpy and scikit-learn: `python -m venv --system-site-packages ENV`, then
`ENV/bin/pip install seqeval==1.2.2`, then `ENV/bin/python tests/reference/make_tags.py`.
"""

import json
import random
import warnings
from pathlib import Path

from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}
STRICT = {"IOB2": IOB2, "IOBES": IOBES, "BILOU": BILOU}


def entities(tags: list[str], scheme: str) -> list[tuple[str, int, int]]:
    if scheme == "IOB1":
        return [(kind, start, end + 1) for kind, start, end in get_entities(tags)]
    (found,) = Entities([tags], STRICT[scheme]).entities
    return [(one.tag, one.start, one.end) for one in found]


def figures(there: list[list[str]], told: list[list[str]], scheme: str) -> list[float]:
    if scheme == "IOB1":
        from seqeval.metrics import f1_score, precision_score, recall_score

        return [score(there, told) for score in (precision_score, recall_score, f1_score)]
    return list(precision_recall_fscore_support(there, told, average="micro", scheme=STRICT[scheme])[:3])


def main() -> None:
    warnings.simplefilter("ignore")
    choose, made = random.Random(0), {}
    for scheme, prefixes in PREFIXES.items():
        tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("x", "y-z"))]
        sequences = [choose.choices(tags, k=choose.randint(1, 7)) for _ in range(60)]
        found = [[tags, entities(tags, scheme)] for tags in sequences]
        told = [[tag if choose.random() < 0.7 else choose.choice(tags) for tag in there] for there in sequences]
        made[scheme] = {"found": found, "told": told, "figures": figures(sequences, told, scheme)}
    file = Path(__file__).with_name("tags.json")
    file.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in made.items()) + "\n}\n")


if __name__ == "__main__":
    main()
