"""The connection to the editor: messages, positions, what the client can do, log lines."""
