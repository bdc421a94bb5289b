"""The arrays of a batch: their names, said here alone.

inputs, targets     int32 (B, L): what the model reads, and the token it is to predict at each position
weights             float32 (B, L): of each target in the loss; zero where there is none
sources             int32 (B, S): what an encoder reads
source_weights      float32 (B, S): one at a token, zero at padding
labels              int32 (B,): of each row its class, or whether it is right (1) or wrong (0)
label_weights       float32 (B, L): of each input as one after which a head judges the row; zero where none does
"""

TEXT_ARRAYS = ("inputs", "targets", "weights")
PAIRED_ARRAYS = (*TEXT_ARRAYS, "sources", "source_weights")  # of an encoder-decoder
LABEL_ARRAYS = ("labels", "label_weights")
ROW_ARRAYS = ("labels",)  # with one number a row
