"""nginx in front of an app: one process that listens on loopback and leaves nothing behind.

Rule: as lean as its documentation allows: connections to the app are kept, nothing is logged.
"""

from benchmarks.fronts import Front

__all__ = ["CACHE", "LIMITED", "PROXY", "REFUSED", "REFUSING"]

REFUSED = 429


TEMPLATE = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    sendfile on;
    proxy_cache_path cache keys_zone=kept:1m;
    limit_req_status 429;
    limit_req_log_level info;
    limit_req_zone $binary_remote_addr zone=fast:1m rate=1000000r/s;
    limit_req_zone $binary_remote_addr zone=slow:1m rate=1r/m;
    upstream app {
        server 127.0.0.1:APP_PORT;
        keepalive 64;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:OWN_PORT;
        location / {
            DIRECTIVES
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
"""


def _front(directives: str) -> Front:
    """With these in its one location."""
    return Front(
        program="nginx",
        package="nginx",
        file="nginx.conf",
        template=TEMPLATE.replace("DIRECTIVES", directives),
        arguments=("-p", "FOLDER", "-c", "nginx.conf", "-e", "stderr"),
    )


PROXY = _front("")
LIMITED = _front("limit_req zone=fast burst=1000000 nodelay;")
REFUSING = _front("limit_req zone=slow nodelay;")
CACHE = _front("proxy_cache kept; add_header X-Cache $upstream_cache_status;")
