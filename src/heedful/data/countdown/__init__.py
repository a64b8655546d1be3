"""Countdown: combine all the numbers with + - * / until one is left and it is the target.

The game, its instances and splits, twelve symbolic searchers whose search is written down as text (a stream of search),
the compact language for it, and the verifiers (Gandhi et al. 2024, arXiv 2404.03683).

`game` and everything that reads streams (`lines`, `codec`, `replay`, `paper_verdict`) is plain Python. `searchers`,
`writers` and `sampler` are compiled by numba when first called; `streams` and `shards` call them.
"""
