"""The server's answers against the OpenAPI files of the specification.

Reads what the HTTP tests wrote down (tests/harness/record.rs): each exchange that belongs to an
operation of the client-server API is validated against the schema of its status. Then counts, for
each operation, the answers of success and of failure, and compares the routes of the server with
those of the specification and of ruma. What is missing on purpose stands in exceptions.txt, with
the reason; nothing else may be missing. Names there may hold `*`.

    check.py SPECIFICATION EXCHANGES [RUMA_CLIENT_API]
"""

import fnmatch
import glob
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

METHODS = ("get", "put", "post", "delete", "patch")
HERE = Path(__file__).parent
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Operation:
    """One operation of the specification."""

    def __init__(self, name, method, path, file, pointer, responses):
        self.name, self.method, self.path = name, method, path
        self.file, self.pointer, self.responses = file, pointer, responses
        segments = [".+" if part.startswith("{") else re.escape(part)
                    for part in path.strip("/").split("/")]
        # A variable matches one segment, or nothing at the end (the empty state key).
        pattern = "/".join(part.replace(".+", "[^/]+") for part in segments)
        self.pattern = re.compile("^/" + pattern + "/?$")
        self.variables = sum(part == ".+" for part in segments)


def load_file(path):
    return yaml.load(Path(path).read_text(), Loader=Loader)


def retrieve(uri):
    contents = load_file(unquote(urlsplit(uri).path))
    return Resource.from_contents(contents, default_specification=DRAFT202012)


def operations(specification):
    folder = Path(specification) / "data/api/client-server"
    for file in sorted(folder.glob("*.yaml")):
        document = load_file(file)
        base = document["servers"][0]["variables"]["basePath"]["default"]
        for key, methods in document["paths"].items():
            for method, operation in methods.items():
                if method in METHODS:
                    pointer = ["paths", key, method, "responses"]
                    path = (base + key).strip()
                    yield Operation(operation["operationId"], method.upper(), path,
                                    file.resolve(), pointer, operation["responses"])


def escape(part):
    return str(part).replace("~", "~0").replace("/", "~1").replace("%", "%25").replace(" ", "%20")


def fragment(parts):
    # The pointer is part of a URI, so what a URI cannot hold is percent-encoded.
    return "".join("/" + escape(part).replace("{", "%7B").replace("}", "%7D") for part in parts)


def make_validators(operation, registry, cache):
    """The validator for each status that has a schema."""
    if id(operation) not in cache:
        validators = {}
        for status, response in operation.responses.items():
            content = (response or {}).get("content", {}).get("application/json", {})
            if "schema" in content:
                parts = [*operation.pointer, status, "content", "application/json", "schema"]
                reference = {"$ref": operation.file.as_uri() + "#" + fragment(parts)}
                validators[int(status)] = Draft202012Validator(reference, registry=registry)
        cache[id(operation)] = validators
    return cache[id(operation)]


def exchanges(folder):
    for name in sorted(glob.glob(f"{folder}/exchanges-*.jsonl")):
        with open(name) as lines:
            for line in lines:
                yield json.loads(line)


def find(operations, method, path):
    candidates = [operation for operation in operations
                  if operation.method == method and operation.pattern.match(path)]
    # The most literal one is meant.
    return min(candidates, key=lambda operation: operation.variables, default=None)


def exceptions():
    """Reasons by the kind of what is missing and its name."""
    reasons = {}
    for line in (HERE / "exceptions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            kind, name, reason = line.split(None, 2)
            reasons[kind, name] = reason
    return reasons


def describe(error):
    place = "/".join(str(part) for part in error.absolute_path)
    return f"at `{place}`: {error.message[:200]}"


def validate(all_operations, folder):
    cache, registry = {}, Registry(retrieve=retrieve)
    seen, violations, checked = defaultdict(Counter), Counter(), 0
    found = {}
    for exchange in exchanges(folder):
        path, status = unquote_path(exchange["path"]), exchange["status"]
        key = (exchange["method"], path)
        if key not in found:
            found[key] = find(all_operations, *key)
        operation = found[key]
        if operation is None:
            continue
        seen[operation.name]["success" if status < 400 else "failure"] += 1
        validator = make_validators(operation, registry, cache).get(status)
        if validator is None:
            continue
        checked += 1
        error = next(validator.iter_errors(exchange["body"]), None)
        if error is not None:
            violations[operation.name, status, describe(error)] += 1
    return seen, violations, checked


def unquote_path(path):
    """Without the query; percent-encoded slashes stay what they are."""
    return urlsplit(path).path


def server_routes(folder):
    file = Path(folder) / "routes.json"
    return {(route["method"], normal(route["path"])) for route in json.loads(file.read_text())}


def normal(path):
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def ruma_routes(folder):
    """Method and paths of each endpoint, from the `metadata!` of ruma's sources."""
    for file in sorted(Path(folder).rglob("*.rs")):
        for block in re.findall(r"metadata! \{(.*?)\n    ?\}", file.read_text(), re.S):
            method = re.search(r"method: (\w+)", block)
            for path in re.findall(r'"(/[^"]*)"', block):
                if method:
                    yield method[1], normal(path)


def main():
    specification, folder = sys.argv[1:3]
    all_operations = list(operations(specification))
    seen, violations, checked = validate(all_operations, folder)
    reasons = exceptions()
    used, complaints = set(), []

    def complain(kind, name, text):
        for reason in reasons:
            if reason[0] == kind and fnmatch.fnmatchcase(name, reason[1]):
                used.add(reason)
                return
        complaints.append(f"{kind} {name}: {text}")

    routes = server_routes(folder)
    for operation in all_operations:
        if (operation.method, normal(operation.path)) not in routes:
            complain("route", f"{operation.method}:{normal(operation.path)}",
                     "the specification has it, the server does not")
            continue
        for outcome in ("success", "failure"):
            if not seen[operation.name][outcome]:
                complain(outcome, operation.name, f"no test answers it with a {outcome}")
    for method, path in sorted(set(ruma_routes(sys.argv[3])) if len(sys.argv) > 3 else set()):
        if (method, path) not in routes:
            complain("route", f"{method}:{path}", "ruma has it, the server does not")
    for (name, status, text), count in violations.most_common():
        complain("schema", f"{name}:{status}", f"{text} ({count} times)")
    for kind, name in sorted(set(reasons) - used):
        complaints.append(f"{kind} {name}: stands in exceptions.txt and is not missing")
    for complaint in complaints:
        print(f"openapi: {complaint}")
    print(f"openapi: {len(all_operations)} operations, {checked} answers validated, "
          f"{len(used)} exceptions")
    passed = checked - sum(violations.values())
    print(f"openapi: {passed} passed, {len(complaints)} failed")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
