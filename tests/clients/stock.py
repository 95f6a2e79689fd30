"""The clients in the field, each a stock program in the tree of its own distribution (trees.sh)."""

import os
import tempfile

import standin
from xclient import Program

HERE = os.path.dirname(os.path.abspath(__file__))


class Stock:
    """A client in its tree: name, tree, program, and why it cannot do some of the features."""

    def __init__(self, name, tree, program="xfreerdp3", cannot=None):
        self.name, self.cannot = name, cannot or {}
        directories = sorted({os.path.realpath(d) for d in (
            tempfile.gettempdir(), os.path.dirname(standin.library()))})
        self.program = Program([os.path.join(HERE, "enter.sh"), tree] + directories + ["--", program],
                               freerdp2=program == "xfreerdp")


def clients(trees):
    """All of them; trees: the directory that trees.sh fills."""
    tree = lambda name: os.path.join(os.path.abspath(trees), name)
    return [
        Stock("2.11", tree("debian12"), "xfreerdp"),
        Stock("3.10", tree("debian12")),
        Stock("3.15", tree("debian13")),
        Stock("3.33", tree("debian13-backports")),
    ]
