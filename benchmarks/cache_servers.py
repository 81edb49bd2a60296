"""Hits under a real server: requests a second of one worker, beside the bare app and caches in front of it.

Rule: as `servers`. The second answer of each cache must bear its mark of a hit. nginx and Varnish are processes
of their own in front of the bare app, and Varnish has threads on all processors.
"""

from collections.abc import Iterator

from benchmarks import cache_asgi, cache_wsgi, nginx, varnish
from benchmarks.measure import Load, Plan
from benchmarks.servers import Row, Table, measured
from benchmarks.subjects import Subject

__all__ = ["loads"]


def loads(plan: Plan) -> Iterator[Load]:
    """Under uvicorn, and under gunicorn."""
    return measured(TABLES, plan)


def _row(subject: Subject) -> Row:
    return Row(subject.name, subject, mark=(subject.field, "") if subject.field else None)


SUBJECTS = {subject.name: subject for subject in (*cache_asgi.ENDPOINTS, *cache_wsgi.FLASK_GATES)}
TABLES = (
    Table(
        "uvicorn, cache hits",
        "uvicorn",
        (
            *map(_row, (cache_asgi.BARE, cache_asgi.FLOOR, cache_asgi.APIGATE)),
            *map(_row, (cache_asgi.FULL_FLOOR, cache_asgi.FULL_GATE, cache_asgi.HISHEL[0], cache_asgi.FASTAPI)),
            *(_row(SUBJECTS[f"FastAPI {name}"]) for name in ("behind apigate", "+ apigate", "+ fastapi-cache2")),
            Row("nginx proxy_cache in front", front=nginx.CACHE, mark=("x-cache", "HIT")),
            Row("Varnish in front", front=varnish.CACHE, mark=("x-cache", "HIT")),
        ),
        connections=32,
    ),
    Table(
        "gunicorn sync, cache hits",
        "gunicorn",
        (_row(cache_wsgi.FLASK), *(_row(SUBJECTS[f"Flask + {name}"]) for name in ("apigate", "Flask-Caching"))),
        connections=8,
    ),
)
