"""Compares real requests and answers with the OpenAPI document, by its JSON schemas alone."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import requests
from openapi_schema_validator import OAS31Validator

Operation = dict[str, Any]


class Description:
    """An OpenAPI document.

    Args:
        document: the document, which must be valid.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def problems(self, answered: requests.Response) -> list[str]:
        """What the document says otherwise about an answer, and about an accepted request."""
        operation, path = self._found(answered)
        described = operation["responses"].get(f"{answered.status_code}")
        if described is None:
            return [f"{answered.status_code} is not described"]
        described = self._resolved(described)
        problems = self._errors(described["content"]["application/json"]["schema"], answered.json())
        for name in described.get("headers", {}):
            if name not in answered.headers:
                problems.append(f"no header {name}")
        if answered.status_code == 200:
            problems += self.request_problems(answered, operation, path)
        return problems

    def accepts(self, answered: requests.Response) -> bool:
        """Whether the request is a valid one by the document."""
        operation, path = self._found(answered)
        return not self.request_problems(answered, operation, path)

    def request_problems(
        self, answered: requests.Response, operation: Operation, path: dict[str, str]
    ) -> list[str]:
        request = answered.request
        query = parse_qs(urlsplit(f"{request.url}").query, keep_blank_values=True)
        problems = []
        known = set()
        for parameter in operation["parameters"]:
            name, schema = parameter["name"], parameter["schema"]
            if parameter["in"] == "query":
                known.add(name)
                values: Any = query.get(name)
                given = values and (values if schema.get("type") == "array" else values[0])
                if schema.get("type") == "boolean":
                    given = {"true": True, "false": False}.get(given, given)
            else:
                given = path.get(name)
            if given is None:
                if parameter["required"]:
                    problems.append(f"no parameter {name}")
            else:
                problems += self._errors(schema, given)
        problems += [f"unknown parameter {name}" for name in query.keys() - known]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is not None:
            problems += self._errors(content["schema"], json.loads(request.body or b"null"))
        return problems

    def _found(self, answered: requests.Response) -> tuple[Operation, dict[str, str]]:
        """The operation of a request, with the values of its path."""
        asked = urlsplit(f"{answered.request.url}").path
        for path, item in self._document["paths"].items():
            match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]*)", re.escape(path)), asked)
            operation = item.get(f"{answered.request.method}".lower())
            if match and operation:
                parameters = [*item["parameters"], *operation.get("parameters", [])]
                values = {name: unquote(value) for name, value in match.groupdict().items()}
                return operation | {"parameters": parameters}, values
        raise AssertionError(f"{answered.request.method} {asked} is not described")

    def _resolved(self, item: dict[str, Any]) -> dict[str, Any]:
        reference = item.get("$ref")
        if reference is not None:
            item = self._document
            for part in reference.split("/")[1:]:
                item = item[part]
        return item

    def _errors(self, schema: dict[str, Any], value: Any) -> list[str]:
        whole = {"allOf": [schema], "components": self._document["components"]}
        errors = OAS31Validator(whole).iter_errors(value)
        return [f"{'/'.join(map(str, error.path))}: {error.message[:300]}" for error in errors]
