"""What an answer of a place means for a sample; nothing that a server says is repeated as a whole."""

import pickle

import pytest

from kloaders.core.errors import Recovery, recovery_of
from kloaders.places.errors import (
    AccessError,
    ChangedError,
    PlaceError,
    TransientError,
    failure_of,
)
from kloaders.places.registry import place_of
from kloaders.places.urls import parsed

SKIPPED, REFUSED = None, Recovery.REFUSED


@pytest.mark.parametrize(
    ("fault", "kind", "recovery", "said"),
    [
        ((404, "NoSuchKey"), FileNotFoundError, SKIPPED, "s3://bucket/a.npy does not exist"),
        ((404, "NoSuchBucket"), AccessError, REFUSED, "check the name of the bucket"),
        ((403, "AccessDenied"), AccessError, REFUSED, "refuses access to s3://bucket/a.npy (403"),
        ((403, "InvalidAccessKeyId"), AccessError, REFUSED, "AWS_ACCESS_KEY_ID"),
        ((400, "ExpiredToken"), AccessError, REFUSED, "have expired"),
        (
            (400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
            AccessError,
            REFUSED,
            "kloaders.storage('s3', region=\"eu-west-1\")",
        ),
        ((301, "PermanentRedirect"), AccessError, REFUSED, "wrong region"),
        ((412, "PreconditionFailed"), ChangedError, SKIPPED, "has changed since it was listed"),
        ((400, "BadDigest"), PlaceError, REFUSED, "does not answer a request"),
    ],
)
def test_what_an_answer_means(server, fault, kind, recovery, said):
    server.fault = lambda *_: fault
    url = parsed(server.url("a.npy"))
    with pytest.raises(kind) as caught:
        place_of(url).read(url.name)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert recovery_of(caught.value) is recovery
    assert "AKIDSECRETIVE" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), recovery_of(again)) == (str(caught.value), recovery)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ((404, "NoSuchKey"), FileNotFoundError, "does not exist"),
        ((403, "AccessDenied"), AccessError, "refuses access"),
        ((400, "ExpiredToken"), AccessError, "wrong region and with expired credentials"),
        ((301, "PermanentRedirect"), AccessError, "wrong region"),
    ],
)
def test_what_an_answer_without_text_means(server, fault, kind, said):
    """To HEAD, there is a number and nothing else."""
    server.fault = lambda *_: fault
    url = parsed(server.url("a.npy"))
    with pytest.raises(kind, match=said):
        place_of(url).head(url.name)


@pytest.mark.parametrize(
    ("fault", "throttled", "transfer"),
    [
        ((503, "SlowDown"), True, False),
        ((429, "TooManyRequests"), True, False),
        ((500, "InternalError"), False, False),
        ("drop", False, False),
        ("cut", False, True),
    ],
)
def test_what_is_tried_again(server, fault, throttled, transfer):
    server.objects["a.npy"] = b"x" * 100_000
    server.fault = lambda *_: fault
    url = parsed(server.url("a.npy"))
    with pytest.raises(TransientError) as caught:
        place_of(url).read(url.name)
    assert (caught.value.throttled, caught.value.transfer) == (throttled, transfer)


def test_no_credentials_are_reported_as_such():
    """Without any, a client of AWS asks a machine that only exists in Amazon's data centres."""
    error = RuntimeError("Error performing PUT http://169.254.169.254/latest/api/token")
    found = failure_of(error, "s3://b/a", "s3://b")
    assert isinstance(found, AccessError)
    assert "no credentials were found" in str(found)
    assert "anonymous=True" in str(found)
