"""Diffusion infilling: text in, text out. Knows nothing of editors, URIs or lines."""
