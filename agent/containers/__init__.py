"""Apps on this board: orders in, containers run by Podman, what became of them out."""
