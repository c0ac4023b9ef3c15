"""Processes, sockets and threads. Knows settings alone, so that a broken store cannot break it."""
