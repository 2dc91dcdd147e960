"""Method auto: which nodes to quantize, and how, so that the model is fast (or small) and parity still passes.

`probe`, `costs`, `timing` and `judge` measure; `problem`, `solve`, `search` and `strain` decide by these figures, and
are pure; `find` connects them. A plan (`plan`) holds the result, and method plan replays it.
"""
