"""`imagetune report` of a search."""

from searches import write_search


def test_the_page_of_a_search_is_written_again(workplace, imagetune):
    folder = write_search(workplace / "out", trials=3)
    done = imagetune("report", "out")
    assert (done.code, done.out.strip()) == (0, str(folder / "report.html"))
    first = (folder / "report.html").read_bytes()
    assert b"Winner: trial" in first
    (folder / "report.html").unlink()
    imagetune("report", "out")
    assert (folder / "report.html").read_bytes() == first


def test_a_corrupted_search_is_one_line(workplace, imagetune):
    folder = write_search(workplace / "out", trials=3)
    (folder / "search.json").write_text("{")
    done = imagetune("report", "out")
    assert done.code == 9
    assert "search.json" in done.err
    assert "Traceback" not in done.err
