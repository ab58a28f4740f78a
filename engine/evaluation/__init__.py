"""How good a model is: holes in real code, answers of the model and of baselines, error bars."""
