"""A report as one HTML file that works alone: it loads nothing from a network, another file or the service."""

from __future__ import annotations

import re
from typing import NamedTuple

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs


class Picture(NamedTuple):
    """A figure with its heading and caption."""

    name: str
    """Stem of the file name: letters, digits, '-' and '_'."""
    heading: str
    caption: str
    figure: go.Figure


class Table(NamedTuple):
    """A table of texts."""

    heading: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    """Number of columns, from the left, that hold words; the others hold numbers."""
    folded: bool = False
    """Whether the table starts closed; folded tables stand at the end of their section."""


class Section(NamedTuple):
    """What the page says about one study."""

    name: str
    question: str
    facts: tuple[tuple[str, str], ...]
    status: str
    """Reason why the results are provisional; "" if the study is finished."""
    answers: tuple[str, ...]
    """Answers of the final comparison, and which difference it can show; they come first."""
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]


class Page(NamedTuple):
    """A report on one or several studies."""

    title: str
    notes: tuple[str, ...]
    """Limits of the comparison between the studies."""
    pictures: tuple[Picture, ...]
    """Pictures of all studies together."""
    sections: tuple[Section, ...]
    colophon: str

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """Every picture in the order of the page."""
        return (*self.pictures, *(picture for section in self.sections for picture in section.pictures))


def render(page: Page) -> str:
    """Return the page as HTML with plotly.js and all figures inside."""
    environment = Environment(
        loader=PackageLoader("nas.plots", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _embedded
    # plotly.js is inserted without escaping: it holds no closing script tag
    return environment.get_template("report.html").render(page=page, plotly_js=Markup(get_plotlyjs()))  # noqa: S704


def _embedded(picture: Picture) -> Markup:
    """Return a figure as a div and the script that fills it; the page already shows its heading."""
    figure = go.Figure(picture.figure)
    figure.update_layout(title=None, margin_t=max(44, (picture.figure.layout.margin.t or 56) - 12), autosize=True)
    text = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=re.sub(r"\W", "-", picture.name),
        config={"displayModeBar": False, "responsive": True},
    )
    return Markup(text)  # noqa: S704  plotly escapes what could end its script
