"""Callbacks that put a probe into the training loops of other packages.

Each module needs its package, an extra of vgexp: `vgexp.integrations.lightning` and
`vgexp.integrations.transformers`.
"""
