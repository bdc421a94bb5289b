"""Structured output: a JSON schema, a regular expression or a Lark grammar as the mask of the next token.

    from research.generation.structured.constraint import GrammarConstraint
    from research.generation.structured.grammar import json_schema  # or regex, lark

    grammar = json_schema(Path("answer.json").read_text())      # refuses what no mask could enforce, and says where
    constraint = GrammarConstraint(grammar, rows, pieces, end)  # pieces: the bytes of each id, None for control ids
    while running_B.any():
        tokens_B = choose(logits_BV, constraint.masks())        # bit v % 32 of word v // 32: id v may come next
        constraint.advance(tokens_B, running_B)

The end id is allowed exactly where a row's text is a whole text of the grammar, so that every row that ended by it is
valid; one that was cut short by its length is not. Any vocabulary of bytes will do, with tokens that begin or end
inside a character: all of those that keep the text a prefix of some text of the grammar are allowed, not only the way
in which a tokenizer would have written it. A SentencePiece model writes U+2581 for a space and <0xNN> for a byte:
`pieces` holds the space and the byte.

`repair.repaired` is the other way, after the fact: it makes JSON of what is nearly JSON. The packages behind both come
with `pip install '.[structured]'`.
"""
