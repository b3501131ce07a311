# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance host xen`` and ``guest``, as far as they need no Xen."""

import hashlib
from pathlib import Path

import pytest
from xlsnap_conformance.cli import main
from xlsnap_conformance.guest import image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "xlsnap" / "xen"


def status_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_a_host_that_does_not_run_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("host", "xen", "run", "xl", "list") == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "xlsnap-conformance: no nested Xen host runs: start one with 'host xen start'\n",
    )


def test_stopping_what_does_not_run_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("host", "xen", "stop", "--name", "other") == 0
    assert capsys.readouterr().out == "no nested Xen host 'other' runs\n"


@pytest.mark.parametrize("name", ["../up", "A", "", "-a", "a" * 21])
def test_a_name_is_never_a_path(name: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("host", "xen", "stop", f"--name={name}") == 2
    assert "1 to 20 of the characters" in capsys.readouterr().err
    assert not cache.exists()


def test_status_tells_what_is_kept(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "built" / "one").mkdir(parents=True)
    (cache / "built" / "one" / "xen").write_bytes(bytes(2 << 20))
    (cache / "built" / ".half").mkdir()
    assert status_of("host", "xen", "status") == 0
    assert capsys.readouterr().out.splitlines() == [
        "built:   1 (2 MiB)",
        "frozen:  0 (0 MiB)",
        "running: none",
    ]


def test_the_bare_guest_is_exported_without_a_download(tmp_path: Path) -> None:
    target = tmp_path / "guest"
    assert status_of("guest", "export", "--no-linux", str(target)) == 0
    assert (target / "probe.rom").read_bytes() == image("rom").read_bytes()
    lines = [line.split() for line in (target / "SHA256SUMS").read_text().splitlines()]
    sums = {name: sum for sum, name in lines}
    assert set(sums) == {path.name for path in target.iterdir()} - {"SHA256SUMS"}
    for name, sum in sums.items():
        assert hashlib.sha256((target / name).read_bytes()).hexdigest() == sum
