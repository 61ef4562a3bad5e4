"""Sources that other detectors read and this one does not: cameras, streams, web addresses, videos."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+[;,]", re.IGNORECASE)
_CAMERAS = re.compile(r"\d{1,3}|/dev/video\d+|(screen|webcam|camera)(\s*\d+)*", re.IGNORECASE)
_STREAMS = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "mms", "hls"})
_VIDEOS = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m3u8", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"}
    | {".ts", ".vob", ".webm", ".wmv"}
)


def is_video(name: str) -> bool:
    """Tell whether a name ends as those of videos do."""
    return os.path.splitext(name)[1].lower() in _VIDEOS


def foreign_source(argument: str) -> str:
    """Return what an argument is that is not the name of a file, and what to do; empty if it may be a file.

    The text is to be put after the argument and a colon.
    """
    scheme = _SCHEME.match(argument)
    if scheme and scheme[1].lower() in _STREAMS:
        return f"is a stream, which is not read; {_record(argument)}"
    if scheme and is_video(urlsplit(argument).path):
        return f"is a video, which is not read; {_record(argument)}"
    if scheme and scheme[1].lower() in ("http", "https", "ftp", "ftps"):
        return "is a web address, which is not read; download the image (curl -LO ADDRESS) and give the file"
    if scheme and scheme[1].lower() != "file":
        return f"{scheme[1]}:// is not read; give files, folders, minio:// or s3://"
    if _DATA.match(argument):
        return "is an image as text (a data URI), which is not read; store it as a file"
    if _CAMERAS.fullmatch(argument):
        return (
            "is a camera or a screen, which is not read; store its pictures first "
            "(ffmpeg -f v4l2 -i /dev/video0 -vf fps=1 frames/%06d.jpg), and give their folder"
        )
    if is_video(argument):
        return f"is a video, which is not read; {_record(os.path.basename(argument))}"
    return ""


def _record(source: str) -> str:
    return f"store its pictures first (ffmpeg -i {source} -vf fps=1 frames/%06d.jpg), and give their folder"
