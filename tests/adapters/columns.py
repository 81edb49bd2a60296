"""The columns of the table: every server with every host of its protocol."""

from tests.adapters.harness import Harness
from tests.adapters.hosts import HOSTS
from tests.adapters.in_process import IN_PROCESS
from tests.adapters.serve import SERVERS
from tests.adapters.servers import RealServer

PLAIN = {"asgi": "asgi_host", "wsgi": "wsgi_host"}  # a column of theirs is called as its server
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


def columns(*hosts: str, real: bool = False) -> list[str]:
    """The names of the columns of these hosts; `real` leaves out what runs in process."""
    return [name for name, (server, host) in COLUMNS.items() if host in hosts and not (real and server in IN_PROCESS)]


def started(name: str) -> Harness:
    server, host = COLUMNS[name]
    return IN_PROCESS[server](host) if server in IN_PROCESS else RealServer(server, host)
