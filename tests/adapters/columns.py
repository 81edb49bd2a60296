"""The columns of the table: every server with every host of its protocol, and which rows each of them runs."""

from contextlib import AbstractContextManager, nullcontext

from tests.adapters.harness import Harness
from tests.adapters.hosts import HOSTS
from tests.adapters.in_process import IN_PROCESS
from tests.adapters.serve import SERVERS
from tests.adapters.servers import RealServer

PLAIN = {"asgi": "asgi_host", "wsgi": "wsgi_host"}  # a column of theirs is called as its server
WITH_WEBSOCKETS = ("asgi_host", "fastapi_host")
PROTOCOLS = {
    **{protocol: protocol for protocol in IN_PROCESS},
    **{name: each.protocol for name, each in SERVERS.items()},
}


def column(server: str, host: str) -> str:
    return server if host in PLAIN.values() else f"{server}+{host}"


COLUMNS = {
    column(server, host): (server, host)
    for host, each in HOSTS.items()
    for server, protocol in PROTOCOLS.items()
    if protocol == each.protocol
}


WHOLE = {
    **{
        host: tuple(server for server, protocol in PROTOCOLS.items() if protocol == kind)
        for kind, host in PLAIN.items()
    },
    "fastapi_host": ("asgi", "uvicorn-httptools"),
    "django_asgi_host": ("asgi", "hypercorn"),
    "flask_host": ("wsgi", "gunicorn-gthread"),
    "django_wsgi_host": ("wsgi", "waitress"),
}
"""The servers on which a host runs every row. On the others a framework runs the core."""

CORE = {
    "levels": ["test_each_level_admits_its_burst_and_refuses_the_next"],
    "refusals and fields": [
        "test_an_admitted_response_keeps_the_apps_fields_and_gets_the_gateways_after_them",
        "test_a_refusal_names_all_the_levels_that_refused_each_with_its_own_wait",
        "test_a_refused_request_does_not_reach_the_app",
    ],
    "decorated endpoints": ["test_a_decorated_endpoint_refuses_as_its_level_does"],
    "the app's own status": ["test_a_verb_that_no_route_serves_is_the_frameworks_405_with_the_fields_and_counts"],
    "head": ["test_head_counts_as_get_and_its_refusal_has_the_fields_but_no_body"],
    "bodies": ["test_the_requests_body_reaches_the_app_as_it_was_sent"],
    "streaming": ["test_a_stream_is_not_held_back", "test_a_slot_is_held_until_the_last_chunk"],
    "errors": [
        "test_an_app_that_breaks_before_it_answers_is_the_servers_500_and_has_taken_its_token",
        "test_an_app_that_breaks_or_is_throttled_half_way_is_a_response_cut_off",
        "test_an_app_throttled_further_in_becomes_a_429_and_an_endpoint_keeps_what_it_took",
    ],
    "disconnects": ["test_a_client_that_leaves_in_the_middle_frees_its_slot_and_the_body_is_closed_once"],
    "context": [
        "test_the_app_finds_its_context",
        "test_a_stage_by_path_prefix_is_what_the_app_is_mounted_under",
    ],
    "counting once": ["test_a_gate_in_a_gate_of_the_same_gateway_counts_once"],
    "websockets": [
        "test_a_handshake_over_the_limit_gets_the_same_response_as_a_get",
        "test_messages_and_the_accepted_fields_are_the_apps_own",
        "test_a_connection_holds_its_slot_until_it_is_closed",
        "test_a_handshake_takes_from_the_decorator_of_its_endpoint",
    ],
}
"""The rows that every column runs, by what they are about."""


def columns(*hosts: str, real: bool = False) -> list[str]:
    """The names of the columns of these hosts; `real` leaves out what runs in process."""
    return [name for name, (server, host) in COLUMNS.items() if host in hosts and not (real and server in IN_PROCESS)]


def columns_of(row: str, *hosts: str, real: bool = False) -> list[str]:
    """The columns that run a row; of all hosts, or of these."""
    is_core = any(row in rows for rows in CORE.values())
    return [name for name in columns(*(hosts or HOSTS), real=real) if is_core or is_whole(name)]


def is_whole(name: str) -> bool:
    """Whether a column runs every row."""
    server, host = COLUMNS[name]
    return server in WHOLE[host]


def started(name: str) -> Harness:
    server, host = COLUMNS[name]
    return IN_PROCESS[server](host) if server in IN_PROCESS else RealServer(server, host)


def surrounded(name: str) -> AbstractContextManager[None]:
    """What a test stands in, whose column may share its process."""
    server, host = COLUMNS[name]
    return HOSTS[host].surrounded() if server in IN_PROCESS else nullcontext()
