"""The demo's gateway, as it would stand in `apigate.toml`, and what to try on it."""

import json
import re
import shlex
import tomllib

from apigate.core.clock import Clock
from apigate.demo.frameworks import PLAIN, Framework
from apigate.gateway import Gateway

__all__ = ["CONFIGURATION", "IN_MEMORY", "NAME", "configuration", "demo_gateway", "indented", "invitation"]

IN_MEMORY = "memory://"
"""The store that no other process sees."""

NAME = "pet-store"
"""What the buckets of all demos are kept under."""

CONFIGURATION = """\
throttle = "60/minute; burst=40"              # level global: one bucket for the whole gateway
stage_by = "path-prefix"                      # /prod/pets is the app's /pets in the stage prod

[stages.prod]
throttle = "50/minute; burst=30"              # level stage: one bucket for the stage
client_throttle = "20/minute; burst=20"       # level client: one bucket for each client

[stages.prod.methods]
"*" = { throttle = "40/minute; burst=25" }    # level method: one bucket for each method
"GET /pets" = {}                              # as * has it
"POST /pets" = { throttle = "10/minute; burst=3" }
"GET /health" = { exempt = true }             # takes from no level

[stages.prod.methods."GET /pets/{id}"]
client_throttle = "10/minute; burst=2"        # level client-method: one bucket for each client at this method

[stages.beta]
throttle = "30/minute; burst=8"

[stages.dev]                                  # no limit of its own, only the global level

[stages.cached]                               # takes from no level; responses are kept for 60 s
methods = { "*" = { exempt = true } }
cache = { policy = { ttl = 60, stale_while_revalidate = 600 } }
"""
"""The settings, with rates per minute."""


def configuration(period: str = "minute") -> str:
    """`CONFIGURATION` with all its rates per `period`, a unit of time; the comments stay below one another.

    >>> configuration("day").splitlines()[0]
    'throttle = "60/day; burst=40"                 # level global: one bucket for the whole gateway'
    """
    comment = "  #"
    moved = comment.rjust(len(comment) + len("minute") - len(period))
    lines = CONFIGURATION.splitlines(keepends=True)
    return "".join(line.replace("/minute", f"/{period}").replace(comment, moved, "/minute" in line) for line in lines)


def demo_gateway(period: str = "minute", store: str = IN_MEMORY, clock: Clock | None = None) -> Gateway:
    """The gateway of `configuration(period)`, with its buckets in a store."""
    return Gateway.from_dict(tomllib.loads(configuration(period)), name=NAME, store=store, clock=clock)


def invitation(url: str, framework: Framework = PLAIN, store: str = IN_MEMORY) -> str:
    """What to try on the demo, which listens on `url`, and what to expect; a store that others see is shown."""
    shown = _without_password(store)
    settings, sharing = CONFIGURATION, ""
    if not store.startswith(IN_MEMORY):
        settings = f'name = "{NAME}"\nstore = {json.dumps(shown)}\n{CONFIGURATION}'
        more = f"{framework.command} --port 0 --store {shlex.quote(shown)}"
        sharing = f"Other processes that are given this store share these limits, as does: {more}\n"
    chosen = [entry for entry in _TRIES if entry is not _DECORATED or framework.decorated]
    tries = "\n".join(f"  # {what}\n  curl {arguments}\n" for what, arguments in chosen).replace("URL", url)
    return f"""\
{framework.introduction}
These are the gateway's settings; save them as apigate.toml, and `apigate run` puts the same gateway around an app of
yours:

{indented(settings)}
{sharing}It listens on {url} until Ctrl-C. Try, in another terminal:

{tries}
Every second to six seconds a token flows back, as the rates say. All of this by itself:
{framework.command} --once
"""


def _without_password(store: str) -> str:
    """The address as a terminal may show it.

    >>> _without_password("redis://user:secret@host:6379/0"), _without_password("file:///tmp/pets.state")
    ('redis://user:***@host:6379/0', 'file:///tmp/pets.state')
    """
    return re.sub(r"(?<=://)([^:/]*):[^/]*@", r"\1:***@", store)


def indented(text: str) -> str:
    """The lines of a text, two columns further in."""
    return "".join(f"  {line}".rstrip() + "\n" for line in text.splitlines())


_STATUSES = "-s -o /dev/null -w '%{http_code} '"
_DECORATED = (
    """a view with @gateway.throttle("2/day", per="client"): 2 are admitted, then level client-method refuses""",
    f"{_STATUSES} 'URL/dev/pets/1/photo?[1-4]'",
)
_TRIES = (
    ("one request; the field RateLimit says what is left at the level with the fewest tokens", "-i URL/prod/pets"),
    (
        "5 new pets: 3 are admitted, then level method refuses; this shows the statuses",
        f"""{_STATUSES} -H Content-Type:application/json -d '{{"name": "Bella"}}' 'URL/prod/pets?[1-5]'""",
    ),
    ("one pet, 4 times: 2 are admitted, then level client-method refuses", f"{_STATUSES} 'URL/prod/pets/1?[1-4]'"),
    _DECORATED,
    (
        "25 times: until the client's 20 tokens are spent, then level client refuses",
        f"{_STATUSES} 'URL/prod/pets?[1-25]'",
    ),
    ("a refusal in full; Retry-After says how long to wait", "-i URL/prod/pets"),
    ("another client, right after: it has a bucket of its own", "-i --interface 127.0.0.2 URL/prod/pets"),
    ("another stage: 8 are admitted, then level stage refuses", f"{_STATUSES} 'URL/beta/pets?[1-10]'"),
    ("a stage without a limit of its own: until level global refuses", f"{_STATUSES} 'URL/dev/pets?[1-40]'"),
    ("exempt: admitted even then", "-i URL/prod/health"),
    ("a response and the same from the cache, see Cache-Status and Age", "-i URL/cached/pets URL/cached/pets"),
)
