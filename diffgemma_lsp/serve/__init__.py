"""The engine behind a TCP port, for clients that speak one of the HTTP APIs for completions."""
