"""Seeing inside a model: pictures of its gradients."""
