"""Ogg files that are damaged, lack their end, or hold several recordings."""

import io
import random
import re
import struct

import numpy as np
import pytest
from recordings import noise, refuse, tone, write

from speechrnn.audio.files import audio_info, read_audio
from speechrnn.audio.ogg import survey_ogg
from speechrnn.errors import AudioError

RATE, SECONDS = 16000, 10
SAMPLES = SECONDS * RATE


@pytest.fixture(scope="module", params=["vorbis.ogg", "opus.opus"])
def content(request, tmp_path_factory):
    """Ten seconds of noise in about a dozen pages."""
    samples = noise(np.random.default_rng(7), SAMPLES)
    return write(tmp_path_factory.mktemp("ogg"), request.param, samples).read_bytes()


def find_pages(content):
    """Offset, size and position of every page of an undamaged file."""
    offset = 0
    while offset < len(content):
        lacing = content[offset + 27 : offset + 27 + content[offset + 26]]
        size = 27 + len(lacing) + sum(lacing)
        yield offset, size, struct.unpack_from("<q", content, offset + 6)[0]
        offset += size


def damage(content, page, at=100):
    """Change a byte of a page."""
    changed = bytearray(content)
    changed[list(find_pages(content))[page][0] + at] ^= 0xFF
    return bytes(changed)


def read_with_warnings(content, caplog):
    caplog.clear()
    waveform = read_audio(content, name="a.ogg", check_levels=False)
    return waveform, [record.getMessage() for record in caplog.records]


def test_undamaged_file_draws_no_warning(content, caplog):
    waveform, warnings = read_with_warnings(content, caplog)
    assert len(waveform.samples) == audio_info(content).frames == SAMPLES
    assert warnings == []
    survey = survey_ogg(io.BytesIO(content))
    assert (survey.starts, survey.intact, survey.is_ended, survey.is_start_damaged) == ([0], None, True, False)


@pytest.mark.parametrize("page", [2, 5, -3, -2, -1])
def test_damaged_page_causes_a_warning_with_the_missing_duration(content, caplog, page):
    waveform, warnings = read_with_warnings(damage(content, page), caplog)
    lost = SECONDS - len(waveform.samples) / RATE
    assert lost > 0.015
    (warning,) = warnings
    found = re.fullmatch(r"a\.ogg: damaged: about ([\d.]+) s of 10\.\d\d s are missing; copy it again", warning)
    assert float(found[1]) == pytest.approx(lost, abs=0.05)


def test_pages_after_a_damaged_one_are_read(content, caplog):
    """A page whose stated size is wrong hides those behind it from libsndfile."""
    waveform, _ = read_with_warnings(damage(content, 4, at=27), caplog)
    assert len(waveform.samples) > 0.75 * SAMPLES


def test_damaged_file_has_the_length_that_can_be_read(content):
    damaged = damage(content, 2)
    assert audio_info(damaged).frames == len(read_audio(damaged).samples) < SAMPLES


def test_part_of_a_damaged_file_is_refused(content):
    """Behind a lost page everything moves, so that another stretch would be taken for the wanted one."""
    refuse(damage(content, 4), "damaged: the position of a part is unknown", start=6.0, seconds=2.0)


def test_file_without_its_last_pages_draws_a_warning(content, caplog):
    offset, *_ = list(find_pages(content))[-3]
    _, warnings = read_with_warnings(content[:offset], caplog)
    assert warnings == ["a.ogg: its last Ogg page is not marked as the last; the end may be missing"]


def test_tag_behind_the_last_page_is_not_damage(content, caplog):
    waveform, warnings = read_with_warnings(content + b"TAG" + bytes(125), caplog)
    assert (len(waveform.samples), warnings) == (SAMPLES, [])


def test_no_mutated_file_is_shortened_silently(content, caplog):
    rng = random.Random(5)
    for _ in range(40):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 3, 20])):
            changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
        start = rng.randrange(len(changed))
        del changed[start : start + rng.choice([0, 1, 1000, 9000])]
        try:
            waveform, warnings = read_with_warnings(bytes(changed), caplog)
        except AudioError:
            continue
        assert len(waveform.samples) > 0.98 * SAMPLES or warnings


@pytest.mark.parametrize("file_name", ["vorbis.ogg", "opus.opus", "pcm16.flac"])
def test_all_joined_recordings_are_read(tmp_path, file_name):
    rng = np.random.default_rng(3)
    files = [write(tmp_path, file_name, noise(rng, count)).read_bytes() for count in (16000, 8000, 12000)]
    expected = np.concatenate([read_audio(file).samples for file in files])
    joined = b"".join(files)
    np.testing.assert_array_equal(read_audio(joined).samples, expected)
    assert audio_info(joined).frames == 36000
    np.testing.assert_array_equal(read_audio(joined, start=0.9, seconds=1.0).samples, expected[14400:30400])
    np.testing.assert_array_equal(read_audio(joined, start=2.0).samples, expected[32000:])


@pytest.mark.parametrize("file_name", ["vorbis.ogg", "pcm16.flac"])
def test_joined_recordings_of_different_rates_are_refused(tmp_path, file_name):
    first = write(tmp_path, file_name, tone(1.0, 16000), rate=16000).read_bytes()
    second = write(tmp_path, file_name, tone(1.0, 8000), rate=8000).read_bytes()
    refuse(
        first + second, "2 recordings joined in one file, 8000 Hz with 1 channels and 16000 Hz with 1 channels; split"
    )


def test_damage_in_joined_recordings_is_refused(content, tmp_path):
    flac = write(tmp_path, "pcm16.flac", tone(1.0, 16000)).read_bytes()
    refuse(damage(content, 4) + content, "damaged, in one of the 2 recordings joined in it")
    refuse(flac + flac[:60] + bytes(len(flac)), "damaged, in one of the 2 recordings joined in it")
