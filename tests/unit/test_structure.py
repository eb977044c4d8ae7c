# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether originals open, by their structure."""

from __future__ import annotations

import mmap
import random

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.structure import examine
from tests.support.documents import jpeg, pdf, png, tiff

WHOLE = {"pdf": pdf(), "jpeg": jpeg(), "png": png(), "tiff": tiff(), "tiff-big-endian": tiff(">")}


def looked_at(content: bytes, name: bytes = b"original") -> tuple[str, str]:
    with mmap.mmap(-1, len(content)) as mapped:
        mapped.write(content)
        return examine(name, mapped)


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_open(kind: str) -> None:
    assert looked_at(WHOLE[kind]) == (kind.partition("-")[0], "")


@pytest.mark.parametrize("kind", WHOLE)
def test_files_that_are_cut_short_do_not(kind: str) -> None:
    content = WHOLE[kind]
    # The last bytes of a PDF and of a TIFF are a newline and the word that no page follows.
    for length in range(9, len(content) - 6):
        assert looked_at(content[:length], b"original." + kind.partition("-")[0].encode())[1], length


def test_a_pdf_may_have_something_before_it_and_after_it() -> None:
    assert looked_at(b"from a mail\r\n" + pdf() + b"\0" * 100) == ("pdf", "")


def test_a_changed_byte_of_a_png_is_seen() -> None:
    content = bytearray(png())
    content[20] ^= 1
    assert looked_at(bytes(content)) == ("png", "a checksum of the PNG is wrong")


def test_a_name_says_what_a_file_should_be() -> None:
    for suffix in (b".pdf", b".JPG", b".png", b".tif"):
        assert looked_at(bytes(1000), b"x" + suffix)[1].startswith("it does not begin as a ")
    assert looked_at(bytes(1000), b"x.txt") == ("other", "")


def test_whatever_the_bytes_are_there_is_an_answer() -> None:
    rng = random.Random(1)
    for content in WHOLE.values():
        for _number in range(300):
            changed = bytearray(content)
            for _change in range(rng.randrange(1, 6)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            looked_at(bytes(changed), b"x.pdf")
