"""A stand-in for MongoDB, as no mongod can be had from any package registry: run as `python -m tests.mongo_stand_in`.

What clients send and get is MongoDB's wire protocol (OP_MSG, by pymongo's own `bson`), over a real socket, so the real
drivers run; behind it `mongomock` finds, inserts, replaces and deletes. It is no proof of what only a server does:
replication, elections, its own time, dropping what has expired.
"""

import socketserver
import struct
import sys
import threading
from typing import Any

import bson
import mongomock
from mongomock import DuplicateKeyError

OP_MSG, OP_QUERY, OP_REPLY = 2013, 2004, 1
HELLO = {
    "isWritablePrimary": True,
    "ismaster": True,
    "helloOk": True,
    "maxBsonObjectSize": 16_777_216,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
    "ok": 1.0,
}

ENGINE = mongomock.MongoClient()
LOCK = threading.Lock()  # a real server changes one document in one step; mongomock's steps are ours to keep apart


def run(command: dict[str, Any]) -> dict[str, Any]:
    """The answer to a command."""
    name = next(iter(command))
    if name.lower() in ("hello", "ismaster"):
        return HELLO
    if name in ("ping", "endSessions", "createIndexes", "killCursors"):
        return {"ok": 1.0}
    do = COMMANDS.get(name)
    if do is None:
        return {"ok": 0.0, "code": 59, "codeName": "CommandNotFound", "errmsg": f"no such command: {name!r}"}
    with LOCK:
        return {**do(ENGINE[command["$db"]][command[name]], command), "ok": 1.0}


def find(collection: Any, command: dict[str, Any]) -> dict[str, Any]:
    """One document."""
    found = collection.find_one(command["filter"])
    return {"cursor": {"firstBatch": [] if found is None else [found], "id": 0, "ns": collection.full_name}}


def insert(collection: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Insert one document, or say that there is one."""
    (document,) = command["documents"]
    try:
        collection.insert_one(document)
    except DuplicateKeyError:
        error = {"index": 0, "code": 11_000, "errmsg": f"E11000 duplicate key: {document['_id']!r}"}
        return {"n": 0, "writeErrors": [error]}
    return {"n": 1}


def update(collection: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Replace one document."""
    (asked,) = command["updates"]
    done = collection.replace_one(asked["q"], asked["u"], upsert=asked.get("upsert", False))
    return {"n": done.matched_count, "nModified": done.modified_count}


def delete(collection: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Delete one document, or all that match."""
    (asked,) = command["deletes"]
    remove = collection.delete_one if asked["limit"] else collection.delete_many
    return {"n": remove(asked["q"]).deleted_count}


COMMANDS = {"find": find, "insert": insert, "update": update, "delete": delete}


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        while head := self.rfile.read(16):
            length, request, _, kind = struct.unpack("<iiii", head)
            body = self.rfile.read(length - 16)
            if kind == OP_MSG:
                payload = struct.pack("<I", 0) + b"\0" + bson.encode(run(message(body)))
                answer = OP_MSG
            else:  # an old hello
                _, rest = body[4:].split(b"\0", 1)
                payload = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(run(bson.decode(rest[8:])))
                answer = OP_REPLY
            self.wfile.write(struct.pack("<iiii", 16 + len(payload), request, request, answer) + payload)


def message(body: bytes) -> dict[str, Any]:
    """The command in an OP_MSG: its one document, and the lists that come beside it."""
    place, command = 4, {}
    while place < len(body):
        kind, place = body[place], place + 1
        (size,) = struct.unpack_from("<i", body, place)
        section = body[place : place + size]
        if kind == 0:
            command = {**bson.decode(section), **command}
        else:
            name, documents = section[4:].split(b"\0", 1)
            command[name.decode()] = bson.decode_all(documents)
        place += size
    first = next(each for each in command if each not in ("documents", "updates", "deletes"))
    return {first: command.pop(first), **command}


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()
