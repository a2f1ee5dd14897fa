"""From a trained model, data and a target to a smaller model and an honest report."""
