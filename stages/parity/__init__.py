"""Does the INT8 model still give the same answers?"""
