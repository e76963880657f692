"""The Lichen agent: what runs on a board. Start reading at :mod:`agent.app`."""

__version__ = "0.1.0"
