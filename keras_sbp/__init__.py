"""Structured Bayesian Pruning for Keras."""
