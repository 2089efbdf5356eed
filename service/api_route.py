"""The kind of route that all of the API has: it refuses unknown parameters and repeated keys, and keeps answers."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from nas.errors import InputError
from partialnet.json_text import parse_json
from service.answers import Answers, kept_until


class ApiRoute(APIRoute):
    """A route of the API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        handle = super().get_route_handler()
        fields = [field for field in get_flat_params(self.dependant) if isinstance(field.field_info, params.Query)]
        lists = {field.alias: _is_list(field.field_info.annotation) for field in fields}
        until, has_body = kept_until(self.endpoint), self.body_field is not None

        async def checked(request: Request) -> Response:
            _check_query(request, lists)
            if has_body:
                _check_keys(await request.body())
            if until is None:
                return await handle(request)
            answers: Answers = request.app.state.answers
            return await answers.answer(request, until, handle)

        return checked


def _is_list(annotation: Any) -> bool:
    return "list[" in str(annotation)


def _check_query(request: Request, lists: dict[str, bool]) -> None:
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in lists:
            near = difflib.get_close_matches(name, lists, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            known = f"known: {', '.join(lists)}" if lists else "this address takes none"
            raise InputError(f"query: unknown parameter {name!r}; {known}{hint}")
        if not lists[name] and given.count(name) > 1:
            raise InputError(f"query: {name} is given {given.count(name)} times; give it once")


def _check_keys(body: bytes) -> None:
    """Refuse a body of JSON in which an object has a key twice: one of the values would be ignored."""
    try:
        parse_json(body)  # as the route itself decodes it
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):  # the route says what is wrong
        return
    except ValueError as error:
        found = {"loc": ("body",), "msg": str(error), "input": body.decode(errors="replace")}
        raise RequestValidationError([found]) from None
