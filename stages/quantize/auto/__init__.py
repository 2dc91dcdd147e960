"""Method auto: which nodes to quantize, and how, so that the model is fast (or small) and parity still passes.

Measuring stands at the edge (`probe`, `costs`, `timing`, `judge`), what is decided by it is pure (`problem`, `solve`,
`search`, `strain`), and `find` walks from one to the other. A plan (`plan`) holds the result, and replays it.
"""
