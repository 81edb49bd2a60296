"""Of what the names of gateways and stages are made: parts of larger names, which no part may forge."""

__all__ = ["NAME_CHARACTERS"]

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
"""No colon, which separates the parts, and no brace, which tells a Redis cluster where a key belongs."""
