"""Words of several senses, and their uses in a text."""

import numpy as np

from bertjax.data.corpus.corpus import Corpus
from bertjax.data.statistics.frequencies import CLASSES, word_classes
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.objectives.guesses import Place, longest_sentence, sentence_ids, whole_words

# English words whose senses have little to do with each other, or two kinds of use, as a month and a verb.
_AMBIGUOUS = frozenset(
    "band bank bar bark bass bat bear bill board bow box bridge cast cell chair charge china class club court "
    "crane current date deck draft drive fair fall fan file fine fire fly form game ground hit hold iron key lead "
    "left letter light like line lock long march mark match may mean mine model nail note order park part party "
    "pass patient period pitch plant play point pole port post pound present press race record rest right ring "
    "rock rose round saw scale season second seal set shot sign sound space spring stage star state station stock "
    "strike suit table tank term tie time title train trip turn type watch wave well will wind work yard".split()
)
_WORDS = 10
_FEWEST, _MOST = 4, 24  # uses of a word
_READ = 1 << 22  # tokens of the text


def words_of_several_senses(
    corpus: Corpus, tokenizer: Tokenizer, *, counts_v: np.ndarray | None, max_length: int
) -> dict[str, list[Place]]:
    """Returns up to ten words with uses of each from all over a text, no sentence twice; the same at every call.

    First come ambiguous words of English, the most frequent first; a text that lacks them gives frequent words of its
    own, of those that are not the few that make up half of every text.

    Args:
      counts_v: of the training text, int64 [v]; by default of this one.
      max_length: tokens in a row, special ones included.
    """
    ids = np.asarray(corpus.ids[:_READ])
    counts_here_v = np.bincount(ids, minlength=tokenizer.vocab_size)
    order_v = np.argsort(-counts_here_v, kind="stable")
    order_v = order_v[counts_here_v[order_v] >= _FEWEST]
    classes_v = word_classes(counts_here_v if counts_v is None else counts_v, tokenizer)
    names = tokenizer.words(order_v)
    ambiguous = [number for number, name in zip(order_v.tolist(), names, strict=True) if name.lower() in _AMBIGUOUS]
    others = [number for number in order_v.tolist() if classes_v[number] == CLASSES.index("rare")]
    found: dict[str, list[Place]] = {}
    for number in dict.fromkeys([*ambiguous, *others]):
        if len(found) == _WORDS:
            break
        uses = _uses(number, ids, corpus, tokenizer, longest=longest_sentence(max_length))
        if len(uses) >= _FEWEST:
            found[tokenizer.words([number])[0]] = uses
    return found


def _uses(number: int, ids: np.ndarray, corpus: Corpus, tokenizer: Tokenizer, *, longest: int) -> list[Place]:
    """Sentences in which a token is a whole word, from all over the text."""
    at = np.flatnonzero(ids == number)
    sentences = np.searchsorted(corpus.sentences, at, "right") - 1
    lengths = corpus.sentences[sentences + 1] - corpus.sentences[sentences]
    at, sentences = at[lengths <= longest], sentences[lengths <= longest]
    some = np.linspace(0, len(at) - 1, min(len(at), 3 * _MOST)).astype(int)
    uses: dict[bytes, Place] = {}
    for one in some.tolist():
        place = int(at[one] - corpus.sentences[sentences[one]])
        sentence = sentence_ids(corpus, sentences[one])
        if place in whole_words(sentence, tokenizer):
            uses.setdefault(sentence.tobytes(), Place(sentence, place))
    evenly = np.linspace(0, len(uses) - 1, min(len(uses), _MOST)).astype(int)
    return [list(uses.values())[one] for one in evenly]
