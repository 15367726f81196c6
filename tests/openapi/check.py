"""The server's answers against the OpenAPI files of the specification.

Reads what the HTTP tests wrote down (tests/harness/record.rs): each exchange that belongs to an
operation of the client-server API is validated against the schema of its status; each error must
say what it is, and each answer must be readable by scripts of other origins (CORS). Then counts,
for each operation, the answers of success and of failure, and compares the routes of the server
with those of the specification and of ruma. What is missing on purpose stands in exceptions.txt,
with the reason; nothing else may be missing. Names there may hold `*`.

    check.py SPECIFICATION EXCHANGES [RUMA_CLIENT_API]
"""

import fnmatch
import glob
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

METHODS = ("get", "put", "post", "delete", "patch")
# What any operation may answer; a failure of its own is something else.
TOKEN_ERRORS = ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")
HERE = Path(__file__).parent
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Operation:
    """One operation of the specification."""

    def __init__(self, name, method, path, file, pointer, responses):
        self.name, self.method, self.path = name, method, path
        self.file, self.pointer, self.responses = file, pointer, responses
        parts = path.strip("/").split("/")
        pattern = "".join("/[^/]+" if part.startswith("{") else "/" + re.escape(part)
                          for part in parts)
        if parts[-1] == "{stateKey}":
            # An empty one may be left out, with its slash.
            pattern = pattern.removesuffix("/[^/]+") + "(/[^/]*)?"
        self.pattern = re.compile("^" + pattern + "/?$")
        self.variables = sum(part.startswith("{") for part in parts)
        # Whether the specification names an error that only this operation has.
        self.has_error = any(int(status) >= 400 and int(status) not in (401, 429)
                             for status in responses)


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


def find(operations, exchange):
    path = urlsplit(exchange["path"]).path
    candidates = [operation for operation in operations
                  if operation.method == exchange["method"] and operation.pattern.match(path)]
    # The most literal one is meant; two endpoints are described twice, by what they are given.
    least = min((operation.variables for operation in candidates), default=0)
    candidates = {operation.name: operation for operation in candidates
                  if operation.variables == least}
    if "peekEvents" in candidates:
        peeks = "room_id" in parse_qs(urlsplit(exchange["path"]).query)
        return candidates["peekEvents" if peeks else "getEvents"]
    if "inviteBy3PID" in candidates:
        by_address = "medium" in exchange["fields"]
        return candidates["inviteBy3PID" if by_address else "inviteUser"]
    return next(iter(candidates.values()), None)


def exceptions():
    """Reasons by the kind of what is missing and its name."""
    reasons = {}
    for line in (HERE / "exceptions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            kind, name, reason = line.split(None, 2)
            reasons[kind, name] = reason
    return reasons


def place(error):
    return "/".join(str(part) for part in error.absolute_path)


def wrongs(exchange):
    """What every answer must be, whatever was asked."""
    status, body, kind = exchange["status"], exchange["body"], exchange["type"] or ""
    if not exchange["path"].startswith(("/_matrix/client/", "/_matrix/media/")):
        return
    if exchange["cors"] != "*":
        yield "cors", "scripts of other origins cannot read it"
    is_page = kind.startswith("text/html")
    is_told = exchange["method"] != "HEAD" and not is_page and not is_challenge(exchange)
    if status >= 400 and is_told:
        texts = [body.get(name) for name in ("errcode", "error")] if isinstance(body, dict) else []
        if not (texts and all(isinstance(text, str) and text for text in texts)):
            yield "error", "it does not say what is wrong, as `errcode` and `error`"


def is_token_error(exchange):
    body = exchange["body"]
    return isinstance(body, dict) and body.get("errcode") in TOKEN_ERRORS


def is_challenge(exchange):
    """Whether it asks for a stage of user-interactive authentication, and nothing was wrong."""
    body = exchange["body"]
    return isinstance(body, dict) and "flows" in body and "errcode" not in body


def outcome(operation, exchange):
    """Whether it is a success or a failure of this operation, or neither."""
    if exchange["status"] < 400:
        return "success"
    asks = exchange["status"] == 401 and (is_token_error(exchange) or is_challenge(exchange))
    return None if asks and operation.has_error else "failure"


def validate(all_operations, folder, is_excepted):
    """Counts outcomes, complaints and the answers that were checked."""
    cache, registry = {}, Registry(retrieve=retrieve)
    seen, violations, checked = defaultdict(Counter), Counter(), 0
    for exchange in exchanges(folder):
        operation = find(all_operations, exchange)
        name = operation.name if operation else urlsplit(exchange["path"]).path
        for kind, text in wrongs(exchange):
            violations[kind, f"{name}:{exchange['status']}", text] += 1
        if operation is None:
            continue
        parameters = parse_qs(urlsplit(exchange["path"]).query)
        if any(is_excepted("query", f"{name}:{parameter}") for parameter in parameters):
            continue
        seen[name][outcome(operation, exchange)] += 1
        validator = make_validators(operation, registry, cache).get(exchange["status"])
        if validator is None or (exchange["status"] == 401 and is_token_error(exchange)):
            continue
        checked += 1
        for error in validator.iter_errors(exchange["body"]):
            where = place(error)
            key = f"{name}:{exchange['status']}:{where}:{error.validator}"
            violations["schema", key, error.message[:200]] += 1
    return seen, violations, checked


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


def is_served(routes, method, path):
    """Whether there is the route, or one with a variable where the path ends in a word."""
    return (method, path) in routes or (method, path.rpartition("/")[0] + "/{}") in routes


def main():
    specification, folder = sys.argv[1:3]
    all_operations = list(operations(specification))
    reasons = exceptions()
    used, complaints = set(), []

    def is_excepted(kind, name):
        found = [reason for reason in reasons
                 if reason[0] == kind and fnmatch.fnmatchcase(name, reason[1])]
        used.update(found)
        return bool(found)

    def complain(kind, name, text):
        if not is_excepted(kind, name):
            complaints.append(f"{kind} {name}: {text}")

    seen, violations, checked = validate(all_operations, folder, is_excepted)
    routes = server_routes(folder)
    served, complete = 0, 0
    for operation in all_operations:
        if not is_served(routes, operation.method, normal(operation.path)):
            complain("route", f"{operation.method}:{normal(operation.path)}",
                     "the specification has it, the server does not")
            continue
        served += 1
        missing = [kind for kind in ("success", "failure") if not seen[operation.name][kind]]
        complete += not missing
        for kind in missing:
            complain(kind, operation.name, f"no test answers it with a {kind}")
    for method, path in sorted(set(ruma_routes(sys.argv[3])) if len(sys.argv) > 3 else set()):
        if not is_served(routes, method, path):
            complain("route", f"{method}:{path}", "ruma has it, the server does not")
    failed = 0
    for (kind, name, text), count in violations.most_common():
        before = len(complaints)
        complain(kind, name, f"{text} ({count} times)")
        failed += count * (len(complaints) > before)
    for kind, name in sorted(set(reasons) - used):
        complaints.append(f"{kind} {name}: stands in exceptions.txt and is not missing")
    for complaint in complaints:
        print(f"openapi: {complaint}")
    print(f"openapi: {len(all_operations)} operations: {served} served, {complete} with success "
          f"and failure; {len(used)} exceptions")
    print(f"openapi: {max(checked - failed, 0)} passed, {len(complaints)} failed")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
