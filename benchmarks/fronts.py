"""A proxy in front of an app: which program, how it is told, how it is started."""

import shutil
import socket
from pathlib import Path
from typing import NamedTuple

__all__ = ["Front"]


class Front(NamedTuple):
    """A program that listens on loopback and leaves nothing behind but what is in its own folder.

    In the texts `FOLDER`, `OWN_PORT` and `APP_PORT` stand for what is known when it is started.

    Attributes:
        program: What is on the path.
        package: What the system calls its package.
        file: Its configuration, in its folder.
        template: The text of it.
        arguments: What follows the program's name.
    """

    program: str
    package: str
    file: str
    template: str
    arguments: tuple[str, ...]

    def prepare(self, folder: str, app_port: int) -> tuple[int, socket.socket, list[str]]:
        """Write the configuration; the port that it will listen on, what keeps it free, and the command that starts it.

        Who sets SO_REUSEADDR, as these do, may bind it too; nobody else is given it.
        """
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        known = {"FOLDER": folder, "OWN_PORT": str(port), "APP_PORT": str(app_port)}
        Path(folder, self.file).write_text(_filled(self.template, known), encoding="utf-8")
        return port, holder, [str(shutil.which(self.program)), *(_filled(text, known) for text in self.arguments)]


def _filled(text: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        text = text.replace(name, value)
    return text
