"""Pages for a browser, made of templates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertjax.errors import visible

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *, folders: Sequence[Path] = (), **values: Any) -> str:
    """Returns a page; whatever is put into the template is text, not HTML.

    Args:
      folders: where templates are besides here.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES, *folders]),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # but not what is HTML already
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
