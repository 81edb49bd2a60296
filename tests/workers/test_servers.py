"""Who runs several workers on a store of one process is told so when they start; who does not is told nothing."""

import pytest

from tests.workers.serving import WebServer

SEVERAL = {
    # what was started: what shows it, and how many processes say so
    "gunicorn --workers 2 wsgi_app": ("gunicorn runs 2 workers", 2),
    "gunicorn --workers 2 --threads 2 wsgi_app": ("gunicorn runs 2 workers", 2),
    "gunicorn --workers 2 --preload wsgi_app": ("gunicorn runs 2 workers", 1),
    "gunicorn --workers 2 --worker-class asgi asgi_app": ("gunicorn runs 2 workers", 2),
    "gunicorn --workers 2 framework_apps:flask_app": ("gunicorn runs 2 workers", 2),
    "GUNICORN_CMD_ARGS=--workers=2 gunicorn wsgi_app": ("gunicorn runs 2 workers", 2),
    "WEB_CONCURRENCY=2 gunicorn wsgi_app": ("gunicorn runs 2 workers", 2),
    "uvicorn --workers 2 asgi_app": ("uvicorn runs 2 workers", 2),
    "uvicorn --workers 2 framework_apps:fastapi_app": ("uvicorn runs 2 workers", 2),
    "WEB_CONCURRENCY=2 uvicorn asgi_app": ("uvicorn runs 2 workers", 2),
    "hypercorn --workers 2 asgi_app": ("hypercorn runs 2 workers", 2),
    "hypercorn --workers 2 wsgi:apps:wsgi_app": ("hypercorn runs 2 workers", 2),
    "granian --workers 2 --interface asgi asgi_app": ("granian runs 2 workers", 2),
    "granian --workers 2 --interface wsgi wsgi_app": ("granian runs 2 workers", 2),
    "tests.workers.by_hand granian-3 asgi_app": ("granian runs several workers", 2),  # the first knows of no other
    "tests.workers.by_hand werkzeug wsgi_app": ("wsgi.multiprocess", 1),
    "tests.workers.by_hand prefork asgi_app": ("by multiprocessing", 2),
}

SILENT = [
    "gunicorn wsgi_app",
    "WEB_CONCURRENCY=4 gunicorn --workers 1 wsgi_app",
    "WEB_CONCURRENCY=4 gunicorn --workers 1 --threads 2 --preload wsgi_app",
    "uvicorn asgi_app",
    "uvicorn --reload asgi_app",
    "WEB_CONCURRENCY=4 uvicorn --reload framework_apps:fastapi_app",
    "WEB_CONCURRENCY=4 uvicorn --workers 1 framework_apps:fastapi_app",
    "uvicorn framework_apps:asgi_of_wsgi_app",
    "hypercorn asgi_app",
    "hypercorn wsgi:apps:wsgi_app",
    "hypercorn --reload asgi_app",
    "hypercorn --workers 0 asgi_app",
    "granian --interface asgi asgi_app",
    "granian --interface wsgi wsgi_app",
    "WEB_CONCURRENCY=4 daphne asgi_app",
    "WEB_CONCURRENCY=4 waitress wsgi_app",
    "WEB_CONCURRENCY=4 flask framework_apps:flask_app",
    "tests.workers.by_hand granian-1 asgi_app",
    "tests.workers.by_hand granian-1 wsgi_app",  # the request has a thread of its own
    "tests.workers.by_hand hypercorn wsgi_app",
    "WEB_CONCURRENCY=4 tests.workers.by_hand runserver django_app",
    # several workers, and no limit that is multiplied
    "gunicorn --workers 2 shared_app",
    "gunicorn --workers 2 shadow_app",
]


@pytest.mark.parametrize("line", SEVERAL)
def test_several_workers_are_told_that_each_admits_the_whole_limit(line):
    sign, processes = SEVERAL[line]
    with WebServer(line) as running:
        running.await_warnings(processes)
        running.kill()
        warnings = running.warnings()
    assert len(warnings) == processes
    for warning in warnings:
        assert sign in warning
        assert "store='file:///" in warning
        assert "store='redis://" in warning
        assert ("all together 2 times as much" in warning) == ("runs 2" in sign)


@pytest.mark.parametrize("line", SILENT)
def test_one_worker_is_told_nothing(line):
    with WebServer(line) as running:
        running.kill()
        assert running.warnings() == []
