"""The hub's memory: the schema and all of its SQL, a function per question."""
