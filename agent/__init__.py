"""The Lichen agent: what runs on a board. Start reading at :mod:`agent.app`."""
