import socket
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from shards.pixels import encode_jpeg
from tracker.video import VideoError, VideoWriter, natural_key, open_clip


def frames(count: int = 12, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A bright square that moves over a slope of grey."""
    out = []
    for i in range(count):
        frame = np.empty((height, width, 3), np.uint8)
        frame[:] = np.linspace(20, 120, width, dtype=np.uint8)[None, :, None]
        frame[10:26, 2 * i : 2 * i + 16] = (250, 200, 40)
        out.append(frame)
    return out


def read(path: Path) -> tuple[int, str]:
    """Frames up to the first failure, and what that says."""
    count = 0
    try:
        for _ in open_clip(path):
            count += 1
    except VideoError as error:
        return count, str(error)
    return count, ""


def write(path: Path, pictures: list[np.ndarray], fps: float = 25.0) -> Path:
    height, width = pictures[0].shape[:2]
    with VideoWriter(path, (height, width), fps) as writer:
        for picture in pictures:
            writer.write(picture)
        writer.commit()
    return path


def folder(path: Path, names: list[str], pictures: list[np.ndarray]) -> Path:
    path.mkdir()
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(path / name, quality=95)
    return path


def encoded(path: Path, options: dict[str, str], gaps: bool = False) -> Path:
    """H.264 of noise in any container; with gaps, three frames in a row and three not."""
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (90, 48, 64, 3), np.uint8)
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for i, picture in enumerate(noise):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i + 3 * (i // 3) if gaps else i
            frame.time_base = Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def avi(path: Path, count: int = 60) -> Path:
    """A file that can be read from its beginning on, whatever is cut from its end."""
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (count, 48, 64, 3), np.uint8)
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 25.0, (64, 48))
    for frame in noise:
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".MP4", ".mov"])
@pytest.mark.parametrize("fps", [29.97, 12.5, 240])
def test_what_is_written_is_read_back(tmp_path, suffix, fps):
    pictures = frames()
    clip = open_clip(write(tmp_path / f"a{suffix}", pictures, fps))
    assert clip.count == 12
    assert clip.fps == pytest.approx(fps, rel=1e-4)
    got = list(clip)
    assert len(got) == 12
    for a, b in zip(got, pictures, strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.uint8
        assert np.abs(a.astype(float) - b).mean() < 4  # RGB, not BGR
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]
    assert len(list(clip)) == 12  # a clip can be read again


def test_frames_of_odd_size_gain_one_pixel(tmp_path):
    (first, *_) = open_clip(write(tmp_path / "a.mp4", frames(3, 47, 61)))
    assert first.shape == (48, 62, 3)
    assert np.abs(first[:, 60].astype(float) - first[:, 61]).max() < 12


def test_what_is_not_committed_leaves_no_file(tmp_path):
    def interrupted():
        with VideoWriter(tmp_path / "a.mp4", (48, 64), 25) as writer:
            writer.write(frames()[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_there_is_replaced_only_by_a_whole_one(tmp_path):
    path = write(tmp_path / "a.mp4", frames(3))
    before = path.read_bytes()
    with VideoWriter(path, (48, 64), 25) as writer:
        writer.write(frames()[0])
    assert path.read_bytes() == before
    write(path, frames(5))
    assert open_clip(path).count == 5


def test_a_full_disk_is_told(tmp_path):
    code = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from tracker.video import VideoError, VideoWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "noise = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (40, 120, 160, 3), "
        "np.uint8)\n"
        "with VideoWriter(Path(sys.argv[1]), (120, 160), 25) as writer:\n"
        "    try:\n"
        "        for frame in noise: writer.write(frame)\n"
        "        writer.commit()\n"
        "    except VideoError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "a.mp4: cannot be written: file too large" in ran.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.avi", r"must end in \.mp4"),
        ("a", r"must end in \.mp4"),
        ("no/a.mp4", "there is no folder"),
        ("folder.mp4", "a folder has that name"),
    ],
)
def test_names_that_no_video_can_have_are_refused(tmp_path, name, what):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match=what):
        VideoWriter(tmp_path / name, (48, 64), 25)


def test_pictures_are_sorted_by_the_numbers_in_their_names(tmp_path):
    names = ["10.jpg", "2.jpg", "1.JPG", "33.jpeg"]
    pictures = [np.full((8, 8, 3), v, np.uint8) for v in (100, 20, 10, 240)]
    clip = open_clip(folder(tmp_path / "v", names, pictures))
    assert [p.name for p in clip.pictures] == ["1.JPG", "2.jpg", "10.jpg", "33.jpeg"]
    assert [round(float(frame.mean()), -1) for frame in clip] == [10, 20, 100, 240]
    assert clip.count == 4
    assert clip.fps is None
    mixed = ["b2a10", "a", "b2a9", "10", "b10", "9", "b2"]
    ordered = ["9", "10", "a", "b2", "b2a9", "b2a10", "b10"]
    assert sorted(mixed, key=natural_key) == ordered


def test_what_is_no_picture_is_left_out_and_told(tmp_path):
    path = folder(tmp_path / "v", ["1.jpg", "2.jpg"], frames(2))
    for name in ("Thumbs.db", "groundtruth.txt", "._1.jpg"):
        (path / name).write_bytes(b"x")
    (path / "3.jpg").mkdir()
    clip = open_clip(path)
    assert clip.count == 2
    assert clip.notes == (f"{path}: 2 files that are no pictures are left out",)


def test_pictures_of_two_kinds_are_refused(tmp_path):
    path = folder(tmp_path / "v", ["1.jpg", "2.jpg", "1.png"], frames(3))
    with pytest.raises(VideoError, match=r"2 \.jpg and 1 \.png in one folder"):
        open_clip(path)


def test_a_folder_without_pictures_says_where_some_are(tmp_path):
    with pytest.raises(VideoError, match="a folder without pictures"):
        open_clip(tmp_path)
    folder(tmp_path / "img", ["1.jpg"], frames(1))
    with pytest.raises(VideoError, match=r"without pictures; .*img has some"):
        open_clip(tmp_path)


def test_pictures_are_read_as_everywhere_in_the_project(tmp_path):
    path = tmp_path / "v"
    path.mkdir()
    Image.fromarray(frames()[0][..., 0]).save(path / "1.png")
    (grey,) = open_clip(path)
    assert grey.shape == (48, 64, 3)
    assert (grey[..., 0] == frames()[0][..., 0]).all()
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(path / "2.png")
    with pytest.raises(VideoError, match=r"2\.png: pixel mode I;16.*8-bit"):
        list(open_clip(path))


def test_a_turned_picture_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "v"
    path.mkdir()
    Image.fromarray(frames()[0]).save(path / "1.jpg", exif=exif)
    with pytest.raises(VideoError, match=r"1\.jpg: EXIF orientation 6"):
        list(open_clip(path))


def test_a_damaged_picture_is_named_and_the_frames_before_it_are_good(tmp_path):
    path = folder(tmp_path / "v", ["1.jpg", "2.jpg", "3.jpg"], frames(3))
    (path / "2.jpg").write_bytes((path / "2.jpg").read_bytes()[:300])
    source = iter(open_clip(path))
    next(source)
    with pytest.raises(VideoError, match=r"2\.jpg: "):
        next(source)
    (path / "2.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match=r"2\.jpg: not a picture"):
        list(open_clip(path))


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    path = tmp_path / "v"
    path.mkdir()
    Image.new("1", (30_000, 30_000)).save(path / "1.png")
    with pytest.raises(VideoError, match=r"1\.png: header of 30000x30000 pixels"):
        list(open_clip(path))


def test_a_picture_of_another_size_is_named(tmp_path):
    path = folder(tmp_path / "v", ["1.jpg", "2.jpg", "3.jpg"], [*frames(2), *frames(1, 50, 70)])
    with pytest.raises(
        VideoError, match=r"frame 3, 3\.jpg has 70x50 pixels, those before it 64x48"
    ):
        list(open_clip(path))


def test_a_video_that_changes_its_size_is_refused_there(tmp_path):
    path = tmp_path / "v.mjpeg"
    pictures = [*frames(5), *frames(5, 96, 80)]
    path.write_bytes(b"".join(encode_jpeg(picture, 90) for picture in pictures))
    count, said = read(path)
    assert count == 5
    assert "frame 6 has 80x96 pixels, those before it 64x48; cut the video there" in said


def test_a_video_cut_off_tells_its_last_frame(tmp_path):
    path = avi(tmp_path / "v.avi")
    assert read(path) == (60, "")
    whole = path.read_bytes()
    for end in (len(whole) // 2, whole.index(b"00dc", len(whole) // 3)):  # in a frame, between two
        path.write_bytes(whole[:end])
        count, said = read(path)
        assert 15 < count < 40
        assert f"after frame {count}" in said


def test_an_mp4_or_matroska_cut_off_tells_its_last_frame(tmp_path):
    for name, options in (("v.mp4", {"movflags": "faststart"}), ("v.mkv", {})):
        path = encoded(tmp_path / name, options)
        count, said = read(path)
        assert (count, said) == (90, ""), name
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        count, said = read(path)
        assert 20 < count < 85, name
        assert f"after frame {count}" in said


def test_frames_at_uneven_times_are_not_missing_ones(tmp_path):
    path = encoded(tmp_path / "v.mkv", {}, gaps=True)
    assert read(path) == (90, "")


def test_a_damaged_frame_is_told(tmp_path):
    path = encoded(tmp_path / "v.mp4", {})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(b ^ 0x5A for b in data[middle : middle + 300])
    path.write_bytes(data)
    count, said = read(path)
    assert 10 < count < 89
    assert "damaged" in said


@pytest.mark.parametrize(
    "content", [b"", b"not a video", b"\0" * 5000], ids=["empty", "text", "zeros"]
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, content, capfd):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"v\.mp4: not a video that can be opened"):
        open_clip(path)
    assert capfd.readouterr() == ("", "")


def test_an_mp4_cut_off_cannot_be_opened(tmp_path, capfd):
    path = encoded(tmp_path / "v.mp4", {})  # its table of contents comes last
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError, match=r"v\.mp4: not a video that can be opened .*cut off"):
        open_clip(path)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_fetches_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path = tmp_path / "v.m3u8"
        head = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
        path.write_text(f"{head}{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(VideoError, match=r"v\.m3u8: "):
            open_clip(path)
        with pytest.raises(TimeoutError):
            server.accept()


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "v.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2000))
    with pytest.raises(VideoError, match=r"v\.wav: has no pictures in it, only WAV"):
        open_clip(path)


def test_a_video_without_frames_is_refused(tmp_path):
    path = tmp_path / "v.avi"
    code = cv2.VideoWriter.fourcc(*"MJPG")
    cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 25.0, (64, 48)).release()
    with pytest.raises(VideoError, match=r"v\.avi"):
        open_clip(path)


def test_neither_addresses_nor_patterns_nor_single_pictures_are_opened(tmp_path):
    path = folder(tmp_path / "v", ["0001.jpg", "0002.jpg"], frames(2))
    for name in ("%04d.jpg", "no.mp4"):
        with pytest.raises(VideoError, match="no such video"):
            open_clip(path / name)
    with pytest.raises(VideoError, match="no such video"):
        open_clip(Path("http://localhost:9/a.mp4"))
    with pytest.raises(VideoError, match=r"0001\.jpg: one picture is no video; give its folder"):
        open_clip(path / "0001.jpg")


def test_a_video_is_turned_as_its_metadata_say(tmp_path):
    path = write(tmp_path / "v.mp4", frames())
    data = bytearray(path.read_bytes())
    # ISO 14496-12: the matrix stands 40 bytes into a track header's body (version 0).
    matrix = data.index(b"tkhd") + 4 + 40
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30]
    for i, value in enumerate(quarter):
        data[matrix + 4 * i : matrix + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    (first, *_) = open_clip(path)
    assert first.shape == (64, 48, 3)
    turned = np.rot90(frames()[0], -1)  # clockwise
    assert np.abs(first.astype(float) - turned).mean() < 4
