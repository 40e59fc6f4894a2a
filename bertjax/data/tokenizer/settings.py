"""Settings of a tokenizer: everything that the JSON files beside its vocabulary say of it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.errors import BertjaxError

MOST_BYTES = 1 << 24  # of settings; their largest have the labels of a head
MOST_OF_VOCABULARY = 1 << 26  # bytes; a million tokens take half of that
ROLES_FILE = "special_tokens_map.json"
# Models whose tokenizer is BERT's in `transformers`; a class is called as its model is. Japanese BERTs, which look like
# any other in a vocab.txt and split words by MeCab, are not among them.
_BERTS = ("bert", "convbert", "distilbert", "electra", "mobilebert", "squeezebert")
_ROBERTAS = ("roberta", "xlmroberta", "camembert")
_BERTS_ROWS = 30522  # where a config.json leaves them out


class Settings(NamedTuple):
    """What the files beside a vocabulary say."""

    file: Path  # the vocabulary
    by_key: dict[str, Any]  # of tokenizer_config.json, and of special_tokens_map.json where that counts
    numbers: dict[str, Any]  # of added_tokens.json, where that counts: the number of each token
    kind: str | None  # "bert" for BertTokenizer and BertTokenizerFast; None where no file names a class or a model
    num_rows: int  # tokens that the model has weights for; 0 where there is no model

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.file.parent

    @property
    def berts(self) -> bool:
        """Whether this is BERT's tokenizer, and tokenizer.json is no more than its vocabulary."""
        return self.kind in _BERTS

    @property
    def robertas(self) -> bool:
        """Whether its class is RoBERTa's or one with its special tokens, and tokenizer.json tells not all."""
        return self.kind in _ROBERTAS

    @property
    def mpnets(self) -> bool:
        """Whether its class is MPNet's, which splits text as BERT's does and sets special tokens as RoBERTa's does."""
        return self.kind == "mpnet"

    @property
    def debertas(self) -> bool:
        """Whether its class is that of DeBERTa v2 and v3, which sets special tokens and segments as BERT's does."""
        return self.kind == "debertav2"


def read_settings(file: Path) -> Settings:
    """Reads the settings beside a vocabulary, a tokenizer.json, vocab.txt or vocab.json, which need not be there.

    Raises:
      BertjaxError: a file cannot be read, or says what we cannot do.
    """
    folder = file.parent
    model = read_json(folder / "config.json", needed=False)
    by_key, numbers = read_json(folder / "tokenizer_config.json", needed=False), {}
    if "added_tokens_decoder" not in by_key:
        by_key |= read_json(folder / ROLES_FILE, needed=False)
        numbers = read_json(folder / "added_tokens.json", needed=False)
    if by_key.get("split_special_tokens"):
        raise BertjaxError(f"{folder}: split_special_tokens=true is not supported; only false is")
    kind = by_key.get("tokenizer_class") or model.get("tokenizer_class") or model.get("model_type")
    if kind is not None:
        kind = str(kind).removesuffix("Fast").removesuffix("Tokenizer").lower().replace("-", "")
    num_rows = model.get("vocab_size", _BERTS_ROWS if model else 0)
    return Settings(file, by_key, numbers, kind, num_rows if isinstance(num_rows, int) else 0)


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Returns the text of a file.

    Raises:
      BertjaxError: it has more bytes than `most`, and so would take memory and time beyond reason.
      OSError, ValueError: it cannot be read, or is not UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BertjaxError(f"{path} has more than {most:,} bytes, which no model's has; fetch it again")
    return content.decode("utf-8")


def read_json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    """Returns the keys in a file of JSON; none where it is neither there nor needed.

    Raises:
      BertjaxError: it is needed and not there, cannot be read, or has no keys.
    """
    try:
        content = json.loads(read_text(path))
    except (FileNotFoundError, NotADirectoryError):
        if needed:
            raise BertjaxError(f"there is no {path}; give a folder that has it") from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BertjaxError(f"{path} cannot be read: {' '.join(str(error).split())}; fetch it again") from None
    if not isinstance(content, dict):
        raise BertjaxError(f"{path} holds no keys; fetch it again")
    return content
