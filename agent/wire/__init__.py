"""The contract between boards and hubs: formats only, no I/O, no asyncio.

Every module here is its own specification: the docstring says what bytes travel and
shows an example that a test runs. Both sides import it; it imports neither side.
"""
