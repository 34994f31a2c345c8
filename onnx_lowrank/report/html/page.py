"""A report as one HTML file: nothing is fetched, nothing is run, every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnx_lowrank.errors import OutputError
from onnx_lowrank.report.html.content import Section
from onnx_lowrank.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def require_libraries() -> None:
    """Raise OutputError where a library that draws or fills the page is missing."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OutputError(f"a report needs {error.name}; install onnx_lowrank[report]") from error


def render(title: str, sections: Sequence[Section]) -> str:
    """Return the HTML of a report.

    Raises
    ------
    OutputError
        If matplotlib or jinja2 is not installed.
    """
    require_libraries()
    return _environment().get_template("page.html.j2").render(title=title, sections=sections)


def _visible(value: object) -> object:
    from markupsafe import Markup

    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from onnx_lowrank.report.html import content, figures

    environment = Environment(
        loader=PackageLoader("onnx_lowrank.report.html", "templates"),
        autoescape=True,
        finalize=_visible,  # of every text that the page is given; then it is escaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # matplotlib has escaped the texts of what it drew.
    environment.filters["svg"] = lambda drawing: Markup(figures.to_svg(drawing))
    for kind in (content.Facts, content.Table, content.Notes, content.Drawing):
        environment.tests[kind.__name__.lower()] = lambda block, kind=kind: isinstance(block, kind)
    return environment
