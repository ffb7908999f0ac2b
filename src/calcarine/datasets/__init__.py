"""Responses of brains to stimuli: one module a data set, behind one registry."""
