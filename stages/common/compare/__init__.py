"""Two models on the same data: how far do their outputs differ, and does it matter?"""
