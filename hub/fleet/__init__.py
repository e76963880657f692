"""The hub's boards: the broker, joining, certificates, and what boards report."""
