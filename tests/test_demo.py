"""The demonstration runs without data, says what it measured, and needs no other file."""

import json

from sciflow import demo


def test_demo_without_data(tmp_path, monkeypatch):
    monkeypatch.delenv("SCIFLOW_DATA", raising=False)
    monkeypatch.setenv("SCIFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "STEPS", 20)  # the verdicts are those of an unfinished fit
    page = demo.run(tmp_path / "out", progress=False)
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    titles = [section["title"] for section in report["sections"]]
    assert len(titles) == 2
    assert not any("Embryoid" in title for title in titles)
    entries = [entry for section in report["sections"] for entry in section["entries"]]
    assert len(entries) == 7
    assert all(entry["source"] and entry["seed"] == 0 for entry in entries)
    # after 20 steps the flow is far from the closed form, and the page must say so
    assert entries[0]["verdict"] == "fail"
    html = page.read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert html.count("data:image/png;base64") == 3
