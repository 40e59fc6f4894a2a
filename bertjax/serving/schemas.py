"""Bodies of requests, as clients of OpenAI and of text-embeddings-inference (TEI) send them. Other fields are left out.

msgspec reads and checks them in one pass, and describes them for openapi.json.
"""

from typing import Annotated, Literal

from bertjax.serving.extra import needed

with needed():
    from msgspec import Meta, Struct

# A text, its token ids, or several of these.
Input = str | list[str | int | list[int]]
# A text, a pair of texts, or several texts and pairs, each a list by itself.
TextsOrPairs = str | list[str | list[str]]
Truncate = Annotated[bool | None, Meta(description="Shorten what is too long, instead of an error.")]
Direction = Annotated[
    Literal["Left", "left", "Right", "right"] | None, Meta(description="The end that is cut off; as the model has it.")
]
Model = Annotated[str | None, Meta(description="A name that /v1/models lists; by default the first one.")]
Dimensions = Annotated[
    int | None, Meta(description="Numbers of each vector that are kept; it then has length 1 again.")
]
PromptName = Annotated[str | None, Meta(description="A prompt of the folder, put before each text.")]


class EmbeddingsRequest(Struct):
    """Vectors of length 1, as OpenAI's clients ask for them."""

    input: Input
    model: Model = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimensions = None
    user: str | None = None
    truncate: Truncate = None


class EmbedRequest(Struct):
    """Vectors, as TEI's clients ask for them."""

    inputs: Input
    truncate: Truncate = None
    truncation_direction: Direction = None
    prompt_name: PromptName = None
    normalize: Annotated[bool | None, Meta(description="Scale every vector to length 1; null is true.")] = None
    dimensions: Dimensions = None
    model: Model = None


class EmbedAllRequest(Struct):
    """Vectors of all tokens."""

    inputs: Input
    truncate: Truncate = None
    truncation_direction: Direction = None
    prompt_name: PromptName = None
    model: Model = None


class RerankRequest(Struct):
    """Texts in the order in which they answer a query."""

    query: str
    texts: list[str]
    truncate: Truncate = None
    truncation_direction: Direction = None
    raw_scores: bool = False
    return_text: bool = False
    model: Model = None


class PredictRequest(Struct):
    """Labels, or a number, of texts and pairs."""

    inputs: TextsOrPairs
    truncate: Truncate = None
    truncation_direction: Direction = None
    raw_scores: bool = False
    model: Model = None


class SimilarityInputs(Struct):
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(Struct):
    """How texts are read to be compared."""

    truncate: Truncate = None
    truncation_direction: Direction = None
    prompt_name: PromptName = None


class SimilarityRequest(Struct):
    """Cosines between a text and others."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: Model = None


class TokenizeRequest(Struct):
    """Tokens of texts."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: PromptName = None
    model: Model = None


class FillMaskRequest(Struct):
    """Words for the masks in texts."""

    inputs: str | list[str]
    top_k: Annotated[int, Meta(ge=1, le=100)] = 5
    model: Model = None


class TagsRequest(Struct):
    """Tags of the words of texts, which may be lists of words."""

    inputs: str | list[str | list[str]]
    truncate: Truncate = None
    model: Model = None
