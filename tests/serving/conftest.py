"""A tiny model, served in this process."""

from serving_server import ask, folder, server

__all__ = ["ask", "folder", "server"]
