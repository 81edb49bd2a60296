"""Varnish in front of an app: one process that listens on loopback and leaves nothing behind.

Rule: as its documentation has it, with its store in memory; it has threads, on all processors. It compiles its
configuration, so it needs a C compiler too.
"""

from benchmarks.fronts import Front

__all__ = ["CACHE"]

TEMPLATE = """\
vcl 4.1;
backend app { .host = "127.0.0.1"; .port = "APP_PORT"; }
sub vcl_deliver { if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; } }
"""

CACHE = Front(
    program="varnishd",
    package="varnish",
    file="app.vcl",
    template=TEMPLATE,
    arguments=(
        "-F",
        "-j",
        "none",
        "-n",
        "FOLDER",
        "-a",
        "127.0.0.1:OWN_PORT",
        "-f",
        "FOLDER/app.vcl",
        "-s",
        "malloc,64m",
    ),
)
"""`-j none`: it runs as whoever runs the benchmarks, in a folder that is theirs."""
