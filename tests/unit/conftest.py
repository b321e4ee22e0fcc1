import pytest
from step import load_step  # noqa: F401

from postprocess import kernel


@pytest.fixture(scope="module", params=["kernel", "numpy"])
def both_paths(request):
    """Run a module's tests twice: with the compiled kernel, and with NumPy alone."""
    if request.param == "kernel" and kernel._library is None:
        pytest.skip("the kernel was not compiled here")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(kernel, "_library", None)
        yield request.param


@pytest.fixture(scope="session")
def unpatched_locust():
    """Import locust so that it leaves this process's threads and sockets as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")
        return pytest.importorskip("locust")
