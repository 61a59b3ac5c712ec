"""The tables that travel between stages: column, type, unit and index convention, a line each.

Characters are Unicode code points (indices into a Python `str`); character ends are half-open,
token positions are inclusive.
"""

import pyarrow as pa

ANSWERS = pa.struct(
    [
        ("text", pa.list_(pa.string())),  # accepted answers; empty: unanswerable
        ("answer_start", pa.list_(pa.int32())),  # their first characters in the context
    ]
)

EXAMPLES = pa.schema(
    [
        ("id", pa.string()),  # unique in a run
        ("title", pa.string()),  # of the document; "" where the source has none
        ("context", pa.string()),
        ("question", pa.string()),
        ("answers", ANSWERS),
        ("source", pa.string()),  # the path or name the example was read from
    ]
)

REJECTIONS = pa.schema(
    [
        ("source", pa.string()),  # the path or name the record was read from
        ("record", pa.int64()),  # number of the record in its source, from 0, accepted ones counted
        ("id", pa.string()),  # the record's id; "" where it has none
        ("reason", pa.string()),  # a few fixed words, to count by
        ("detail", pa.string()),  # where in the source, what was found and expected
    ]
)

OFFSETS = pa.list_(pa.list_(pa.int32(), 2))

FEATURES = pa.schema(
    [
        ("example_id", pa.string()),
        ("window_index", pa.int32()),  # number of the window in its example, from 0
        ("input_ids", pa.list_(pa.int32())),  # special tokens included, no padding
        ("token_type_ids", pa.list_(pa.int8())),  # segment of each token
        ("offset_mapping", OFFSETS),  # half-open characters of context tokens, (-1, -1) for others
        ("start_positions", pa.int32()),  # token in the window; cls_index without the answer
        ("end_positions", pa.int32()),  # token in the window, inclusive; cls_index likewise
        ("cls_index", pa.int32()),  # token in the window that stands for "no answer"
    ]
)

TOKENS = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),  # of one text, without special tokens
        ("offset_mapping", OFFSETS),  # half-open characters of contexts, (-1, -1) for other texts
    ]
)

# Examples as they are kept with their tokens: a passage once, though many questions have it.
STORED_EXAMPLES = pa.schema(
    [
        *(field for field in EXAMPLES if field.name != "context"),
        ("context", pa.dictionary(pa.int32(), pa.string())),
        ("record", pa.int64()),  # number of the record in its source, from 0
        ("context_text", pa.int32()),  # row of TOKENS
        ("question_text", pa.int32()),  # row of TOKENS
        ("start_tokens", pa.list_(pa.int32())),  # of each accepted answer, in its context
        ("end_tokens", pa.list_(pa.int32())),  # likewise, inclusive
    ]
)

N_BEST = pa.struct(
    [
        ("text", pa.string()),  # "" for the null answer
        ("start_char", pa.int32()),  # -1 for the null answer
        ("end_char", pa.int32()),  # half-open; -1 for the null answer
        ("score", pa.float32()),  # start logit + end logit
        ("probability", pa.float32()),  # softmax of the scores over this list
    ]
)

ANSWERED = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),  # a slice of the context; "" for the null answer
        ("start_char", pa.int32()),  # -1 for the null answer
        ("end_char", pa.int32()),  # half-open; -1 for the null answer
        ("score", pa.float32()),  # start logit + end logit; -inf where no window had a valid span
        ("null_score", pa.float32()),  # smallest over windows of the logits at cls_index, summed
        ("n_best", pa.list_(N_BEST)),  # best first
    ]
)

CANDIDATE = pa.struct(
    [
        ("text", pa.string()),  # "" for the null answer
        ("start", pa.int32()),  # first character; -1 for the null answer
        ("end", pa.int32()),  # half-open; -1 for the null answer
        ("probability", pa.float32()),  # among the candidates that were decoded
        ("score", pa.float32()),  # start logit + end logit
    ]
)

# Answers to new questions as people take them, from files or from the Answerer.
PREDICTED = pa.schema(
    [
        ("id", pa.string()),
        ("answer", pa.string()),  # a slice of the context; "" for none
        ("start", pa.int32()),  # its first character; -1 for none
        ("end", pa.int32()),  # half-open; -1 for none
        ("probability", pa.float32()),  # of the answer given, among the candidates; 0 without any
        ("null_odds", pa.float64()),  # null score - score of the best span; null where v1.1
        ("no_answer_probability", pa.float64()),  # sigmoid of null_odds; null likewise
        ("n_best", pa.list_(CANDIDATE)),  # the answer given first, then the others, best first
    ]
)

# Answers as the report shows them, beside what was accepted. Characters count in the whole context.
EXPLORED = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),  # the path or name the example was read from
        ("question", pa.string()),  # or its beginning
        ("context", pa.string()),  # or a part of it
        ("context_key", pa.uint64()),  # hash of the whole context
        ("context_start", pa.int32()),  # characters of the context before that part
        ("context_length", pa.int32()),  # characters of the whole context
        ("gold_starts", pa.list_(pa.int32())),  # of accepted answers, each place once; empty: none
        ("gold_ends", pa.list_(pa.int32())),  # likewise, half-open
        ("answer", pa.string()),  # that was given, or its beginning; "" for none
        ("start", pa.int32()),  # its first character; -1 for none, and where it is not known
        ("end", pa.int32()),  # half-open; -1 likewise
        ("probability", pa.float32()),  # among the candidates; null where it is not known
        ("null_odds", pa.float64()),  # null score - score of the best span; null where v1.1
        ("n_best_starts", pa.list_(pa.int32())),  # of candidates, best first; -1: no answer
        ("n_best_ends", pa.list_(pa.int32())),  # likewise, half-open
        ("n_best_probabilities", pa.list_(pa.float32())),  # likewise
        ("window_starts", pa.list_(pa.int32())),  # first character of each window; empty: unknown
        ("window_ends", pa.list_(pa.int32())),  # likewise, half-open
        ("exact", pa.float64()),  # 0 or 1
        ("f1", pa.float64()),  # 0 to 1
        ("question_word", pa.string()),  # names of groups, see qa_core.slices
        ("answer_words", pa.string()),  # likewise
        ("context_tokens", pa.string()),  # likewise; null without a model
        ("num_windows", pa.string()),  # likewise; null without a model
    ]
)
