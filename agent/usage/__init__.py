"""The usage log of a board: what its containers used, in a log that nobody can rewrite unseen."""
