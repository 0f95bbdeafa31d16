"""The files of the demo."""

from kloaders.cli.demo_images import write_images


def test_files_of_the_demo_are_real_images(images):
    """PNG and JPEG, in a folder a class."""
    assert [p.name for p in sorted(images.iterdir())] == [*"0123456789", "china", "flower"]
    assert (images / "3" / "0003.png").read_bytes().startswith(b"\x89PNG")
    assert (images / "china" / "0000.jpg").read_bytes().startswith(b"\xff\xd8")


def test_the_same_files_each_time(images, tmp_path):
    """Pieces of photographs are drawn by a seed."""
    assert write_images(str(tmp_path), crops=20, progress=False) == 1837
    for name in ("china/0003.jpg", "flower/0019.jpg", "7/0007.png"):
        assert (tmp_path / name).read_bytes() == (images / name).read_bytes()
