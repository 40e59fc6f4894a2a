"""Makes tests/reference/bert: a tiny BERT of `transformers`, random, with what it says of two pairs of texts.

python tests/reference/make_bert.py    # with transformers and torch; not part of the suite
"""

from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForPreTraining, BertTokenizerFast

FOLDER = Path(__file__).parent / "bert"
WORDS = "a crane is fly ##ing driver came he just left over the été é ! , 東".split()

torch.manual_seed(0)
FOLDER.mkdir(exist_ok=True)
(FOLDER / "vocab.txt").write_text("\n".join(["[PAD]", "of", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
tokenizer = BertTokenizerFast(str(FOLDER / "vocab.txt"))
config = BertConfig(
    vocab_size=32,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=20,
    initializer_range=0.5,
)
model = BertForPreTraining(config).eval()
with torch.no_grad():
    for parameter in model.parameters():  # norms and biases are 1 and 0 otherwise, which would hide mistakes
        parameter.add_(0.1 * torch.randn_like(parameter))
inputs = tokenizer(
    ["A crane is flying!", "the [MASK] came"], ["he just left,", "東 Été"], padding=True, return_tensors="pt"
)
with torch.no_grad():
    said = model(**inputs, output_hidden_states=True)
model.save_pretrained(FOLDER)
tokenizer.save_pretrained(FOLDER)
np.savez(
    FOLDER / "expected.npz",
    tokens=inputs["input_ids"].numpy(),
    segments=inputs["token_type_ids"].numpy(),
    real=inputs["attention_mask"].numpy(),
    hidden=said.hidden_states[-1].numpy(),
    mlm=said.prediction_logits.numpy(),
    nsp=said.seq_relationship_logits.numpy(),
)
