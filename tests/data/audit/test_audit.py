from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagetune.cli.render.audit import format_audit
from imagetune.data.audit import inspection
from imagetune.data.audit.audit import Audit, audit_catalog, enforce_audit
from imagetune.data.check_document import build_audit_document
from imagetune.data.findings import Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

MakeImage = Callable[..., Path]
ConfigFor = Callable[..., DataConfig]
CLIPART = Path(__file__).parents[3] / "recipes" / "clipart"


def drawing(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(seed: int = 0, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    drawing(seed).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def checked(config: DataConfig) -> tuple[Catalog, Audit]:
    catalog = read_catalog(config)
    return catalog, audit_catalog(catalog, config)


def finding(audit: Audit, code: str) -> Finding:
    (found,) = [finding for finding in audit.findings if finding.code == code]
    return found


def codes(audit: Audit) -> set[str]:
    return {finding.code for finding in audit.findings}


def test_a_clean_source_has_no_findings(class_folders: Path, config_for: ConfigFor) -> None:
    catalog, audit = checked(config_for(class_folders))
    assert audit.findings == ()
    assert audit.duplicate_groups == tuple(range(36))
    fact = audit.statistics[0]
    assert fact.sha256 == hashlib.sha256(Path(fact.path).read_bytes()).hexdigest()
    assert (fact.width, fact.height, fact.size_bytes) == (48, 40, Path(fact.path).stat().st_size)
    assert [fact.path for fact in audit.statistics] == [record.path for record in catalog.records]
    enforce_audit(audit)


def spoil(folder: Path) -> dict[str, str]:
    """Put one image of every bad kind into a class folder; return a word of each one's reason."""
    bomb_size = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bomb_size
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + bomb_size))
    (folder / "bomb.png").write_bytes(bomb + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    (folder / "cut.jpg").write_bytes(jpeg()[:5000])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<html><body>not found</body></html>")
    crc = bytearray((folder / "00.png").read_bytes())
    crc[len(crc) // 2] ^= 1
    (folder / "crc.png").write_bytes(bytes(crc))
    (folder / "link.png").symlink_to(folder / "gone.png")
    return {
        "bomb.png": "900,000,000 pixels",
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "page.jpg": "HTML",
        "crc.png": "checksum",
        "link.png": "link to a file that does not exist",
    }


def test_every_bad_image_is_named_with_its_reason(class_folders: Path, config_for: ConfigFor) -> None:
    reasons = spoil(class_folders / "cat")
    catalog, audit = checked(config_for(class_folders))
    found = finding(audit, "bad-image")
    assert found.severity == "warning"
    assert found.title == "6 images can't be used"
    for name, words in reasons.items():
        assert words in found.reasons[str(class_folders / "cat" / name)]
    document = json.loads(json.dumps(build_audit_document(catalog, audit)))
    assert {Path(bad["path"]).name for bad in document["bad"]} == set(reasons)
    assert (document["images"], document["usable"], document["ok"]) == (42, 36, True)
    splits = split_catalog(catalog, audit, config_for(class_folders), seed=0)
    assert len(splits.train) + len(splits.val) + splits.test_count == 36


def test_bad_images_stop_where_the_recipe_says_so(class_folders: Path, config_for: ConfigFor) -> None:
    spoil(class_folders / "cat")
    _, audit = checked(config_for(class_folders, on_bad_image="error"))
    with pytest.raises(DataError, match=r"6 images can't be used: .*bomb\.png \(30000 x 30000.* and 3 more") as caught:
        enforce_audit(audit)
    assert caught.value.exit_code == 3
    assert len(caught.value.lines()) == 1


def test_the_check_leaves_the_source_as_it_was(class_folders: Path, config_for: ConfigFor) -> None:
    def state() -> list[tuple[str, int, str]]:
        files = sorted(path for path in class_folders.rglob("*") if path.is_file())
        return [(str(path), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]

    spoil(class_folders / "cat")
    before = state()
    checked(config_for(class_folders))
    assert state() == before


@pytest.mark.parametrize("corruption", ["noise", "zeros"])
def test_corruption_inside_a_jpeg_is_a_warning(
    class_folders: Path, config_for: ConfigFor, corruption: str, capfd
) -> None:
    data = bytearray(jpeg(5))
    middle = len(data) // 2
    noise = np.random.default_rng(1).integers(0, 256, 40, np.uint8).tobytes()
    data[middle : middle + 40] = noise if corruption == "noise" else bytes(40)
    (class_folders / "cat" / "corrupt.jpg").write_bytes(bytes(data))
    (class_folders / "cat" / "whole.jpg").write_bytes(jpeg(6))
    _, audit = checked(config_for(class_folders))
    found = finding(audit, "corrupt-image")
    assert found.severity == "warning"
    assert found.paths == (str(class_folders / "cat" / "corrupt.jpg"),)
    assert "Corrupt JPEG data" in found.reasons[found.paths[0]]
    enforce_audit(audit)
    assert capfd.readouterr().err == ""


def test_what_others_print_during_the_check_is_passed_on(capfd) -> None:
    with inspection._capture_native_stderr() as printed:
        os.write(2, b"Corrupt JPEG data: x\nsomeone else\n")
        assert "Corrupt JPEG data" in printed()
    assert capfd.readouterr().err == "someone else\n"


def test_wrong_suffix_and_many_frames_are_said_once(class_folders: Path, config_for: ConfigFor) -> None:
    drawing(1).save(class_folders / "cat" / "really_png.jpg", "PNG")
    frames = [drawing(seed, 32, 32) for seed in (2, 3, 4)]
    for name in ("a.gif", "b.tif"):
        frames[0].save(class_folders / "dog" / name, save_all=True, append_images=frames[1:])
    _, audit = checked(config_for(class_folders))
    assert finding(audit, "wrong-suffix").reasons == {str(class_folders / "cat" / "really_png.jpg"): "is PNG"}
    many = finding(audit, "many-frames")
    assert many.title == "2 images with several frames or pages"
    assert set(many.reasons.values()) == {"3 frames or pages"}


def test_copies_and_near_duplicates_are_one_group(class_folders: Path, config_for: ConfigFor) -> None:
    cat, dog = class_folders / "cat", class_folders / "dog"
    (cat / "big.png").parent.mkdir(exist_ok=True)
    drawing(900).save(cat / "big.png")
    (cat / "copy.png").write_bytes((cat / "big.png").read_bytes())
    drawing(900).save(cat / "again.jpg", quality=60)
    drawing(900).resize((200, 150)).save(dog / "small.webp")
    catalog, audit = checked(config_for(class_folders))
    group = {
        name: audit.duplicate_groups[[r.path for r in catalog.records].index(str(name))] for name in (cat / "big.png",)
    }
    members = [
        r.path for r, root in zip(catalog.records, audit.duplicate_groups, strict=True) if root in group.values()
    ]
    assert {Path(path).name for path in members} == {"big.png", "copy.png", "again.jpg", "small.webp"}
    assert finding(audit, "identical-images").groups == ((str(cat / "big.png"), str(cat / "copy.png")),)
    assert len(finding(audit, "near-duplicates").paths) == 4
    _, plain = checked(config_for(class_folders, audit={"near_duplicates": False}))
    assert "identical-images" in codes(plain)
    assert "near-duplicates" not in codes(plain)


def test_plain_images_are_not_lumped_together(class_folders: Path, config_for: ConfigFor) -> None:
    for shade in range(0, 250, 25):
        Image.new("RGB", (60, 60), (shade, 255 - shade, 90)).save(class_folders / "cat" / f"plain{shade}.png")
    _, audit = checked(config_for(class_folders))
    assert "near-duplicates" not in codes(audit)


def test_duplicate_groups_of_the_shipped_set_are_the_real_ones(config_for: ConfigFor) -> None:
    _, audit = checked(config_for(CLIPART))
    groups = [{Path(path).stem for path in group} for group in finding(audit, "near-duplicates").groups]
    assert {"blue_fedora", "red_fedora"} in groups
    assert {"duck_yellow_ii_kurt_cagl_", "tux_didier_fabert_01"} in groups  # "linked image not found", twice
    assert not any("flag" in name for group in groups for name in group)
    assert 12 <= len(groups) <= 40


def split_source(folder: Path) -> Path:
    for split, start in (("train", 0), ("test", 500)):
        for place, label in enumerate(("cat", "dog")):
            (folder / split / label).mkdir(parents=True)
            for number in range(3):
                drawing(start + 10 * place + number, 64, 48).save(folder / split / label / f"{number}.png")
    return folder


def test_the_same_image_in_two_given_splits_is_an_error_unless_allowed(tmp_path: Path, config_for: ConfigFor) -> None:
    source = split_source(tmp_path / "set")
    (source / "test" / "cat" / "leak.png").write_bytes((source / "train" / "cat" / "1.png").read_bytes())
    drawing(11, 64, 48).resize((128, 96)).save(source / "test" / "dog" / "near.png")
    _, audit = checked(config_for(source))
    leak = finding(audit, "leak")
    assert leak.severity == "error"
    assert leak.title == "2 images in more than one split, as copies or near-duplicates (2 between test and train)"
    assert {Path(path).name for path in leak.paths} == {"leak.png", "1.png", "near.png"}
    with pytest.raises(DataError, match=r"2 images in more than one split.*set data\.audit.on_leak: warn"):
        enforce_audit(audit)
    for policy, severity in (("warn", "warning"), ("ignore", "note")):
        _, allowed = checked(config_for(source, audit={"on_leak": policy}))
        assert finding(allowed, "leak").severity == severity
        enforce_audit(allowed)


def test_a_group_in_two_given_splits_is_a_leak(tmp_path: Path, config_for: ConfigFor) -> None:
    source = split_source(tmp_path / "set")
    rows = [
        f"{path.relative_to(tmp_path)},{path.parts[-2]},{path.parts[-3]},p{path.stem}" for path in source.rglob("*.png")
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,group", *rows]))
    _, audit = checked(config_for(tmp_path / "t.csv"))
    assert finding(audit, "group-leak").title.startswith("3 groups in more than one split")


def test_one_image_under_two_labels_is_a_conflict(class_folders: Path, config_for: ConfigFor) -> None:
    (class_folders / "dog" / "twin.png").write_bytes((class_folders / "cat" / "03.png").read_bytes())
    _, audit = checked(config_for(class_folders))
    conflict = finding(audit, "conflict")
    assert conflict.severity == "warning"
    assert conflict.reasons == {
        str(class_folders / "cat" / "03.png"): "cat",
        str(class_folders / "dog" / "twin.png"): "dog",
    }
    _, strict = checked(config_for(class_folders, audit={"on_conflict": "error"}))
    with pytest.raises(DataError, match="1 image under more than one label"):
        enforce_audit(strict)


def test_nearly_one_image_under_two_labels_is_distinguished_from_copies(
    class_folders: Path, config_for: ConfigFor
) -> None:
    (class_folders / "dog" / "twin.png").write_bytes((class_folders / "cat" / "03.png").read_bytes())
    drawing(900).save(class_folders / "cat" / "large.png")
    drawing(900).resize((200, 150)).save(class_folders / "dog" / "small.png")
    _, audit = checked(config_for(class_folders))
    assert len(finding(audit, "conflict").paths) == 2
    near = finding(audit, "near-conflict")
    assert near.severity == "warning"
    assert {Path(path).name: label for path, label in near.reasons.items()} == {"large.png": "cat", "small.png": "dog"}


def test_allowed_codes_are_reported_in_the_document_only(class_folders: Path, config_for: ConfigFor) -> None:
    spoil(class_folders / "cat")
    config = config_for(class_folders, on_bad_image="error", audit={"allow": ["bad-image"]})
    catalog, audit = checked(config)
    enforce_audit(audit)
    assert "bad-image" not in codes(audit)
    assert "bad-image" not in "\n".join(format_audit(catalog, audit))
    document = json.loads(json.dumps(build_audit_document(catalog, audit)))
    assert document["ok"]
    assert [(allowed["code"], allowed["count"]) for allowed in document["allowed"]] == [("bad-image", 6)]
    assert "bad-image" not in {reported["code"] for reported in document["findings"]}


def test_any_code_can_stop_the_run(class_folders: Path, config_for: ConfigFor) -> None:
    drawing(1).save(class_folders / "cat" / "really_png.jpg", "PNG")
    _, audit = checked(config_for(class_folders, audit={"fail_on": ["wrong-suffix"]}))
    assert finding(audit, "wrong-suffix").severity == "error"
    with pytest.raises(
        DataError, match=r"1 image with a file name suffix.*remove wrong-suffix from data\.audit\.fail_on"
    ):
        enforce_audit(audit)


def test_a_finding_without_images_stops_in_one_plain_line() -> None:
    audit = Audit((), (Finding("shortcut-size", "error", "the size alone predicts the label", hint="look"),), ())
    with pytest.raises(DataError) as caught:
        enforce_audit(audit)
    assert caught.value.lines() == ["error[data] the size alone predicts the label; look"]


def test_every_kind_of_outlier_image_and_class_is_reported_by_the_audit(
    class_folders: Path, config_for: ConfigFor
) -> None:
    for place in range(8):
        Image.new("RGB", (48, 40), (place * 30,) * 3).save(class_folders / "owl" / f"plain{place}.png")
    dark = drawing(55, 48, 40).point(lambda level: level // 12)
    dark.save(class_folders / "owl" / "dark.png")
    (class_folders / "bat").mkdir()
    drawing(77, 48, 40).save(class_folders / "bat" / "one.png")
    _, audit = checked(config_for(class_folders))
    assert len(finding(audit, "blank-image").paths) == 8
    assert finding(audit, "too-dark").paths == (str(class_folders / "owl" / "dark.png"),)
    assert "bat (1)" in finding(audit, "tiny-class").title
    assert "'owl' has 21 times the images of 'bat'" in finding(audit, "class-imbalance").title


def test_what_predicts_the_label_without_looking_is_reported(tmp_path: Path, config_for: ConfigFor) -> None:
    for place, label in enumerate(("cat", "dog")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(30):
            suffix = "jpg" if label == "cat" else "png"
            drawing(100 * place + number, 64, 48).save(tmp_path / "set" / label / f"{number}.{suffix}")
    _, audit = checked(config_for(tmp_path / "set"))
    found = finding(audit, "shortcut-file-type")
    assert found.severity == "warning"
    assert found.metrics["score"] == 1.0


def test_a_given_test_split_from_elsewhere_is_reported(tmp_path: Path, config_for: ConfigFor) -> None:
    for split, start, count in (("train", 0, 40), ("test", 500, 24)):
        for place, label in enumerate(("cat", "dog")):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                image = drawing(start + 100 * place + number, 64, 48)
                image = image.point(lambda level: level // 2) if split == "test" else image
                image.save(folder / f"{number}.png")
    _, audit = checked(config_for(tmp_path / "set"))
    assert "brightness" in finding(audit, "split-shift").title


def test_one_row_under_two_labels_is_a_conflict(class_folders: Path, config_for: ConfigFor) -> None:
    rows = ["path,label", "set/cat/00.png,a", "set/cat/00.png,b", "set/cat/01.png,a", "set/cat/02.png,b"]
    (class_folders.parent / "t.csv").write_text("\n".join(rows))
    _, audit = checked(config_for(class_folders.parent / "t.csv"))
    assert finding(audit, "conflict").reasons == {str(class_folders / "cat" / "00.png"): "a, b"}


def test_missing_images_of_a_table_are_named(tmp_path: Path, class_folders: Path, config_for: ConfigFor) -> None:
    (tmp_path / "t.csv").write_text("path,label\nset/cat/00.png,a\nset/cat/nope.png,a\nset/dog/00.png,b\n")
    _, audit = checked(config_for(tmp_path / "t.csv"))
    assert finding(audit, "bad-image").reasons == {str(tmp_path / "set/cat/nope.png"): "no such file"}


def test_processes_find_what_one_process_finds(class_folders: Path, config_for: ConfigFor, monkeypatch) -> None:
    spoil(class_folders / "cat")
    data = bytearray(jpeg(5))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (class_folders / "cat" / "corrupt.jpg").write_bytes(bytes(data))
    alone = checked(config_for(class_folders))[1]
    monkeypatch.setattr(inspection, "_ALONE_COUNT", 1)
    monkeypatch.setattr(inspection, "_ALONE_BYTES", 1)
    monkeypatch.setattr(inspection, "count_usable_cores", lambda: 2)
    assert checked(config_for(class_folders))[1] == alone


def test_lines_show_classes_splits_and_findings(class_folders: Path, config_for: ConfigFor) -> None:
    spoil(class_folders / "cat")
    config = config_for(class_folders)
    catalog, audit = checked(config)
    splits = split_catalog(catalog, audit, config, seed=1)
    text = "\n".join(format_audit(catalog, audit, splits))
    assert text.startswith(f"{class_folders}: 42 images, 3 classes, 6 can't be used\n  class  train  val  test\n")
    assert "warning [bad-image] 6 images can't be used" in text
    assert "cat/empty.png (the file is empty)" in text
    assert "and 1 more (--json names them all)" in text
    assert "splits made by hash with seed 1" in text
    assert build_audit_document(catalog, audit, splits)["splits"]["train"]["dog"] == splits.counts()["train"]["dog"]


def test_a_symlink_loop_and_a_bomb_take_no_time(class_folders: Path, config_for: ConfigFor) -> None:
    spoil(class_folders / "cat")
    (class_folders / "cat" / "loop").symlink_to(class_folders, target_is_directory=True)
    started = time.perf_counter()
    _, audit = checked(config_for(class_folders))
    assert time.perf_counter() - started < 10
    assert "link-loop" in codes(audit)
