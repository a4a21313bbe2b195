"""Questions to a search or to several: does it beat random, do batches agree, what was learnt, which is better?"""
