"""A JSON schema of the usual kind and a grammar of SQL queries, for the tests and the benchmark of masks."""

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["new", "vip", "\u00e9t\u00e9"]}, "minItems": 1, "maxItems": 3},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 8},
                "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "address"],
    "additionalProperties": False,
}

TABLES = {
    "city": {"name": "TEXT", "people": "INTEGER", "area": "REAL"},
    "river": {"name": "TEXT", "length": "REAL", "mouth": "TEXT"},
}


def select_grammar(tables):
    """A Lark grammar of SELECT queries that each name the columns of one table of a schema."""
    rules = ["start: " + " | ".join(f"{table}_query" for table in tables)]
    for table, columns in tables.items():
        numbers = " | ".join(f'"{column}"' for column, kind in columns.items() if kind != "TEXT")
        texts = " | ".join(f'"{column}"' for column, kind in columns.items() if kind == "TEXT")
        rules.append(f"""
{table}_query: "SELECT " {table}_what " FROM {table}" [" WHERE " {table}_all] [{table}_order] [LIMIT]
{table}_order: " ORDER BY " {table}_column [" DESC"]
{table}_what: "*" | "count(*)" | AGGREGATE "(" {table}_number ")" | {table}_column (", " {table}_column)*
{table}_all: {table}_is ((" AND " | " OR ") {table}_is)*
{table}_is: {table}_number COMPARE NUMBER | {table}_text " = " STRING | "(" {table}_all ")"
{table}_column: {table}_number | {table}_text
{table}_number: {numbers}
{table}_text: {texts}
""")
    return "\n".join([*rules, r"""
AGGREGATE: "max" | "min" | "avg" | "sum"
COMPARE: " < " | " > " | " = " | " <> "
LIMIT: / LIMIT [1-9][0-9]{0,2}/
NUMBER: /-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?/
STRING: /'([^'\x00]|'')*'/
"""])  # fmt: skip
