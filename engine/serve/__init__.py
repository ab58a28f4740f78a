"""The resident process: scheduler, HTTP service, lifecycle."""
