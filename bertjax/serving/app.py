"""The ASGI application: routes, and the way of a request from its body to its answer."""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from bertjax.serving import openai, openapi, tei, words
from bertjax.serving.batcher import Batcher, Failed, Overloaded
from bertjax.serving.bodies import Answer, Answers, Bodies, decoded, unless_gone
from bertjax.serving.errors import Refused
from bertjax.serving.extra import needed
from bertjax.serving.guard import Guard
from bertjax.serving.metrics import CONTENT_TYPE, Metrics
from bertjax.serving.models import Models, Served, ServedHead, ServedTagger
from bertjax.serving.page import page
from bertjax.serving.schemas import (
    EmbedAllRequest,
    EmbeddingsRequest,
    EmbedRequest,
    FillMaskRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    TagsRequest,
    TokenizeRequest,
)
from bertjax.serving.work import Limits, Prepare, Work

with needed():
    import msgspec
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

_INLINE = (
    4096  # bytes of a body that is read at once; to hand a short one to another thread takes longer than to read it
)
_INLINE_NUMBERS = 2**15  # of an answer that is written at once
_READERS = 2  # threads in which texts become tokens
_logger = logging.getLogger(__name__)


class Operation(NamedTuple):
    """A route that computes something."""

    path: str
    schema: type
    prepare: Prepare


_OPENAI = (Operation("/v1/embeddings", EmbeddingsRequest, openai.embeddings),)
_EMBED = Operation("/embed", EmbedRequest, tei.embed)
_PREDICT = Operation("/predict", PredictRequest, tei.predict)
_RERANK = Operation("/rerank", RerankRequest, tei.rerank)
_TAGS = Operation("/tags", TagsRequest, words.tags)
_TEI = (
    _EMBED,
    Operation("/embed_all", EmbedAllRequest, tei.embed_all),
    _RERANK,
    _PREDICT,
    Operation("/similarity", SimilarityRequest, tei.similarity),
    Operation("/tokenize", TokenizeRequest, tei.tokenize),
    Operation("/fill_mask", FillMaskRequest, words.fill_mask),
    _TAGS,
)
OPERATIONS = (*_OPENAI, *_TEI)
_GETS = (
    ("/health", "200 once every model is loaded and compiled, 503 before"),
    ("/info", "what the first model is, and the limits"),
    ("/metrics", "figures, for Prometheus"),
    ("/v1/models", "the models"),
)


def _of_root(model: Served) -> Operation:
    """Returns what a client of Hugging Face asks for that posts to the model's own address."""
    if isinstance(model, ServedTagger):
        return _TAGS._replace(prepare=words.entities)
    if isinstance(model, ServedHead):
        return _RERANK if model.of_number else _PREDICT._replace(prepare=tei.predict_as_list)
    return _EMBED


class Server:
    """Models, what computes them, and the routes to them.

    Args:
      models: those that are not loaded yet are when the application starts.
      limits: of requests.
      guard: of who may ask; by default no page of another site.
    """

    def __init__(self, models: Models, limits: Limits, guard: Guard | None = None):
        self.models, self.limits, self._guard = models, limits, guard or Guard()
        self.failure: BaseException | None = None  # why the models could not be loaded
        self.on_failure: Callable[[], None] = lambda: None
        self.metrics = Metrics(lambda: self.batcher.waiting_tokens, lambda: models.ready)
        self.batcher = Batcher(limits.max_waiting_tokens, self.metrics.saw_batch)
        self._bodies, self._answers = Bodies(limits), Answers(limits)
        self._readers = ThreadPoolExecutor(_READERS, "texts")
        self._loader = ThreadPoolExecutor(1, "models")
        posts = [self._route(of.path, self._operation(of)) for of in OPERATIONS]
        posts.append(self._route("/", self._operation(None)))
        gets = [
            self._route("/health", self._health, "GET", guarded=False),
            self._route("/", self._page, "GET", guarded=False),
            self._route("/openapi.json", self._openapi, "GET", guarded=False),
            self._route("/metrics", self._metrics, "GET"),
            self._route("/info", self._info, "GET"),
            self._route("/v1/models", self._models, "GET"),
            self._route("/v1/models/{name:path}", self._model, "GET"),
        ]
        of_models = []  # clients of TEI name no model: each has an address of its own, too
        for name in models.origins:
            of_models += [self._route(f"/{name}{of.path}", self._operation(of, name)) for of in _TEI]
            of_models.append(self._route(f"/{name}", self._operation(None, name)))
            of_models.append(self._route(f"/{name}/", self._operation(None, name)))
            of_models.append(self._route(f"/{name}/info", functools.partial(self._info, name=name), "GET"))
            of_models.append(self._route(f"/{name}/health", self._health, "GET", guarded=False))
        self.app = Starlette(
            routes=[*posts, *gets, *of_models],
            lifespan=self._lifespan,
            exception_handlers={404: self._not_found, 405: self._not_allowed},
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> Any:
        self.batcher.start()
        loading = asyncio.ensure_future(self.load() if not self.models.ready else asyncio.sleep(0))
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.to_thread(self.batcher.end)
            self._readers.shutdown(wait=False, cancel_futures=True)
            self._loader.shutdown(wait=False, cancel_futures=True)

    async def load(self) -> None:
        """Loads and compiles all models; a failure is kept for whoever runs the server."""
        began = time.perf_counter()
        try:
            await self._in(self._loader, self.models.load)
        except Exception as error:
            self.failure = error
            self.on_failure()
        else:
            _logger.info(f"ready after {time.perf_counter() - began:.1f} s: {', '.join(self.models.origins)}")

    async def reload(self) -> None:
        """Loads all models anew; those that cannot be loaded stay as they were."""
        for name in self.models.origins:
            try:
                await self._in(self._loader, self.models.load, name)
                _logger.info(f"{name} is loaded anew")
            except Exception as error:
                _logger.warning(f"{name} stays as it was: {error}")

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *args)

    # The way of a request.

    def _route(
        self, path: str, answer: Callable[[Request], Any], method: str = "POST", *, guarded: bool = True
    ) -> Route:
        """Returns a route whose errors are told in its clients' words, and whose answers are counted."""
        error_body = openai.error_body if path.startswith("/v1") else tei.error_body

        async def endpoint(request: Request) -> Response:
            began = time.perf_counter()
            try:
                if guarded:
                    self._guard(request)
                response = await answer(request)
            except Refused as error:
                response = self._refusal(error, error_body)
            except ClientDisconnect:
                self.metrics.saw_client_go()
                return Response(status_code=499)
            except Exception as error:
                _logger.warning(f"{path} failed: {type(error).__name__}: {error}")
                response = self._refusal(Refused(500, "the request failed; see the server's log", "failed"), error_body)
            self.metrics.saw_request(path, response.status_code, time.perf_counter() - began)
            return response

        return Route(path, endpoint, methods=[method])

    def _operation(self, operation: Operation | None, model: str | None = None) -> Callable[[Request], Any]:
        """Returns what answers requests.

        Args:
          operation: by default what the model is for.
          model: whose address it is; by default requests name one.
        """

        def prepare(body: bytearray) -> Work:
            chosen = operation or _of_root(self.models.get(model))
            asked: Any = decoded(body, chosen.schema)
            asked.model = model or asked.model
            return chosen.prepare(self.models, self.limits, asked)

        def written(work: Work, results: Any) -> bytes:
            return msgspec.json.encode(work.answer(results))

        async def answer(request: Request) -> Response:
            body = await self._bodies.read(request)
            try:
                work = prepare(body) if len(body) <= _INLINE else await self._in(self._readers, prepare, body)
            finally:
                self._bodies.release(body)
            try:
                results: Any = []
                if work.program is not None:
                    results = await unless_gone(request, self.batcher.run(work.program, work.pieces))
            except Overloaded as error:
                raise Refused(429, str(error), "overloaded", headers={"Retry-After": str(error.seconds)}) from None
            except Failed as error:
                raise Refused(500, str(error), "failed") from None
            with self._answers.room(work.num_numbers) as sent:
                inline = work.num_numbers <= _INLINE_NUMBERS
                content = written(work, results) if inline else await self._in(self._readers, written, work, results)
                return Answer(content, self.limits.seconds, sent, media_type="application/json")

        return answer

    def _refusal(self, error: Refused, error_body: Callable[[Refused], tuple[int, dict[str, Any]]]) -> Response:
        status, body = error_body(error)
        headers = dict(error.headers)
        if status in (408, 413, 415):  # the rest of the body is not read
            headers["Connection"] = "close"
        return Response(msgspec.json.encode(body), status, headers, "application/json")

    # What is computed by none.

    async def _health(self, request: Request) -> Response:
        if not self.models.ready:
            raise Refused(503, "the models are being loaded", "not_ready", headers={"Retry-After": "2"})
        return self._json({"status": "ready"})

    async def _page(self, request: Request) -> Response:
        html, headers = page(self.models, keys=self._guard.keys)
        return Response(html, headers=headers, media_type="text/html")

    async def _openapi(self, request: Request) -> Response:
        return self._json(openapi.describe(OPERATIONS, _GETS, _version(), keys=self._guard.keys))

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _info(self, request: Request, name: str | None = None) -> Response:
        return self._json(tei.info(self.models.get(name), self.limits, _version()))

    async def _models(self, request: Request) -> Response:
        return self._json(openai.list_models(self.models))

    async def _model(self, request: Request) -> Response:
        return self._json(openai.describe(self.models.get(request.path_params["name"])))

    def _json(self, content: Any) -> Response:
        return Response(msgspec.json.encode(content), media_type="application/json")

    async def _not_found(self, request: Request, error: Exception) -> Response:
        path = request.url.path
        known = ", ".join(of.path for of in OPERATIONS)
        refused = Refused(404, f"there is nothing at {path[:100]!r}; there are {known} and others", "not_found")
        return self._refusal(refused, openai.error_body if path.startswith("/v1") else tei.error_body)

    async def _not_allowed(self, request: Request, error: Any) -> Response:
        path = request.url.path
        refused = Refused(405, f"{path[:100]} does not take {request.method}", "wrong_method", headers=error.headers)
        return self._refusal(refused, openai.error_body if path.startswith("/v1") else tei.error_body)


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("bertjax")
