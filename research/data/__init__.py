"""Text on its way to a batch: TFDS sources -> seqio tasks -> packed token file -> batch(step).

Preparing imports tensorflow, seqio and sentencepiece (corpus, tasks, tokenizers, packing); training reads token files
with numpy alone (token_file, batches). Synthetic tasks come from `synthetic`. What a step reads is a pure function of
the step.
"""
