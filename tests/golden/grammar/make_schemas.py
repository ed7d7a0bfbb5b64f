#!/usr/bin/env python3
"""Schemas for the tests of structured output, with values that fit each and values that do not, checked with the jsonschema package.

    python3 -m venv .venv
    .venv/bin/pip install jsonschema==4.25.1
    .venv/bin/python tests/golden/grammar/make_schemas.py

Writes schemas.jsonl beside this file. Values are written as the engine writes them (properties in the schema's order), so
that "good" ones must be taken and "bad" ones must not. Needed only to change the schemas.
"""
import json
from pathlib import Path

from jsonschema import Draft202012Validator

S, I, N, B, NULL = ({"type": t} for t in ("string", "integer", "number", "boolean", "null"))


def obj(required=None, closed=True, **properties):
    out = {"type": "object", "properties": properties, "required": list(properties) if required is None else required}
    return out | ({"additionalProperties": False} if closed else {})


def arr(items, **more):
    return {"type": "array", "items": items, **more}


def any_of(*branches):
    return {"anyOf": list(branches)}


def enum(*values):
    return {"enum": list(values)}


TREE = {"$defs": {"tree": obj(value=I, children=arr({"$ref": "#/$defs/tree"}))}, "$ref": "#/$defs/tree"}
LIST = {"$ref": "#/$defs/cell", "$defs": {"cell": any_of(NULL, obj(head=I, tail={"$ref": "#/$defs/cell"}))}}
EXPRESSION = {
    "$defs": {"e": any_of(N, obj(op=enum("+", "-", "*"), left={"$ref": "#/$defs/e"}, right={"$ref": "#/$defs/e"}))},
    "$ref": "#/$defs/e",
}
COMMENT = obj(["text"], text={"type": "string", "maxLength": 20}, replies=arr({"$ref": "#"}, maxItems=2))
WEATHER = obj(city={"type": "string", "maxLength": 30}, unit=enum("celsius", "fahrenheit"))
PERSON = obj(["name", "age"], name={"type": "string", "minLength": 1, "maxLength": 20},
             age={"type": "integer", "minimum": 0, "maximum": 150}, email={"type": "string", "format": "email"})

# name: schema, values that fit, values that do not
CASES = {
    "any string": (S, ["", "a", "你好 \"quoted\" \\ / \n\t", "é😀"], [1, None, [], {}]),
    "one letter": ({"type": "string", "minLength": 1, "maxLength": 1}, ["a", "你", "😀", "\n", "\""], ["", "ab", "你好"]),
    "three to five characters": ({"type": "string", "minLength": 3, "maxLength": 5}, ["abc", "你好吗", "😀😀😀😀😀"], ["ab", "abcdef"]),
    "at least two": ({"type": "string", "minLength": 2}, ["ab", "abcdefghijkl"], ["", "a"]),
    "at most none": ({"type": "string", "maxLength": 0}, [""], ["a"]),
    "any integer": (I, [0, 7, -12, 123456789012], [1.5, "1", None]),
    "natural number": ({"type": "integer", "minimum": 0}, [0, 1, 10 ** 15], [-1, -10]),
    "percent": ({"type": "integer", "minimum": 0, "maximum": 100}, [0, 9, 10, 99, 100], [-1, 101, 1000]),
    "teens": ({"type": "integer", "minimum": 13, "maximum": 19}, [13, 19], [1, 2, 12, 20, 130]),
    "negative range": ({"type": "integer", "minimum": -25, "maximum": -3}, [-3, -9, -10, -25], [-2, -26, 3, 0, -100]),
    "across zero": ({"type": "integer", "minimum": -5, "maximum": 17}, [-5, 0, 5, 17], [-6, 18, 170]),
    "exclusive": ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, [1, 9], [0, 10, -1]),
    "even": ({"type": "integer", "multipleOf": 2, "minimum": 0, "maximum": 1000}, [0, 2, 998, 1000], [1, 999, 1002]),
    "sevens": ({"type": "integer", "multipleOf": 7, "minimum": 50, "maximum": 60}, [56], [49, 50, 57, 63]),
    "large": ({"type": "integer", "minimum": 9007199254740991}, [9007199254740991, 9007199254740993], [1, 9007199254740990]),
    "any number": (N, [0, -1.5, 3.25, 1e9, 0.001], ["1", None]),
    "unit interval": ({"type": "number", "minimum": 0, "maximum": 1}, [0, 0.5, 1, 1.0, 0.999], [1.01, -0.1, 2, 10]),
    "open interval": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, [0.1, 0.499, 0.001], [0, 0.5, 0.51]),
    "tenths": ({"type": "number", "minimum": 0.1, "maximum": 0.3}, [0.1, 0.2, 0.3], [0.09, 0.31, 1]),
    "celsius": ({"type": "number", "minimum": -273.15}, [-273.15, 0, 1e3, 21.5], [-273.16, -300]),
    "below": ({"type": "number", "maximum": -0.5}, [-0.5, -1, -12.75], [-0.49, 0, 1]),
    "boolean": (B, [True, False], [0, "true", None]),
    "null": (NULL, [None], [0, False, ""]),
    "nullable": ({"type": ["string", "null"]}, ["x", None], [0, False]),
    "scalar": ({"type": ["string", "integer", "boolean", "null"]}, ["x", 3, True, None], [1.5, [], {}]),
    "string or list": ({"type": ["string", "array"], "items": S}, ["x", [], ["a", "b"]], [1, [1]]),
    "enum of words": (enum("red", "green", "blue"), ["red", "green", "blue"], ["re", "redd", "", 1]),
    "enum of prefixes": (enum("a", "ab", "abc", "b"), ["a", "ab", "abc", "b"], ["", "abcd", "c"]),
    "enum of numbers": (enum(1, 12, 123, 2.5, -7), [1, 12, 123, 2.5, -7], [3, 1234, 2, -1]),
    "enum of all kinds": (enum(None, True, 0, "", [], {}, [1, "a"], {"k": [None]}),
                          [None, True, 0, "", [], {}, [1, "a"], {"k": [None]}], [False, 1, " ", [1], {"k": []}]),
    "enum with quotes": (enum("say \"hi\"", "back\\slash", "new\nline", "你好"), ["say \"hi\"", "back\\slash", "new\nline", "你好"], ["say"]),
    "enum of a type": ({"type": "string", "enum": ["a", 1, None, "b"]}, ["a", "b"], [1, None]),
    "const": ({"const": "fixed"}, ["fixed"], ["fix", 1]),
    "const object": ({"const": {"a": [1, 2, {"b": None}]}}, [{"a": [1, 2, {"b": None}]}], [{"a": [1, 2]}, {}]),
    "list of integers": (arr(I), [[], [1], [1, 2, 3]], [["a"], [1.5], 1]),
    "two to three": (arr(I, minItems=2, maxItems=3), [[1, 2], [1, 2, 3]], [[], [1], [1, 2, 3, 4]]),
    "at least one item": (arr({"type": "string", "maxLength": 3}, minItems=1), [["a"], ["a", ""]], [[], ["abcd"]]),
    "exactly ten": (arr(B, minItems=10, maxItems=10), [[True] * 10], [[True] * 9, [True] * 11]),
    "no item": (arr(I, maxItems=0), [[]], [[1]]),
    "list of lists": (arr(arr(I, maxItems=2), maxItems=3), [[], [[]], [[1], [2, 3]]], [[[1, 2, 3]], [1]]),
    "list of anything": ({"type": "array"}, [[], [1, "a", None, {"k": [True]}]], [{}, 1]),
    "tuple": ({"type": "array", "prefixItems": [S, I, B], "items": False, "minItems": 3}, [["a", 1, True]], [["a", 1], ["a", 1, True, 1], [1, "a", True]]),
    "open tuple": ({"type": "array", "prefixItems": [S], "items": I, "minItems": 1}, [["a"], ["a", 1, 2]], [[], [1], ["a", "b"]]),
    "short tuple": ({"type": "array", "prefixItems": [I, I], "maxItems": 1}, [[], [1]], [["a"], [1, 2]]),
    "person": (PERSON, [{"name": "Ada", "age": 36}, {"name": "Ada", "age": 36, "email": "ada@example.com"}],
               [{"name": "Ada"}, {"age": 36}, {"name": "", "age": 1}, {"name": "Ada", "age": 151}, {"name": "Ada", "age": 1, "email": "no"}, {"name": "Ada", "age": 1, "x": 1}]),
    "point": (obj(x=N, y=N), [{"x": 1, "y": -2.5}], [{"x": 1}, {"x": 1, "y": 2, "z": 3}, {}]),
    "all optional": (obj([], a=I, b=S, c=B), [{}, {"a": 1}, {"b": ""}, {"c": True}, {"a": 1, "c": False}, {"a": 1, "b": "x", "c": True}], [{"a": "1"}, {"d": 1}]),
    "optional first": (obj(["z"], a=I, z=I), [{"z": 1}, {"a": 1, "z": 2}], [{}, {"a": 1}]),
    "optional last": (obj(["a"], a=I, z=I), [{"a": 1}, {"a": 1, "z": 2}], [{}, {"z": 1}]),
    "names of one beginning": (obj(["ab"], a=I, ab=I, abc=I, abd=I), [{"ab": 1}, {"a": 1, "ab": 2, "abd": 3}, {"ab": 2, "abc": 3, "abd": 4}], [{"a": 1}, {"abc": 1}, {"ab": 1, "abe": 1}]),
    "names with quotes": (obj(**{"a\"b": I, "c\\d": I, "é 你": I, "": I}), [{"a\"b": 1, "c\\d": 2, "é 你": 3, "": 4}], [{"a": 1}, {}]),
    "empty object": (obj(), [{}], [{"a": 1}, []]),
    "any object": ({"type": "object"}, [{}, {"a": 1}, {"a": {"b": [1, {"c": None}]}}], [[], 1, "x"]),
    "map of integers": ({"type": "object", "additionalProperties": I}, [{}, {"a": 1, "b": 2}], [{"a": "x"}, {"a": 1, "b": None}]),
    "map of lists": ({"type": "object", "additionalProperties": arr(S, maxItems=2)}, [{}, {"k": ["a", "b"]}], [{"k": [1]}, {"k": ["a", "b", "c"]}]),
    "named and others": ({"type": "object", "properties": {"id": I, "idx": S}, "required": ["id"], "additionalProperties": B},
                         [{"id": 1}, {"id": 1, "more": True}, {"id": 1, "idx": "x", "i": False, "idxx": True}], [{"more": True}, {"id": 1, "more": 2}, {"id": True}, {"id": 1, "idx": True}]),
    "required without a schema": ({"type": "object", "properties": {"a": I}, "required": ["a", "b"]}, [{"a": 1, "b": [None]}], [{"a": 1}, {"b": 1}]),
    "anything": ({}, [1, "a", None, [1, [2]], {"a": {"b": []}}, True], []),
    "true": (True, [1, "a", {}], []),
    "titles and descriptions": ({"title": "T", "description": "D", "$comment": "c", "default": 1, "examples": [2], "type": "integer", "deprecated": True}, [1], ["1"]),
    "implied object": ({"properties": {"a": I}, "required": ["a"]}, [{"a": 1}], [{"a": "x"}]),
    "implied array": ({"items": I, "minItems": 1}, [[1]], [[], ["a"]]),
    "implied string": ({"minLength": 2}, ["ab"], ["a"]),
    "implied number": ({"maximum": 3}, [3, -1], [4]),
    "word or number": (any_of(S, I), ["x", 1], [None, 1.5]),
    "either object": (any_of(obj(kind={"const": "a"}, x=I), obj(kind={"const": "b"}, y=S)), [{"kind": "a", "x": 1}, {"kind": "b", "y": ""}], [{"kind": "a", "y": ""}, {"kind": "c"}]),
    "branches that begin alike": (any_of(obj(a=I, b=I), obj(a=I, c=I), obj(a=S)), [{"a": 1, "b": 2}, {"a": 1, "c": 2}, {"a": "x"}], [{"a": 1}, {"a": "x", "b": 1}]),
    "one of": ({"oneOf": [obj(circle=N), obj(square=N)]}, [{"circle": 1}, {"square": 2}], [{}, {"circle": 1, "square": 2}]),
    "nested choice": (any_of(any_of(I, B), any_of(NULL, arr(any_of(I, S)))), [1, True, None, [1, "a"]], ["a", [None]]),
    "choice of tuples": (any_of({"prefixItems": [{"const": "p"}, I], "items": False, "minItems": 2}, {"prefixItems": [{"const": "q"}, S], "items": False, "minItems": 2}), [["p", 1], ["q", "x"]], [["p", "x"], ["q", 1], []]),
    "overlapping ranges": (any_of({"type": "integer", "maximum": 10, "minimum": 0}, {"type": "integer", "minimum": 100, "maximum": 105}), [0, 10, 100, 105], [11, 99, 106]),
    "enum or string": (any_of(enum("auto"), {"type": "string", "minLength": 8, "maxLength": 10}), ["auto", "12345678"], ["aut", "1234567"]),
    "all of one": ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": I}}, [1], ["a"]),
    "ref": ({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}, "required": ["a", "b"], "additionalProperties": False, "$defs": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}}, [{"a": 1, "b": 9}], [{"a": 0, "b": 1}]),
    "ref with escapes": ({"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": B}}, [True], [1]),
    "definitions": ({"definitions": {"id": {"type": "string", "pattern": "^[a-f0-9]{4}$"}}, "type": "array", "items": {"$ref": "#/definitions/id"}, "maxItems": 2}, [[], ["00ff"]], [["xyz"], ["00f"]]),
    "ref to a property": ({"type": "object", "properties": {"a": B, "b": {"$ref": "#/properties/a"}}, "required": ["b"], "additionalProperties": False}, [{"b": True}], [{"b": 1}]),
    "tree": (TREE, [{"value": 1, "children": []}, {"value": 1, "children": [{"value": 2, "children": []}]}], [{"value": 1}, {"value": 1, "children": [1]}]),
    "linked list": (LIST, [None, {"head": 1, "tail": None}, {"head": 1, "tail": {"head": 2, "tail": None}}], [{"head": 1}, 1]),
    "expression": (EXPRESSION, [1, {"op": "+", "left": 1, "right": {"op": "*", "left": 2, "right": 3}}], ["1", {"op": "/", "left": 1, "right": 2}]),
    "comments": (COMMENT, [{"text": "a"}, {"text": "a", "replies": [{"text": "b", "replies": []}]}], [{}, {"text": "a", "replies": [1]}]),
    "json value": ({"$ref": "#/$defs/v", "$defs": {"v": any_of(S, N, B, NULL, arr({"$ref": "#/$defs/v"}), {"type": "object", "additionalProperties": {"$ref": "#/$defs/v"}})}}, [1, [1, {"a": [None]}], {"b": "c"}], []),
    "hex": ({"type": "string", "pattern": "^[0-9a-f]+$"}, ["0", "deadbeef"], ["", "xyz", "DEAD"]),
    "somewhere": ({"type": "string", "pattern": "cat", "maxLength": 30}, ["cat", "a cat.", "concatenate"], ["", "ca", "dog"]),
    "prefix": ({"type": "string", "pattern": "^ab"}, ["ab", "abc"], ["a", "cab"]),
    "suffix": ({"type": "string", "pattern": "ab$", "maxLength": 12}, ["ab", "cab"], ["abc", ""]),
    "phone": ({"type": "string", "pattern": "^\\+[1-9]\\d{6,14}$"}, ["+4930123456"], ["4930123456", "+0301234567", "+49"]),
    "plate": ({"type": "string", "pattern": "^[A-Z]{1,3}-[A-Z]{1,2} [1-9][0-9]{0,3}$"}, ["B-MW 1", "HH-A 1234"], ["b-mw 1", "B-MW 0"]),
    "alternatives": ({"type": "string", "pattern": "^(yes|no|maybe)$|^[?]+$"}, ["yes", "no", "???"], ["", "yesno", "y"]),
    "not these": ({"type": "string", "pattern": "^[^0-9\\s]{2,4}$"}, ["ab", "é你!"], ["a1", "a b", "a"]),
    "words": ({"type": "string", "pattern": "^\\w+( \\w+)*$", "maxLength": 12}, ["a", "two words"], ["", " a", "a  b", "thirteen chars"]),
    "quotes in a pattern": ({"type": "string", "pattern": "^\"[a-z\\\\]*\"$"}, ["\"\"", "\"a\\b\""], ["a", "\"A\""]),
    "pattern and lengths": ({"type": "string", "pattern": "^(ab)*$", "minLength": 3, "maxLength": 7}, ["abab", "ababab"], ["", "ab", "aba", "abababab"]),
    "chinese": ({"type": "string", "pattern": "^[一-龥]{2,4}$"}, ["你好", "中文字符"], ["a", "你", "ab"]),
    "emoji range": ({"type": "string", "pattern": "^[\U0001F600-\U0001F64F]{1,2}$"}, ["😀", "😀😎"], ["", "x", "你"]),
    "date": ({"type": "string", "format": "date"}, ["2024-02-28"], ["2024-13-01", "24-01-01"]),
    "date and time": ({"type": "string", "format": "date-time"}, ["2024-02-28T12:30:00Z", "2024-02-28T12:30:00.5+01:00"], ["2024-02-28", "2024-02-28 12:30:00Z"]),
    "time": ({"type": "string", "format": "time"}, ["12:30:00Z"], ["25:00:00Z", "12:30"]),
    "uuid": ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
    "ipv4": ({"type": "string", "format": "ipv4"}, ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3"]),
    "email": ({"type": "string", "format": "email"}, ["a@b.co", "first.last+tag@mail.example.org"], ["a", "@b.co"]),
    "weather tool": (WEATHER, [{"city": "Berlin", "unit": "celsius"}], [{"city": "Berlin"}, {"city": "Berlin", "unit": "kelvin"}]),
    "tool call": (any_of(*(obj(name={"const": n}, arguments=a) for n, a in (("weather", WEATHER), ("add", obj(a=N, b=N)), ("none", obj())))),
                  [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "none", "arguments": {}}], [{"name": "add", "arguments": {}}, {"name": "x", "arguments": {}}]),
    "steps of reasoning": (obj(steps=arr(obj(explanation={"type": "string", "maxLength": 40}, output={"type": "string", "maxLength": 20}), maxItems=3), final_answer={"type": "string", "maxLength": 20}),
                           [{"steps": [{"explanation": "2+2", "output": "4"}], "final_answer": "4"}], [{"steps": [], "final": ""}]),
    "invoice": (obj(number={"type": "string", "pattern": "^INV-[0-9]{6}$"}, date={"type": "string", "format": "date"}, currency=enum("EUR", "USD", "CNY"),
                    lines=arr(obj(["item", "quantity", "price"], item={"type": "string", "maxLength": 20}, quantity={"type": "integer", "minimum": 1, "maximum": 1000}, price={"type": "number", "minimum": 0}, note={"type": ["string", "null"], "maxLength": 10}), minItems=1, maxItems=4), paid=B),
                [{"number": "INV-000001", "date": "2024-01-01", "currency": "EUR", "lines": [{"item": "x", "quantity": 1, "price": 9.99, "note": None}], "paid": True}],
                [{"number": "INV-1", "date": "2024-01-01", "currency": "EUR", "lines": [], "paid": True}]),
    "pydantic model": ({"$defs": {"Color": {"enum": ["red", "green"], "title": "Color", "type": "string"}, "Item": {"properties": {"name": {"title": "Name", "type": "string", "maxLength": 12}, "color": {"$ref": "#/$defs/Color"}, "tags": {"items": {"type": "string", "maxLength": 5}, "title": "Tags", "type": "array", "maxItems": 3}, "parent": {"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "null"}], "default": None}}, "required": ["name", "color", "tags"], "title": "Item", "type": "object"}}, "$ref": "#/$defs/Item"},
                       [{"name": "a", "color": "red", "tags": [], "parent": {"name": "b", "color": "green", "tags": ["x"], "parent": None}}], [{"name": "a", "color": "blue", "tags": []}]),
    "deep": (obj(a=obj(b=obj(c=obj(d=arr(obj(e=I), minItems=1, maxItems=1))))), [{"a": {"b": {"c": {"d": [{"e": 1}]}}}}], [{"a": {"b": {"c": {"d": []}}}}]),
    "many properties": (obj([f"p{i}" for i in range(0, 40, 3)], **{f"p{i}": I if i % 2 else B for i in range(40)}),
                        [{f"p{i}": 1 if i % 2 else True for i in range(0, 40, 3)}], [{"p0": True}, {"p0": 1}]),
    "long enum": (enum(*(f"code-{i:04d}" for i in range(300))), ["code-0000", "code-0299"], ["code-0300", "code-"]),
    "false branch": (any_of(False, I), [1], ["a"]),
    "impossible option": (obj(["a"], a=I, b={"type": "string", "minLength": 3, "maxLength": 2}), [{"a": 1}], [{"a": 1, "b": "xx"}]),
    "list that must stay empty": (arr(False), [[]], [[1]]),
}


def main():
    rows = []
    for name, (schema, good, bad) in CASES.items():
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for value in good:
            validator.validate(value)
        if "format" not in json.dumps(schema):
            assert not [v for v in bad if validator.is_valid(v)], name
        rows.append({"name": name, "schema": schema, "good": good, "bad": bad})
    text = "".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows)
    (Path(__file__).parent / "schemas.jsonl").write_text(text)
    print(len(rows), "schemas")


if __name__ == "__main__":
    main()
