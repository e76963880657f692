"""Apps at the hub: recipes in, signed orders for boards out."""
