"""Settings of a manifest that are out of range, and who is named for them: the site's file, or an option of the command line."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import available_timezones

import pytest
from manifest_cases import IMAGE, ROOT

from mtids_dist.cli import app
from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes import read_settings

GOOD = ("manifest", "train", str(ROOT / "configs" / "mtids.yaml"), "--image", IMAGE, "--storage", "pvc:mtids-dist")

OUT_OF_RANGE = {
    "workers.memory": (["0Gi", "100m", "1Mi", "1023Mi", "65Ti", "9" * 30 + "Ti", "-1Gi"], "quantity|memory is from 1Gi to 64Ti"),
    "head.memory": (["512Mi"], "a pod's memory is from 1Gi to 64Ti"),
    "cpu_workers.memory": (["512Mi"], "a pod's memory is from 1Gi to 64Ti"),
    "network.interface": (["eth/0", "''", "sixteen-letters-", "'a b'"], "not a network interface such as eth0"),
    "network.bucket_ports": (["[]", "[0]", "[65536]"], "at least 1 item|greater than or equal to 1|less than or equal to 65535"),
    "network.api_server_cidr": (["10.0.0.300/32", "10.0.0.1/8", "api"], "not a network such as 10.0.0.1/32"),
    **{
        key: ([str(2**31)], "less than or equal to 2147483647; found 2147483648")
        for key in (
            *("limits.deadline_s", "limits.start_s", "limits.ttl_s", "limits.retries", "limits.grace_s", "network.timeout_s"),
            *(
                "workers.count",
                "workers.cpus",
                "workers.gpus",
                "cpu_workers.count",
                "head.cpus",
                "identity.user",
                "identity.group",
            ),
        )
    },
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, (values, _) in OUT_OF_RANGE.items() for value in values])
def test_what_the_api_or_ray_can_not_hold_is_refused(key: str, value: str) -> None:
    with pytest.raises(InputError, match=OUT_OF_RANGE[key][1]) as refused:
        read_settings(None, [f"{key}={value}"], {"image": IMAGE, "storage": "pvc:a"})
    assert str(refused.value).startswith(f"--site-set: {key}")


def test_a_growing_group_has_an_end_too() -> None:
    with pytest.raises(InputError, match=r"^--autoscale: workers.autoscale.1: Input should be less than"):
        read_settings(None, [], {"image": IMAGE, "storage": "pvc:a", "workers.autoscale": f"1:{2**31}"})


def test_what_is_just_in_range_passes() -> None:
    given = ["head.memory=1Gi", "workers.memory=64Ti", "limits.ttl_s=2147483647", "network.interface=bond0.100"]
    read_settings(None, [*given, "cron.schedule='@daily'", "cron.time_zone=Europe/Berlin"], {"image": IMAGE, "storage": "pvc:a"})


@pytest.mark.skipif(not available_timezones(), reason="no time zones on this machine")
@pytest.mark.parametrize("zone", ["Mars/Phobos", "Europe", "europe/berlin", "/etc/passwd"])
def test_a_time_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(InputError, match=r"cron.time_zone: not a time zone such as Europe/Berlin"):
        read_settings(None, ["cron.schedule='@daily'", f"cron.time_zone={zone}"], {"image": IMAGE, "storage": "pvc:a"})


SITES = {
    "workers: {cpus: 3, cpus: 4}": "not a YAML file: cpus is there twice",
    "namespace: a\nimage: x\nnamespace: b": "not a YAML file: namespace is there twice",
    "workers: 3": "workers: not a value but settings; found 3; allowed: cpus, memory",
    "workers: {cpus: 0}": "workers.cpus: Input should be greater than 0; found 0",
    "{": "not a YAML file",
    "- a": "a site's file is a mapping of settings; found list",
}


@pytest.mark.parametrize("text", SITES)
def test_a_site_file_that_is_wrong_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_settings(path, [], {"image": IMAGE, "storage": "pvc:a"})
    assert str(refused.value).startswith(f"--site {path}: {SITES[text]}")


def test_what_the_command_line_says_is_not_blamed_on_the_site(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("workers: {gpus: 1}\nlimits: {retries: 1}\nhead: 3\n")
    with pytest.raises(InputError, match=r"^--gpus-per-worker: workers.gpus: .* found -1$"):
        read_settings(path, ["head={}"], {"image": IMAGE, "storage": "pvc:a", "workers.gpus": -1})
    with pytest.raises(InputError, match=r"^--site-set: limits.retries: .* found -2$"):
        read_settings(path, ["head={}", "limits.retries=-2"], {"image": IMAGE, "storage": "pvc:a"})
    with pytest.raises(InputError, match=r"^--site-set head.cpus=1: head is a single value"):
        read_settings(path, ["head.cpus=1"], {"image": IMAGE, "storage": "pvc:a"})


def test_a_context_without_apply_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^--context: a printed manifest goes nowhere; found here; allowed: with --apply$"):
        app([*GOOD, "--context", "here"], standalone_mode=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [None, "{{{", "a: 1", "folder"])
def test_no_access_to_a_cluster_says_where_it_is_looked_for(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"^kubeconfig: no cluster to talk to: .*allowed: .*KUBECONFIG.*--context") as refused:
        app([*GOOD, "--apply"], standalone_mode=False)
    assert "\n" not in str(refused.value)
