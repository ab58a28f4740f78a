"""The networks: configs, layers, attention heads; what a checkpoint is as a forward pass."""
