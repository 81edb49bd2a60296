"""Caching: a shared HTTP cache as RFC 9111 has it, of parts that know neither sockets nor clocks.

A request's way, in this order:

- `mark`, `settings`: the policy of an endpoint, as it is written down
- `policy`: the gate of phase CACHE; `asking`: the same without a gateway
- `owner`: whose the response is
- `lookup`: what becomes of the request; `key`, `reuse` and `coalescing` say so
- `answer`: what is sent of a stored response
- `exchange`: what an adapter tells the cache of the app's response; it is a `fill`, or of `invalidation`

What is kept, and for how long:

- `cache`: the cache of a stage, over `memory` (this process) and `shared` (what workers share)
- `entry`, `head`, `storedfields`: a stored response, and what of the app's it is made of
- `storability`, `freshness`, `variance`, `validation`: RFC 9111, sections 3, 4.2, 4.1 and 4.3
- `generations`: what has been invalidated
- `status`: Cache-Status; `sizes`: bytes as they are written in a configuration

What is read from fields, each in a module of its own that never raises:

- `dates`: HTTP-date
- `structured`: structured fields, on which `search`, `groups` and targeted fields stand
- `directives`: Cache-Control, targeted fields, Age
- `etags`: entity tags and their comparison
- `ranges`: Range, Content-Range, multipart/byteranges
- `search`: No-Vary-Search
- `groups`: Cache-Groups, Cache-Group-Invalidation
- `query`: the part of a query that is a key

What workers share, beside their own memory:

- `store`: the boundary, values and a log of invalidations
- `shared`: generations that follow the log, responses that are put and found
- `codec`: stored responses as bytes
- `encryption`: the same, unreadable
"""
