"""The JSON API under /api/v1: the one list of what it can do.

Each line is an operation; its function, in the module of its noun beside this one, is the
whole truth about what comes in and goes out.  `hub.web.server` serves the list,
`hub.web.openapi` describes it, the reference in docs/ is made from it.
"""

from __future__ import annotations

from hub.web.api import access, boards, events, hub, problems, readings, revocation, tokens
from hub.web.api.route import Route

ROUTES = (
    Route("GET", "/hub", hub.show_hub),
    Route("GET", "/openapi.json", hub.show_document, media=("application/json",)),
    Route("GET", "/boards", boards.list_boards, table=boards.table_of),
    Route("GET", "/boards/{board}", boards.show_board),
    Route("PATCH", "/boards/{board}", boards.change_board),
    Route("POST", "/boards/{board}/revoke", revocation.revoke_board),
    Route("GET", "/boards/{board}/sensors", boards.list_sensors, table=boards.sensor_table_of),
    Route("GET", "/boards/{board}/readings", readings.read_series, table=readings.table_of),
    Route("GET", "/boards/{board}/readings/raw", readings.read_raw, media=("text/csv",)),
    Route("GET", "/boards/{board}/events", events.list_board_events, table=events.table_of),
    Route("GET", "/boards/{board}/problems", problems.list_board_problems, table=problems.table_of),
    Route("GET", "/events", events.list_events, table=events.table_of),
    Route("GET", "/problems", problems.list_problems, table=problems.table_of),
    Route("GET", "/live", hub.follow_live, media=("text/event-stream",)),
    Route("GET", "/tokens", tokens.list_tokens),
    Route("POST", "/tokens", tokens.new_token, status=201),
    Route("DELETE", "/tokens/{token}", tokens.revoke_token),
    Route("POST", "/login", access.log_in, public=True),
    Route("GET", "/me", access.show_me),
    Route("GET", "/api-tokens", access.list_api_tokens),
    Route("POST", "/api-tokens", access.new_api_token, status=201),
    Route("DELETE", "/api-tokens/{token}", access.revoke_api_token),
)
