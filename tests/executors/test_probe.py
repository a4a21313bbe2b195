import sys, multiprocessing
def test_x():
    from conftest import A
    print(A.__module__, __name__, [p for p in sys.path][:6], sys.modules.get("tests"), "conftest" in sys.modules, sys.modules["conftest"].__file__)
    assert 0
