"""The JSON API under /api/v1: the one list of what it can do.

Each line is an operation; its function, in the module of its noun beside this one, is the
whole truth about what comes in and goes out.  `hub.web.server` serves the list,
`hub.web.openapi` describes it, the reference in docs/ is made from it.
"""

from __future__ import annotations

from hub.web.api import (
    access,
    apps,
    boards,
    changes,
    events,
    hub,
    logs,
    problems,
    readings,
    registries,
    revocation,
    secrets,
    tokens,
)
from hub.web.api.recipes import MAX_RECIPE
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
    Route("GET", "/boards/{board}/apps", apps.list_board_apps),
    Route("GET", "/apps", apps.list_apps, table=apps.table_of),
    Route("POST", "/apps", changes.new_app, status=201, max_body=MAX_RECIPE),
    Route("POST", "/apps/check", apps.check_app, max_body=MAX_RECIPE),
    Route("GET", "/apps/{app}", apps.show_app),
    Route("DELETE", "/apps/{app}", changes.undeploy_app),
    Route("POST", "/apps/{app}/deploy", changes.deploy_app, max_body=MAX_RECIPE),
    Route("POST", "/apps/{app}/rollback", changes.roll_back_app),
    Route("POST", "/apps/{app}/scale", changes.scale_app),
    Route("POST", "/apps/{app}/restart", changes.restart_app),
    Route("POST", "/apps/{app}/stop", changes.stop_app),
    Route("POST", "/apps/{app}/start", changes.start_app),
    Route("POST", "/apps/{app}/cancel", changes.cancel_change),
    Route("GET", "/apps/{app}/history", apps.list_history, table=apps.history_table_of),
    Route("GET", "/apps/{app}/recipe", apps.show_recipe),
    Route("GET", "/apps/{app}/live", apps.follow_app, media=("text/event-stream",)),
    Route("GET", "/apps/{app}/logs", logs.read_logs, media=("text/event-stream",)),
    Route("GET", "/apps/{app}/secrets", secrets.list_secrets),
    Route("PUT", "/apps/{app}/secrets/{secret}", secrets.set_secret),
    Route("DELETE", "/apps/{app}/secrets/{secret}", secrets.remove_secret),
    Route("GET", "/registries", registries.list_registries),
    Route("PUT", "/registries/{registry}", registries.set_registry),
    Route("DELETE", "/registries/{registry}", registries.remove_registry),
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
