"""What the files of a table hold, as another program reads them: python3 read_tables.py PROGRAM < columns.json

Asked on standard input: {"files": [path, …], "columns": {name: kind, …}} with the kinds "instant", "number", "address" and "name".
Answered on standard output: {name: [rows, sum, least, most]} of instants (UTC milliseconds) and numbers, and {name: [[value, rows], …]}
of addresses (hexadecimal) and names, in the order of their values. PROGRAM is pyarrow, duckdb, polars, fastparquet or
clickhouse (the command on PATH).
"""

import collections
import json
import subprocess
import sys


def numbers(values):
    values = [int(value) for value in values]
    return [str(number) for number in (len(values), sum(values), min(values), max(values))]


def counted(values):
    return sorted([value, rows] for value, rows in collections.Counter(values).items())


def of_values(columns, values_of):
    """From a function that gives all the values of a column as Python has them."""
    found = {}
    for name, kind in columns.items():
        values = values_of(name, kind)
        found[name] = numbers(values) if kind in ("instant", "number") else counted(values)
    return found


def pyarrow(files, columns):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = arrow.concat_tables([parquet.read_table(file) for file in files])

    def values_of(name, kind):
        column = table.column(name)
        if kind == "instant":
            assert column.type == arrow.timestamp("ms", "UTC"), column.type
            column = column.cast(arrow.int64())
        values = column.to_pylist()
        return [value.hex() for value in values] if kind == "address" else values

    return of_values(columns, values_of)


def duckdb(files, columns):
    import duckdb as database

    connection = database.connect()
    connection.execute("SET TimeZone = 'UTC'")
    source = "read_parquet([" + ", ".join(f"'{file}'" for file in files) + "])"
    expressions = {"instant": "epoch_ms({0})", "number": "{0}", "address": "lower(hex({0}))", "name": "{0}"}
    return of_sql(columns, expressions, "sum({0}::HUGEINT)", lambda query: connection.execute(query).fetchall(), source)


def clickhouse(files, columns):
    def rows_of(query):
        command = ["clickhouse", "local", "--output-format", "JSONCompactStringsEachRow", "--query", query]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    # A pattern that begins with a brace would be looked for in the current folder.
    source = "file('/{" + ",".join(file.removeprefix("/") for file in files) + "}', Parquet)"
    expressions = {
        "instant": "toUnixTimestamp64Milli(assumeNotNull({0}))",
        "number": "assumeNotNull({0})",
        "address": "lower(hex(assumeNotNull({0})))",
        "name": "assumeNotNull({0})",
    }
    return of_sql(columns, expressions, "sum(toUInt128({0}))", rows_of, source)


def of_sql(columns, expressions, sum_of, rows_of, source):
    found = {}
    for name, kind in columns.items():
        value = expressions[kind].format(f'"{name}"')
        if kind in ("instant", "number"):
            query = f"SELECT count(*), {sum_of.format(value)}, min({value}), max({value}) FROM {source}"
            found[name] = [str(number) for number in rows_of(query)[0]]
        else:
            rows = rows_of(f"SELECT {value} AS value, count(*) FROM {source} GROUP BY 1")
            found[name] = sorted([value, int(rows)] for value, rows in rows)
    return found


def polars(files, columns):
    import polars as frames

    frame = frames.concat([frames.read_parquet(file) for file in files])

    def values_of(name, kind):
        column = frame[name]
        if kind == "instant":
            assert column.dtype == frames.Datetime("ms", "UTC"), column.dtype
            column = column.to_physical()
        values = column.to_list()
        return [value.hex() for value in values] if kind == "address" else values

    return of_values(columns, values_of)


def fastparquet(files, columns):
    import fastparquet as parquet

    frames = [parquet.ParquetFile(file).to_pandas() for file in files]

    def values_of(name, kind):
        values = []
        for frame in frames:
            column = frame[name]
            if kind == "instant":
                # It gives UTC without saying so.
                column = (column.dt.tz_convert(None) if column.dt.tz else column).astype("datetime64[ms]").astype("int64")
            values.extend(column.tolist())
        if kind == "address":
            # NumPy's fixed-length bytes leave zeros out at the end.
            return [bytes(value).ljust(16, b"\0").hex() for value in values]
        return values

    return of_values(columns, values_of)


PROGRAMS = {"pyarrow": pyarrow, "duckdb": duckdb, "polars": polars, "fastparquet": fastparquet, "clickhouse": clickhouse}

asked = json.load(sys.stdin)
json.dump(PROGRAMS[sys.argv[1]](asked["files"], asked["columns"]), sys.stdout)
