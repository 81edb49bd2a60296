"""Where buckets and windows are kept.

Stores: `memory` (with `memory_windows`), `file`, `redis`, and for windows only `memcached` and `mongodb`. `address`
opens them, with `deadline` and `shown`. Around any of them stands `guarded` (with `guarded_windows`) and its `breaker`.

What begins with `file_` is the inside of the file store: kernel (locks), opened, header, table. What begins with
`redis_` that of Redis: address, clients, connection (threads), line (event loops), the two scripts, denials, leases,
names, windows. Of windows on other servers: `written_windows`, `written_names`, `storage_connections`. Windows in
memory for the package `limits` itself: `limits_storage`.

What begins with `cache_` keeps responses: in a `file` (laid out by `layout`) or in `redis` (with its script), each
`guarded` by a breaker; `address` opens them.
"""
