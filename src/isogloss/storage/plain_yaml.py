"""YAML whose truth values are true and false alone."""

import re

import yaml

_BOOL = "tag:yaml.org,2002:bool"


class PlainLoader(yaml.SafeLoader):
    """YAML 1.1 takes `no`, the code of Norwegian, for a truth value, and on, off, yes too; here they are words."""


PlainLoader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != _BOOL]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(_BOOL, re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
