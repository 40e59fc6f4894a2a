"""The unit of text: neither a pair of sentences nor a split of a corpus crosses the end of a document."""

Document = list[list[str]]  # paragraphs, each a list of sentences
