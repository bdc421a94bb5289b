"""Text on its way to a batch: TFDS source -> split -> seqio task -> token file of the source -> mixture -> batch(step).

Preparing imports tensorflow, seqio and sentencepiece (corpus, tasks, tokenizers, packing); training reads token files
with numpy alone (token_file, mixture, batches), and what a step reads is a pure function of the step. `splitting` says
which documents are used, `describe` what came of it. Synthetic tasks come from `synthetic`.
"""
