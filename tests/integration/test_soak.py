"""A short ./dev soak: that it works, and that nothing grows in a few cycles."""

import soak
from rig import Rig, full


@full
class SoakTest(Rig):
    def test_short(self):
        self.assertEqual(soak.main(["--cycles=10", "--minutes=20"]), 0)
