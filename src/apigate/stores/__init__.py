"""Where buckets and windows are kept.

Stores: `memory` (with `memory_windows`), `file`, `redis`, and for windows only `memcached` and `mongodb`; `address`
opens them, with `deadline` and `shown`. Around any of them: `outage`, with its `breaker`. Windows in memory for the
package `limits`: `limits_storage`.

Of the file: `kernel` (locks), `opened`, `header`, `table`. Of Redis: `connection` (threads), `line` (event loops),
`denials`, `leases`, `redis_names`, `redis_windows`. Of windows on other servers: `window_connections`,
`window_keys`, `written_windows`.
"""
