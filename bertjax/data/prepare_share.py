"""Preparation by processes of any machines that share a cache folder: each makes some parts, and one joins them."""

from collections.abc import Iterator

from bertjax.config import Config, Split
from bertjax.data.corpus.building import Each, Parts, build_share, parts_of
from bertjax.data.prepare import cache_of, open_text
from bertjax.errors import BertjaxError


def prepare_share(config: Config, index: int, of: int, *, each: Each | None = None) -> str:
    """Makes one share of the parts that `prepare` joins, and the vocabulary where it is not there yet.

    Whoever comes first builds the vocabulary, and the others wait for it. Parts that are there stay as they are, so a
    share may be given again, and a corpus be divided into another number of shares.

    Args:
      index, of: which share, from 0 on, and how many there are.
      each: builds the parts, in place of processes of this machine.

    Returns:
      a line that tells of it.

    Raises:
      BertjaxError: there is no such share, the text is none of files, or cannot be had; or the cache not be written.
    """
    if not 0 <= index < of:
        raise BertjaxError(f"there is no share {index}/{of}; give 0/N to N-1/N, where N is how many there are")
    found = [
        build_share(parts, split, index, of, workers=config.data.workers, each=each) for split, parts in _parts(config)
    ]
    made = [done for some in found for done in some]
    if not made:
        return f"share {index}/{of}: nothing to do"
    there = sum(done.was_there for done in made)
    return f"share {index}/{of}: {len(made):,} parts, {len(made) - there:,} made now, {there:,} there before"


def check_parts(config: Config) -> None:
    """Raises BertjaxError where parts are missing, with their numbers."""
    for split, parts in _parts(config):
        if missing := parts.missing(split):
            names = ", ".join(missing[:10]) + ", ..." * (len(missing) > 10)
            raise BertjaxError(
                f"of the {len(parts.plan()):,} parts of files/{split} {len(missing):,} are missing in {parts.folder}: "
                f"{names}; give the shares again with the same settings (what is done stays), or leave out --merge"
            )


def _parts(config: Config) -> Iterator[tuple[Split, Parts]]:
    """Yields what each corpus of a run is joined from, once where several are joined from the same."""
    if config.data.source != "files":
        raise BertjaxError(
            f"data.source={config.data.source} is not divided: leave the shares out, or give your own files "
            "(data.source=files)"
        )
    source, _, tokenizer = open_text(config)
    folders = set()
    for split in dict.fromkeys((config.data.train_split, config.data.eval_split)):
        files = source.user_files(split)
        assert files is not None
        parts = parts_of(cache_of(config), files, split, tokenizer)
        if parts.folder not in folders:
            folders.add(parts.folder)
            yield split, parts
