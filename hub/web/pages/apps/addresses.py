"""The addresses of the pages about apps.  `hub.web.server` adds them once."""

from __future__ import annotations

from aiohttp import web

from hub.web.pages.apps import bell, deeds, deploy, listing, logs, on_board, one, past, settings


def add_pages(router: web.UrlDispatcher) -> None:
    """The addresses below /apps, and that of the bell which tells open pages to look again."""
    router.add_get("/live", bell.ring)
    router.add_get("/boards/{board}/apps", on_board.show_board_apps)
    router.add_get("/apps", listing.show_apps)
    router.add_get("/apps/new", deploy.show_new)
    router.add_post("/apps/new", deploy.post_new)
    router.add_get("/apps/{app}", one.show_app)
    router.add_get("/apps/{app}/deploy", deploy.show_deploy)
    router.add_post("/apps/{app}/deploy", deploy.post_deploy)
    router.add_get("/apps/{app}/history", past.show_history)
    router.add_get("/apps/{app}/logs", logs.show_logs)
    router.add_get("/apps/{app}/settings", settings.show_settings)
    router.add_get("/apps/{app}/secrets/{secret}", settings.show_secret)
    router.add_post("/apps/{app}/secrets/{secret}", settings.set_secret)
    router.add_get("/apps/{app}/{deed:restart|stop|start|scale|rollback|cancel|remove}", deeds.show_deed)
    router.add_post("/apps/{app}/{deed:restart|stop|start|scale|rollback|cancel|remove}", deeds.do_deed)
