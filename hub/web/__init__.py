"""The hub's face: the HTTP API with its OpenAPI document, the pages, the live stream.

Start reading at `hub.web.server`, which puts the parts together, and at `hub.web.api.table`,
the one list of what the API can do.  Nothing here holds state that may not be lost: it all
comes from the store, and from `hub.fleet.latest`, which is a picture of it.
"""
