"""A double of DefectDojo's API, as far as the provisioning uses it, with the words that the real one takes.

`TABLES` is read from DefectDojo 2.58.4: fields, lengths and choices from `dojo/models.py` and `dojo/api_v2/serializers.py`,
filters and methods from `dojo/api_v2/views.py` and `dojo/filters.py`, passwords from `dojo/user/validators.py` with the
system settings of a new DefectDojo; what follows from a new user or group by itself from `dojo/utils.py` (`user_post_save`)
and `dojo/group/utils.py`. Stricter than the real one: unknown fields and filters are complained of, which it passes over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.delivery_doubles import Answer, Double

READER, OWNER = "Reader", "Owner"
ROLES = ("API_Importer", "Writer", "Maintainer", OWNER, READER)
_EMAIL = re.compile(r"[^@\s]+@([A-Za-z0-9-]+\.)+[A-Za-z0-9-]{2,}")
_USERNAME = re.compile(r"[\w.@+-]+")
_PASSWORD = (r"\d", "[A-Z]", "[a-z]", r"[(){}\[\]|~!@#$%^&*_\-+=;:'\",`<>./?]")


@dataclass(frozen=True)
class Field:
    """What a field takes: text of at most `most` characters, or `true`/`false`, or the number of a row of `to`."""

    most: int = 0
    to: str = ""
    required: bool = False
    null: bool = False
    unique: bool = False
    choices: tuple[str, ...] = ()
    hidden: bool = False


@dataclass(frozen=True)
class Table:
    fields: Mapping[str, Field]
    filters: Mapping[str, str] = field(default_factory=dict)
    """Filter to the field that it is of."""
    part: bool = False
    """Whether filters match parts of texts, whatever their case; else whole texts."""
    methods: tuple[str, ...] = ("POST", "PUT", "PATCH", "DELETE")
    pair: tuple[str, ...] = ()
    """Fields of which no two rows have the same values."""
    owners: str = ""
    """The field of which a row without an owner is refused to be changed."""


_YES_NO = Field()
TABLES: Mapping[str, Table] = {
    "roles": Table({"name": Field(255)}, {"name": "name"}, methods=()),
    "dojo_groups": Table(
        {"name": Field(255, required=True, unique=True), "description": Field(4000, null=True),
         "social_provider": Field(10, null=True, choices=("AzureAD", "Remote"))},
        {"name": "name", "social_provider": "social_provider"},
    ),
    "global_roles": Table(
        {"user": Field(to="users", null=True, unique=True), "group": Field(to="dojo_groups", null=True, unique=True),
         "role": Field(to="roles", null=True)},
        {"user": "user", "group": "group", "role": "role"},
    ),
    "dojo_group_members": Table(
        {"group": Field(to="dojo_groups", required=True), "user": Field(to="users", required=True),
         "role": Field(to="roles", required=True)},
        {"group_id": "group", "user_id": "user"}, methods=("POST", "PUT", "DELETE"), pair=("group", "user"), owners="group",
    ),
    "users": Table(
        {"username": Field(150, required=True, unique=True), "email": Field(254, required=True), "first_name": Field(150),
         "last_name": Field(150), "password": Field(128, hidden=True), "is_active": _YES_NO, "is_superuser": _YES_NO},
        {name: name for name in ("username", "first_name", "last_name", "email")}, part=True,
    ),
    "product_types": Table(
        {"name": Field(255, required=True, unique=True), "description": Field(4000, null=True), "critical_product": _YES_NO,
         "key_product": _YES_NO},
        {"name": "name"},
    ),
    "product_type_members": Table(
        {"product_type": Field(to="product_types", required=True), "user": Field(to="users", required=True),
         "role": Field(to="roles", required=True)},
        {"product_type_id": "product_type", "user_id": "user"},
        methods=("POST", "PUT", "DELETE"), pair=("product_type", "user"), owners="product_type",
    ),
    "tool_types": Table(
        {"name": Field(200, required=True, unique=True), "description": Field(2000, null=True)},
        {"name": "name", "description": "description"},
    ),
    "tool_configurations": Table(
        {"name": Field(200, required=True), "description": Field(2000, null=True), "url": Field(2000, null=True),
         "tool_type": Field(to="tool_types", required=True),
         "authentication_type": Field(15, null=True, choices=("API", "Password", "SSH")), "extras": Field(255, null=True),
         "username": Field(200, null=True), "password": Field(600, null=True, hidden=True), "auth_title": Field(200, null=True),
         "ssh": Field(6000, null=True, hidden=True), "api_key": Field(600, null=True, hidden=True)},
        {name: name for name in ("name", "tool_type", "url", "authentication_type")},
    ),
    "system_settings": Table(
        {"default_group": Field(to="dojo_groups", null=True), "default_group_role": Field(to="roles", null=True),
         "default_group_email_pattern": Field(200)},
        methods=("PUT", "PATCH"),
    ),
}  # fmt: skip


class DefectDojo(Double):
    """A DefectDojo after its initializer: roles, the administrator, and one page of settings."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self.made = 0
        for name in ROLES:
            self.insert("roles", {"name": name})
        self.insert("system_settings", {"default_group": None, "default_group_role": None})
        self.insert("users", {"username": "admin", "password": password, "is_superuser": True})
        self.routes["POST /api/v2/api-token-auth/"] = ({"username", "password"}, self.token)
        for name, table in TABLES.items():
            path, fields = f"/api/v2/{name}/", set(table.fields)
            self.routes[f"GET {path}"] = ({"limit", "offset", *table.filters}, lambda d, h, n=name: self.listed(n, d))
            if "POST" in table.methods:
                self.routes[f"POST {path}"] = (fields, lambda d, h, n=name: self.create(n, d))
            for method in {"PUT", "PATCH"} & set(table.methods):
                self.routes[f"{method} {path}{{}}/"] = (
                    fields, lambda i, d, h, n=name, whole=method == "PUT": self.update(n, i, d, whole=whole),
                )  # fmt: skip
            if "DELETE" in table.methods:
                self.routes[f"DELETE {path}{{}}/"] = (set(), lambda i, d, h, n=name: self.remove(n, i))

    @staticmethod
    def of(username: str) -> str:
        return f"token-of-{username}-000000"

    def allowed(self, path: str, headers: Mapping[str, str]) -> bool:
        return path.endswith("api-token-auth/") or headers.get("Authorization") == f"Token {self.of('admin')}"

    def token(self, data: dict[str, str], _: Any) -> Answer:
        good = any(
            u["username"] == data["username"] and u["password"] == data["password"] for u in self.tables["users"]
        )
        return (200, {"token": self.of(data["username"])}) if good else (400, {"non_field_errors": ["no"]})

    # --- rows

    def insert(self, table: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """A row as if it had always been there; numbers are not used twice."""
        self.made += 1
        self.tables[table].append({"id": self.made, **dict.fromkeys(TABLES[table].fields), **data})
        return self.tables[table][-1]

    def number(self, table: str, key: str, value: str) -> int:
        return next(row["id"] for row in self.tables[table] if row[key] == value)

    def shown(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        fields = TABLES[table].fields
        return {key: value for key, value in row.items() if key == "id" or not fields[key].hidden}

    def create(self, table: str, data: dict[str, Any]) -> Answer:
        wrong = dict(self.wrong(table, data, None)) | {
            name: ["This field is required."] for name, one in TABLES[table].fields.items() if one.required and name not in data
        }
        if table == "users" and "password" not in data:
            wrong["non_field_errors"] = ["Passwords must be supplied for new users"]
        if wrong:
            return 400, wrong
        row = self.insert(table, data)
        admin, owner = self.number("users", "username", "admin"), self.number("roles", "name", OWNER)
        match table:
            case "users":
                (settings,) = self.tables["system_settings"]
                if settings["default_group"] and settings["default_group_role"]:
                    joins = {"group": settings["default_group"], "role": settings["default_group_role"]}
                    self.insert("dojo_group_members", {"user": row["id"], **joins})
            case "dojo_groups":
                self.insert("dojo_group_members", {"group": row["id"], "user": admin, "role": owner})
            case "product_types":
                self.insert("product_type_members", {"product_type": row["id"], "user": admin, "role": owner})
        return 201, self.shown(table, row)

    def update(self, table: str, number: int, data: dict[str, Any], *, whole: bool) -> Answer:
        row = self.row(table, number)
        if row is None:
            return 404, {"detail": "Not found."}
        wrong = dict(self.wrong(table, data, row))
        if whole:
            wrong |= {n: ["This field is required."] for n, f in TABLES[table].fields.items() if f.required and n not in data}
        if table == "users" and "password" in data:
            wrong["non_field_errors"] = ["Update of password though API is not allowed"]
        if wrong:
            return 400, wrong
        row |= data
        return 200, self.shown(table, row)

    def remove(self, table: str, number: int) -> Answer:
        row = self.row(table, number)
        if row is None:
            return 404, {"detail": "Not found."}
        self.tables[table].remove(row)
        return 204, None

    def row(self, table: str, number: Any) -> dict[str, Any] | None:
        return next((row for row in self.tables[table] if row["id"] == number), None)

    def listed(self, table: str, data: dict[str, str]) -> Answer:
        whole = not TABLES[table].part

        def fits(given: str, value: Any) -> bool:
            return given == str(value) if whole else given.lower() in str(value).lower()

        asked = {name: data[key] for key, name in TABLES[table].filters.items() if key in data}
        rows = [row for row in self.tables[table] if all(fits(given, row[name]) for name, given in asked.items())]
        start = int(data.get("offset", "0"))
        page = rows[start : start + int(data.get("limit", "25"))]
        return 200, {"count": len(rows), "results": [self.shown(table, row) for row in page]}

    # --- what the real serializers refuse

    def wrong(self, table: str, data: Mapping[str, Any], row: Mapping[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
        """What is wrong with `data` for a new row, or for `row`: field to its faults."""
        about = TABLES[table]
        others = [one for one in self.tables[table] if one is not row]
        for name, value in data.items():
            if fault := self.fault(about.fields[name], value):
                yield name, [fault]
            elif about.fields[name].unique and value is not None and any(one[name] == value for one in others):
                yield name, [f"{table} with this {name} already exists."]
        after = {**(row or dict.fromkeys(about.fields)), **data}
        if about.pair and any(all(one[name] == after[name] for name in about.pair) for one in others):
            yield "non_field_errors", [f"{table}: already exists"]
        owner = self.number("roles", "name", OWNER)
        if row is not None and about.owners and after["role"] != owner:
            beside = [one for one in others if one[about.owners] == after[about.owners] and one["role"] == owner]
            if not beside:
                yield "non_field_errors", ["There must be at least one owner"]
        match table:
            case "global_roles" if (after["user"] is None) == (after["group"] is None):
                yield "non_field_errors", ["Global_Role must have either user or group"]
            case "system_settings" if (after["default_group"] is None) != (after["default_group_role"] is None):
                yield "non_field_errors", ["default_group and default_group_role must either both be set or both be empty."]
            case "users":
                if not _USERNAME.fullmatch(str(after["username"])):
                    yield "username", ["Enter a valid username."]
                if "email" in data and not _EMAIL.fullmatch(str(data["email"])):
                    yield "email", ["Enter a valid email address."]
                secret = str(data.get("password", ""))
                if secret and not (9 <= len(secret) <= 48 and all(re.search(kind, secret) for kind in _PASSWORD)):
                    yield "password", ["Password must be 9 to 48 characters long, with letters of both cases, a digit and a symbol."]

    def fault(self, about: Field, value: Any) -> str | None:
        if value is None:
            return None if about.null else "This field may not be null."
        if about.to:
            known = type(value) is int and self.row(about.to, value)
            return None if known else f'Invalid pk "{value}" - object does not exist.'
        if not about.most:
            return None if isinstance(value, bool) else "Must be a valid boolean."
        if not isinstance(value, str):
            return "Not a valid string."
        if about.choices and value not in about.choices:
            return f'"{value}" is not a valid choice.'
        if not value and about.required:
            return "This field may not be blank."
        return f"Ensure this field has no more than {about.most} characters." if len(value) > about.most else None
