"""Commands that are forked in tests start as they would alone, whatever other tests left in this process."""

import sys
from types import ModuleType

import forked
import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="no fork server elsewhere")
def test_a_script_that_another_test_left_as_main_is_not_run(tmp_path, monkeypatch):
    left = ModuleType("__main__")
    left.__file__ = str(tmp_path / "left.py")  # as Streamlit leaves the script of an `AppTest`
    (tmp_path / "left.py").write_text("raise SystemExit(3)")
    monkeypatch.setitem(sys.modules, "__main__", left)
    started = forked.start("-c", ["print('it runs')"])
    out, _ = started.communicate(timeout=120)
    assert (out.strip(), started.returncode) == ("it runs", 0)
    assert sys.modules["__main__"] is left
