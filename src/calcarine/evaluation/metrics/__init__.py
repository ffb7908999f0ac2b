"""Metrics: what is computed from ground truths and reconstructions.

A new metric goes to the module of the question that it answers:

====================  =====================================================================
image_similarity      How alike is a picture to its own ground truth, or a set to a set?
identification        Which of several candidates does a reconstruction show?
classification        Has a reconstruction the class of its ground truth?
array_metrics         How good are predicted embeddings and responses, without pictures?
====================  =====================================================================

`metric.py` has the base class and the registry, `catalogue.py` finds metrics by name, and
`similarity.py`, `structural_similarity.py` and `matrices.py` are their arithmetic.
"""
