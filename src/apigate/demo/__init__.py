"""The demo: a pet store behind a gateway, to be tried by hand (`apigate demo`) or shown by a tour (`--once`).

`settings` is the gateway. `store` is the app in plain ASGI, `flask_store`, `fastapi_store` and `django_store` are the
same as users of these would write it, `frameworks` lists the four. `server` serves them, `tour` sends requests,
`report` lays out what came of them. Only the command line prints.
"""
