"""The pages about apps: one module for each screen.

They do what the API does, by the same functions, in the name of whoever is logged in; what is about to happen
stands on a page of its own before the button that does it.
"""
