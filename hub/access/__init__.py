"""Who may do what: the hub's own keys, admins and their logins."""
