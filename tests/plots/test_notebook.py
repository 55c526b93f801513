"""What a kernel of a notebook answers to cells on which nobody imported pyplot."""

import base64

import pytest

manager = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Run a cell on a fresh kernel; returns what it displayed, and all its text."""
    folder = str(tmp_path_factory.mktemp("jupyter"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, folder)
        kernel, client = manager.start_new_kernel(kernel_name="python3")

    def run(code):
        shown, text = {}, []

        def take(message):
            content = message["content"]
            assert message["msg_type"] != "error", "\n".join(content["traceback"])
            shown.update(content.get("data", {}))
            text.append(content.get("text", ""))

        client.execute_interactive(code, timeout=120, allow_stdin=False, output_hook=take)
        return shown, "".join(text)

    yield run
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_a_figure_shows_itself_without_pyplot(cell):
    code = "from zeroproof.plots import plot_history\nplot_history([{'train_loss': 1.0}])"
    shown, text = cell(code)
    assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG")
    assert text == ""
    shown, _ = cell("import sys\n'matplotlib.pyplot' in sys.modules")
    assert shown["text/plain"] == "False"


def test_a_progress_bar_shows_itself_unless_it_is_switched_off(cell):
    _, text = cell(
        "from types import SimpleNamespace\n"
        "from zeroproof.training.config import TrainingConfig\n"
        "from zeroproof.training.report import progress_bar\n"
        "def run(**options):\n"
        "    config = TrainingConfig(max_epochs=2, **options)\n"
        "    with progress_bar(config, SimpleNamespace(is_main_process=True), 0) as bar:\n"
        "        bar.update(2)\n"
        "run(progress=False)"
    )
    assert "training" not in text
    shown, text = cell("run()")
    # widgets where they are installed
    assert "training" in text or "application/vnd.jupyter.widget-view+json" in shown
