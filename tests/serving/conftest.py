"""A tiny model, served in this process."""

from serving_server import ask, folders, server

__all__ = ["ask", "folders", "server"]
