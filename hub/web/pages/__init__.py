"""The pages: server-rendered HTML that reads without JavaScript.  One module per page."""
