"""What all routes of figures share: the type of the answer, its description, and the meaning of colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from starlette.responses import Response

from nas.definition.space import LogUniform
from nas.errors import InputError
from nas.metrics import METRICS
from nas.plots.layers import Layer, layers_of
from nas.plots.shades import Shades
from nas.store import Front, Store
from nas.store.pages import PARAMETER
from nas.study import Study
from nas.trial import Trial

KIND, NUMBER, SEED, RATIO = "kind", "number", "seed", "ratio."
"""Words for what colours mean, besides metrics and parameters; the last one goes before the index of a layer."""


class FigureResponse(Response):
    """A plotly figure: ``data`` and ``layout``."""

    media_type = "application/json"


def figure_response(figure: go.Figure) -> FigureResponse:
    """Return a figure as the answer to a request."""
    figure.update_layout(template=None)
    return FigureResponse(figure.to_json())


def drawn() -> dict[int | str, dict[str, Any]]:
    """Return the answer of a figure's route, for the description of the API."""
    schema = {
        "type": "object",
        "properties": {"data": {"type": "array", "items": {"type": "object"}}, "layout": {"type": "object"}},
        "required": ["data", "layout"],
    }
    return {200: {"description": "a figure for plotly.js", "content": {"application/json": {"schema": schema}}}}


def a_complete_trial(store: Store, study_id: str) -> list[Trial]:
    """Return the first complete trial of a study in a list; an empty one if there is none."""
    number = store.first_complete(study_id)
    return [] if number is None else store.trials(study_id, numbers=[number])


def layers_in(store: Store, study_id: str) -> tuple[Layer, ...]:
    """Return the layers of a study's network, by a complete trial; empty while there is none."""
    return layers_of(a_complete_trial(store, study_id))


def color_choices(study: Study, metrics: Sequence[str], layers: Sequence[Layer]) -> dict[str, str]:
    """Return the label of each meaning that colours of a front can have, by its word.

    Args:
        study: Study of the front.
        metrics: Metrics that hold a value.
        layers: Layers of its network.
    """
    choices = {KIND: "kind of trial", NUMBER: "number of the trial", SEED: "seed"}
    choices |= {f"{PARAMETER}{name}": name for name in study.definition.sampled}
    choices |= {name: METRICS[name].label for name in METRICS if name in metrics}
    return choices | {f"{RATIO}{place}": f"ratio of layer {layer.name}" for place, layer in enumerate(layers)}


def shades_of(store: Store, study: Study, front: Front, color: str | None) -> Shades | None:
    """Return the values that colour the marks of a front, by trial and position; None for the kinds of trials.

    Raises:
        InputError: If ``color`` is unknown.
    """
    if color is None or color == KIND:
        return None
    places = [(point.number, point.position) for point in front.points]
    if color == NUMBER:
        return Shades("number of the trial", {place: place[0] for place in places})
    if color == SEED:
        return Shades("seed", {place: front.seeds[place[0]] for place in places})
    if color.startswith(PARAMETER):
        return _of_parameter(study, front, color.removeprefix(PARAMETER))
    if color.startswith(RATIO) and color.removeprefix(RATIO).isdecimal():
        return _of_layer(store, study, int(color.removeprefix(RATIO)))
    if color in METRICS:
        scale = 100 if METRICS[color].percent else 1
        values = {(p.number, p.position): scale * p.values[color] for p in front.points if color in p.values}
        return Shades(METRICS[color].label, values)
    raise InputError(
        f"color: unknown {color[:80]!r}; known: {KIND}, {NUMBER}, {SEED}, a metric ({', '.join(METRICS)}), a sampled "
        f"parameter such as {PARAMETER}target, the ratio of a layer such as {RATIO}0"
    )


def _of_parameter(study: Study, front: Front, name: str) -> Shades:
    known = study.definition.sampled
    if name not in known:
        raise InputError(f"color: {name[:80]!r} is not sampled by this study; sampled: {', '.join(known) or 'nothing'}")
    values = {
        (point.number, point.position): front.parameters[point.number][name]
        for point in front.points
        if name in front.parameters.get(point.number, {})
    }
    return Shades(name, values, isinstance(known[name], LogUniform))


def _of_layer(store: Store, study: Study, index: int) -> Shades:
    layers = layers_in(store, study.id)
    if index >= len(layers):
        raise InputError(f"color: there is no layer {index}; the network has {len(layers)} layers, from {RATIO}0")
    return Shades(f"ratio of layer {layers[index].name}", dict(store.layer_ratios(study.id, index)), log=True)
