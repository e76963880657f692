"""What both processes stand on: running, logging, SQLite, the MQTT edge."""
