"""What apigate costs, against the least Python can do and against peers: `python -m benchmarks`.

Rule: a budget is a ratio within one run. A case is timed in turn with its floor, round by round,
and the median of the rounds' ratios is judged; a time in microseconds is for orientation only, for
it says as much about the machine.

    measure     rounds and ratios                budgets    what must hold, as data
    floors      hand-written references          report     Markdown
    peers       other limiters in memory         drive      requests without a server
    subjects    apps bare and behind a limiter:  raw_apps fastapi_apps flask_apps django_apps
    throttling memory gate methods imports frameworks servers    the sections
    file_store redis_store redis_counts outages  more sections: shared stores
    caching cache_keys cache_servers             one more, `caching`: the response cache
    eviction                                     who goes when that is full: a simulation
    cache_origin cache_floors cache_asgi cache_wsgi    what it caches, the floor, apps behind caches
    serve fronts nginx varnish                   what `servers` and `cache_servers` start
    redis_server redis_askers callers            who asks which Redis, and how many at once

What is not installed is skipped, and the report says so; real servers need wrk, nginx and Varnish from the
system's packages (apt-get install wrk nginx varnish), and a Redis is found as the tests find theirs. `--quick`
only shows that all of it runs; its figures mean nothing. `--profile CASE` shows where a case's time
goes, and `--count CASE` is for callgrind, as PROFILES.md shows.
"""
