"""The denoising loop and its samplers."""
