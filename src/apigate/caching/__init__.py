"""Caching: a shared HTTP cache as RFC 9111 has it, of parts that know neither sockets nor clocks.

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
