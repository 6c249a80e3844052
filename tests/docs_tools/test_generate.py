"""The references say what the code does, and the outputs in documents are real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs_tools import outputs
from docs_tools.configuration import EXAMPLE
from docs_tools.generate import PAGES, ROOT, main
from prism_vault_agent.config.load import load
from prism_vault_agent.config.schema import SECTIONS
from tests.config.written import write


@pytest.mark.parametrize("name", PAGES)
def test_what_is_generated_is_current(name: str):
    """No generated page is stale; `make docs` mends it. Outputs, which take longer, are compared by `make check`."""
    assert (ROOT / name).read_text() == PAGES[name]()


def test_a_stale_page_is_named_and_then_written(tmp_path: Path, capsys):
    """--check names what is stale or missing and writes nothing; without it everything is written."""
    assert main(["--check"], tmp_path) == 1
    told = capsys.readouterr().err
    for name in PAGES:
        assert f"{name}: is stale; run make docs" in told
        assert not (tmp_path / name).exists()
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    for name in PAGES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


def test_a_block_is_replaced_by_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What stands between the marks becomes what the command gives; the rest of the document stays as it is."""
    monkeypatch.setitem(outputs.OUTPUTS, "greeting", lambda: "hello\n")
    main([], tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- output: greeting -->\nold\n<!-- end -->\nafter\n")
    assert main(["--check"], tmp_path) == 1
    assert main([], tmp_path) == 0
    assert readme.read_text() == "before\n<!-- output: greeting -->\n```\nhello\n```\n<!-- end -->\nafter\n"
    assert main(["--check"], tmp_path) == 0


def test_a_block_of_an_unknown_name_is_an_error():
    """A document cannot show an output that nothing makes."""
    with pytest.raises(SystemExit, match="no output is called 'nothing'"):
        outputs.refreshed("<!-- output: nothing -->\n<!-- end -->", "README.md")


def test_the_example_is_a_valid_configuration(tmp_path: Path):
    """The configuration that the reference shows loads as it is, with the users of this host."""
    text = EXAMPLE.replace('"www-data"', '"root"').replace('"adm"', '"root"')
    settings = load(write(tmp_path, text), {"XDG_RUNTIME_DIR": "/run/user/1000"})
    assert [str(binding.reference) for binding in settings.scopes["web"].bindings] == [  # type: ignore[index]
        "vault://secret/prism/lan/web#database_url"
    ]


def test_every_key_is_in_the_reference():
    """Each key of each section has a row, and the JSON Schema of scopes has every key of a scope."""
    page = (ROOT / "docs/reference/configuration.md").read_text()
    for section in SECTIONS.values():
        for key in section.model_fields:
            assert f"`{key}`" in page or key in ("auth", "vault", "central", "agent", "scopes"), key
    schema = json.loads((ROOT / "docs/reference/scope.schema.json").read_text())
    assert schema["$defs"]["ScopeEntry"]["properties"].keys() == SECTIONS["scopes", "*"].model_fields.keys()


def test_links_of_the_references_lead_somewhere():
    """A link from one generated page to another file exists."""
    for page in (ROOT / "docs/reference").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
