"""Prints the sheets of a workbook (ECMA-376) as JSON: {name: [[cell, ...], ...]}, each cell as its text.

A reader of its own, by the standard library alone: what our writer makes is read by somebody else's rules.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"


def column(reference):
    """The column of a cell such as AB12, from 0."""
    number = 0
    for letter in reference:
        if not letter.isalpha():
            break
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def text(element):
    return "".join(part.text or "" for part in element.iter(MAIN + "t"))


def value(cell, shared):
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return text(cell)
    stored = cell.find(MAIN + "v")
    if stored is None:
        return ""
    return shared[int(stored.text)] if kind == "s" else stored.text


def rows(sheet, shared):
    for row in sheet.iter(MAIN + "row"):
        cells = {column(cell.get("r")): value(cell, shared) for cell in row.iter(MAIN + "c")}
        yield [cells.get(number, "") for number in range(max(cells, default=-1) + 1)]


def main(path):
    with zipfile.ZipFile(path) as package:
        parse = lambda name: ElementTree.fromstring(package.read(name))
        shared = []
        if "xl/sharedStrings.xml" in package.namelist():
            shared = [text(entry) for entry in parse("xl/sharedStrings.xml").iter(MAIN + "si")]
        parts = {one.get("Id"): one.get("Target") for one in parse("xl/_rels/workbook.xml.rels").iter(PACKAGE + "Relationship")}
        sheets = {}
        for sheet in parse("xl/workbook.xml").iter(MAIN + "sheet"):
            part = parts[sheet.get(RELATION)].lstrip("/")
            part = part if part.startswith("xl/") else "xl/" + part
            sheets[sheet.get("name")] = list(rows(parse(part), shared))
    json.dump(sheets, sys.stdout)


main(sys.argv[1])
