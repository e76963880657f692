"""The Lichen hub: one operator's controller. Start reading at :mod:`hub.app`."""
