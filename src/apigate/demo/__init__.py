"""The demo: a pet store behind a gateway, to be tried by hand (`apigate demo`) or shown by a tour (`--once`).

`settings` is the gateway, `store` the app, `server` serves both, `tour` sends requests, `report` lays out what came
of them. Only the command line prints.
"""
