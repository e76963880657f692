"""The usage log at the hub: what boards have signed is witnessed, kept, and turned into statements."""
