"""Web application for raters. The token in a link gives access to the rater's own trial only."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from calcarine.reporting.html_pages import environment
from calcarine.study import session
from calcarine.study.guard import Guard, RateLimit
from calcarine.study.rater_images import padded
from calcarine.study.store import Study, StudyDatabaseError, find_rater

__all__ = [
    "NOT_KEPT",
    "NO_ANSWER",
    "TOO_MANY",
    "UNKNOWN",
    "GivenAnswer",
    "ProblemError",
    "build_app",
]

_STATIC = Path(__file__).parent / "static"
_TYPES = {"rate.js": "text/javascript; charset=utf-8", "rate.css": "text/css; charset=utf-8"}
_ROOM = 64  # random bytes that are added to the largest picture
_DAY_MS = 86_400_000.0
UNKNOWN = (
    "This link is not valid",
    "A part of it may be missing. Copy the complete link from your invitation, or ask the person "
    "who invited you for a new link.",
)
NO_ANSWER = ("The answer is not valid", "Reload the page.")
NOT_KEPT = (
    "The server has a problem, and your last answer was not saved",
    "Please wait a minute and reload the page. If this happens again, contact the person who "
    "invited you.",
)
TOO_MANY = ("Too many requests", "Please wait a minute and try again.")


class GivenAnswer(BaseModel):
    """Request body of an answer; see `RaterAnswer`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    trial: str = Field(min_length=1, max_length=64)
    choice: Literal["left", "right"]
    client_ms: float = Field(ge=0, le=_DAY_MS, allow_inf_nan=False)
    paused_ms: float = Field(0.0, ge=0, le=31 * _DAY_MS, allow_inf_nan=False)
    input: Literal["key", "mouse", "touch"]


class ProblemError(Exception):
    """A problem that is reported as a page, or as JSON for the script of the page."""

    def __init__(self, status: int, words: tuple[str, str], page: bool = True) -> None:
        self.status = status
        self.words = words
        self.page = page


def build_app(
    study: Study,
    requests: RateLimit | None = None,
    wrong_links: RateLimit | None = None,
) -> Guard:
    """Make the application of a study.

    Parameters
    ----------
    study : Study
    requests : RateLimit, optional
        Limit for each rater; by default 20 per second, 100 at once.
    wrong_links : RateLimit, optional
        Limit for each address that requests invalid tokens; by default 1 in 2 s, 30 at once.

    Returns
    -------
    Guard
        An ASGI application that has only the endpoints for raters.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    templates = environment("calcarine.study")
    # Static files are read once, so that no request is used as a path.
    static = {name: (_STATIC / name).read_bytes() for name in _TYPES}
    # All pictures have the same length and no two responses have equal bytes, so that files do not
    # reveal what a picture is or whether two pictures are the same.
    length = max(file.stat().st_size for file in study.images.iterdir()) + _ROOM
    access = _Access(study, requests or RateLimit(20, 100), wrong_links or RateLimit(0.5, 30))

    def message(problem: ProblemError) -> Response:
        title, text = problem.words
        if not problem.page:
            return JSONResponse({"error": f"{title}. {text}"}, problem.status)
        page = templates.get_template("message.html.j2").render(title=title, text=text)
        return HTMLResponse(page, problem.status)

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, problem: ProblemError) -> Response:
        return message(problem)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return message(ProblemError(405, ("This method is not allowed", ""), page=False))
        if error.status_code != 404:  # a body that is not JSON, or too deeply nested
            return message(ProblemError(error.status_code, NO_ANSWER, page=False))
        return message(ProblemError(404, UNKNOWN))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return message(ProblemError(422, NO_ANSWER, page=False))

    @app.exception_handler(StudyDatabaseError)
    async def _database(request: Request, error: StudyDatabaseError) -> Response:
        print(f"calcarine: {error}", file=sys.stderr, flush=True)
        page = request.method == "GET" and request.url.path.count("/") == 2
        return message(ProblemError(503, NOT_KEPT, page=page))

    @app.exception_handler(Exception)
    async def _broken(request: Request, error: Exception) -> Response:
        return message(ProblemError(500, NOT_KEPT, page=False))

    @app.get("/static/{name}")
    def _file(name: str) -> Response:
        if name not in static:
            raise ProblemError(404, UNKNOWN)
        return Response(static[name], media_type=_TYPES[name])

    @app.get("/r/{token}")
    def _page(token: str, request: Request) -> Response:
        with access.opened(token, request):
            page = templates.get_template("rate.html.j2").render(settings=study.settings)
            return HTMLResponse(page)

    @app.get("/r/{token}/state")
    def _state(token: str, request: Request) -> dict[str, Any]:
        with access.opened(token, request, write=True) as (con, rater):
            return session.state(con, rater)

    @app.post("/r/{token}/consent")
    def _consent(token: str, request: Request) -> dict[str, Any]:
        with access.opened(token, request, write=True) as (con, rater):
            session.consent(con, rater)
            again = find_rater(con, token)
            assert again is not None
            return session.state(con, again)

    @app.post("/r/{token}/answers")
    def _answer(token: str, given: GivenAnswer, request: Request) -> dict[str, Any]:
        with access.opened(token, request, write=True) as (con, rater):
            try:
                sentences = session.answer(con, rater, session.RaterAnswer(**given.model_dump()))
            except session.NotOpenError as error:
                words = ("This question is not the current one", "Reload the page to continue.")
                raise ProblemError(409 if error.known else 404, words, page=False) from None
            return {**sentences, "state": session.state(con, rater)}

    @app.get("/r/{token}/images/{image}")
    def _image(token: str, image: str, request: Request) -> Response:
        with access.opened(token, request) as (con, rater):
            file = session.image_file(con, rater, image)
        if file is None:
            raise ProblemError(404, UNKNOWN)
        return Response(padded((study.images / file).read_bytes(), length), media_type="image/png")

    return Guard(app)  # outermost, so that errors carry the headers too


class _Access:
    """Gives raters access, one transaction each, and limits attempts with invalid tokens."""

    def __init__(self, study: Study, requests: RateLimit, wrong_links: RateLimit) -> None:
        self.study = study
        self.requests = requests
        self.wrong_links = wrong_links

    @contextmanager
    def opened(
        self, token: str, request: Request, write: bool = False
    ) -> Iterator[tuple[sqlite3.Connection, sqlite3.Row]]:
        with self.study.connection(write) as con:
            rater = find_rater(con, token)
            if rater is None:
                address = request.client.host if request.client else ""
                patient = self.wrong_links.allows(address)
                raise ProblemError(404, UNKNOWN) if patient else ProblemError(429, TOO_MANY)
            if not self.requests.allows(str(rater["id"])):
                raise ProblemError(429, TOO_MANY, page=False)
            yield con, rater
