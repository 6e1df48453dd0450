"""What of a folder is sent: nothing of patients, no secrets, nothing large by accident; same files, same bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from mtids_dist.errors import InputError
from mtids_dist.submit import list_upload, own_package

SENT = [
    "configs/run.yaml",
    "code/model.py",
    "code/private.py",
    "code/secrets.py",
    "code/tokens.py",
    "nodes.csv",
    "notes.txt",
    "run.sh",
    "runs/readme.txt",
]
NEVER = {
    "version control": [".git/config", "sub/.git"],
    "patients' images": ["scan/1.dcm", "scan/2.DCM", "scan/DICOMDIR", "scan/ct.nii.gz"],
    "arrays and archives": ["crops.npy", "scans.zip", "scans.tar.gz", "one.gz", "volume.h5", "cache.zarr/.zarray"],
    "Parquet": ["part-0.parquet"],
    "checkpoints and weights": ["runs/checkpoints/a/state.json", "model.safetensors", "old.pt"],
    "secrets": [
        *(".env", "deploy/.env.production", "tls.pem", "server.key", "id_rsa", "id_ed25519.pub", "auth_token", "kubeconfig"),
        *("prod.env", ".npmrc", ".pgpass", ".huggingface_token", "token.txt", "password.txt", "secrets.yaml", "x.kdbx"),
        *(
            "terraform.tfstate",
            "gcp-credentials.json",
            "my-kubeconfig.yaml",
            ".aws/credentials",
            ".ray/auth_token",
            "store/private/lookup.csv",
            ".netrc",
        ),
    ],
    "environments and caches": [".venv/bin/python", "own-env/pyvenv.cfg", "code/__pycache__/m.pyc", ".ruff_cache/x"],
    "run folders": ["runs/first/run.yaml"],
    "stores": ["data/manifest.json"],
    "named in .gitignore, .rayignore or --exclude": ["big/file.bin", "code/draft.txt", "kept/out/x", "extra.log"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [*SENT, *(name for names in NEVER.values() for name in names)]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"contents of {name}\n")
    (tmp_path / "runs/first/versions.json").touch()
    (tmp_path / "data/part-0.parquet").touch()
    (tmp_path / ".gitignore").write_text("big/\n/kept/*\n!/kept/in\n")
    (tmp_path / "code" / ".rayignore").write_text("draft.*\n")
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


def names(root: Path, *exclude: str) -> list[str]:
    return [str(file.path) for file in list_upload(root, exclude=exclude).files]


def test_only_what_a_job_needs_is_sent(folder: Path) -> None:
    upload = list_upload(folder, exclude=["*.log"])
    assert [str(file.path) for file in upload.files] == sorted([".gitignore", "code/.rayignore", *SENT])
    assert set(upload.left_out) == set(NEVER)
    assert ".ray/" in upload.left_out["secrets"], "a folder stands for what is in it"
    assert "terraform.tfstate" in upload.left_out["secrets"]
    assert upload.size_bytes == sum((folder / name).stat().st_size for name in names(folder, "*.log"))


def test_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    (tmp_path / "table.bin").write_bytes(b"PAR1....PAR1")
    (tmp_path / "mykey.txt").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    (tmp_path / "nodes.csv").write_text("series_instance_uid,patient_id,x_mm\n1.2,P1,3\n")
    (tmp_path / "rates.csv").write_text("epoch,rate\n1,2\n")
    (tmp_path / "test_keys.py").write_text('KEY = "-----BEGIN PRIVATE KEY-----"\n')
    (tmp_path / "empty").touch()
    assert names(tmp_path) == ["empty", "rates.csv", "test_keys.py"]


def test_what_the_user_names_is_sent_in_spite_of_all_rules(tmp_path: Path) -> None:
    table = "series_instance_uid,patient_id,x_mm\n1.2,P1,3\n"
    for name in ("nodes.csv", "other.csv", "atlas.npy", "private/key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(table)
    upload = list_upload(tmp_path, include=["atlas.npy"], named=[Path("./nodes.csv")])
    assert [str(file.path) for file in upload.files] == ["atlas.npy", "nodes.csv"]
    assert upload.left_out == {"secrets": ["private/"], "tables of patients": ["other.csv"]}


def test_what_is_no_file_or_has_no_name_is_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"bad\xff")).touch()
    upload = list_upload(tmp_path)
    assert upload.files == ()
    assert sorted(upload.left_out.values()) == [["bad\\xff"], ["pipe"]]


def test_a_file_that_goes_away_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    upload = list_upload(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"can't be read any more: No such file or directory; found a\.txt"):
        upload.digest()


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (root, outside):
        path.mkdir()
    (outside / "secret").write_text("x")
    (root / "real").write_text("x")
    (root / "inside").symlink_to("real")
    (root / "out").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "dangling").symlink_to("nothing")
    assert names(root) == ["inside", "real"]


def test_the_same_files_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    def packed() -> bytes:
        upload = list_upload(folder)
        upload.write_zip(folder / "out.zip")
        return (folder / "out.zip").read_bytes()

    (folder / ".rayignore").write_text("out.zip\n")
    first, digest = packed(), list_upload(folder).digest()
    os.utime(folder / "notes.txt", (1, 1))
    assert packed() == first
    assert list_upload(folder).digest() == digest
    with zipfile.ZipFile(folder / "out.zip") as file:
        assert file.namelist() == names(folder)
        assert file.read("notes.txt") == b"contents of notes.txt\n"
        assert file.getinfo("run.sh").external_attr >> 16 & 0o111
    (folder / "notes.txt").write_text("other")
    assert packed() != first
    assert list_upload(folder).digest() != digest


def test_too_much_is_refused_with_the_largest_files_named(tmp_path: Path) -> None:
    for number, size in enumerate((10, 700_000, 900_000)):
        (tmp_path / f"file{number}").write_bytes(b"x" * size)
    upload = list_upload(tmp_path)
    upload.refuse_above(1.6)
    with pytest.raises(InputError, match=r"file2 \(0\.9 MiB\), file1 \(0\.7 MiB\), .*found 1\.5 MiB; allowed: 1 MiB"):
        upload.refuse_above(1)


def test_a_folder_of_too_many_files_is_not_even_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtids_dist.submit.upload.MAX_FILES", 3)
    for number in range(5):
        (tmp_path / str(number)).touch()
    with pytest.raises(InputError, match="too many files to send; found more than 3"):
        list_upload(tmp_path)


def test_our_own_package_is_sent_whole() -> None:
    package = own_package()
    modules = {path.relative_to(package.root).as_posix() for path in package.root.rglob("*") if path.is_file()}
    assert {str(file.path) for file in package.files} == {name for name in modules if "__pycache__" not in name}
