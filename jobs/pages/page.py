"""Values in, one self-contained HTML page out; needs the extra `report`."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jobs.show import words
from pipeline import __version__
from pipeline.errors import SpecError
from pipeline.plurals import counted

PACKAGES = ("jinja2", "matplotlib")
INSTALL = "pip install 'preln[report]'"


def require_extra() -> None:
    """Raise SpecError, with what to install, where the packages of the extra `report` are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SpecError(f"a page needs {' and '.join(missing)}, not installed in {sys.prefix}: {INSTALL}")


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder, which extends `base.html`. Every value is escaped, but for SVG that `plots` drew.

    In a template, `value | words` is a value of a row: cut where it is long, without characters that don't print;
    `count | number` has thousands separated; `share | percent` is a part of 1. Raises SpecError without the extra.
    """
    require_extra()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs.pages", ""),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # older folders lack fields: shown as nothing
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "words": words,
        "text": text,
        "sentence": sentence,
        "number": number,
        "counted": counted,
        "percent": percent,
    }
    environment.filters |= filters
    return environment.get_template(template).render({"preln_version": __version__, **values})


def text(value: str) -> str:
    """Text of several lines, without characters that don't print."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in value)


def sentence(value: str) -> str:
    """A message with a capital first letter, without characters that don't print."""
    return text(value[:1].upper() + value[1:])


def number(value: float) -> str:
    """A count or a measure, readable."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """A part of 1 in percent; small ones keep a digit that is not zero."""
    return f"{share:.0%}" if share >= 0.995 else f"{share:.1%}" if share >= 0.001 or share == 0 else f"{share:.2g}"
