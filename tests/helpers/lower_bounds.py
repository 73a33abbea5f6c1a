"""``lower_bounds.py setup.cfg EXTRA,EXTRA``: a pip constraint for the lowest version that setup.cfg allows of each package."""

import configparser
import re
import sys


def lower_bounds(path, extras):
    """``name==version`` for every ``name>=version`` that is required, by the package or by one of its extras."""
    config = configparser.ConfigParser()
    config.read(path)
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    lines = [line.partition("#")[0].strip() for text in texts for line in text.splitlines()]
    found = [re.match(r"([\w.-]+)>=([\w.]+)", line) for line in lines if line]
    without = [line for line, bound in zip([line for line in lines if line], found, strict=True) if bound is None]
    if without:
        raise SystemExit(f"{path}: no lower bound in {', '.join(without)}")
    return [f"{bound[1]}=={bound[2]}" for bound in found]


if __name__ == "__main__":
    print("\n".join(lower_bounds(sys.argv[1], sys.argv[2].split(","))))
