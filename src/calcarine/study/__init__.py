"""Human rating study: raters say which of two reconstructions is more like the original.

Two-alternative forced choice, as the human raters of Takagi & Nishimoto (2023) did it, blinded,
counterbalanced, with practice and catch trials. A study is one folder: ``study.json`` (settings
and provenance), ``study.sqlite`` (questions, raters, answers) and ``images/``.
"""
