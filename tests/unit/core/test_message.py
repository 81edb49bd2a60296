"""What the core knows of HTTP messages."""

import pytest

from apigate.core.message import Headers, Reader, Request, Response, ResponseHead, field


def test_names_are_found_without_regard_to_case_and_values_keep_their_order():
    headers = Headers([("Accept", "a"), ("X-Id", "1"), ("ACCEPT", "b")])
    assert headers.get("accept") == "a"
    assert headers.get_all("aCCEPT") == ["a", "b"]
    assert "x-id" in headers
    assert "cookie" not in headers
    assert 5 not in headers
    assert list(headers) == ["accept", "x-id"]
    assert len(headers) == 2


def test_what_was_not_sent_is_none_or_what_is_asked_for_instead():
    headers = Headers()
    assert headers.get("accept") is None
    assert headers.get("accept", "*/*") == "*/*"
    assert headers.get_all("accept") == []


def test_a_list_of_values_is_the_callers_own():
    headers = Headers([("a", "1")])
    headers.get_all("a").append("2")
    assert headers.get_all("a") == ["1"]


def test_headers_show_no_value():
    assert repr(Headers([("Authorization", "Bearer secret")])) == "<Headers authorization>"


def test_a_request_reads_nothing_before_it_is_asked_and_its_fields_once():
    read = []

    def headers(native):
        read.append("headers")
        return Headers([("a", "1")])

    request = Request("GET", "/pets", "192.0.2.1", {}, Reader(headers, lambda native: "a=1"))
    assert read == []
    assert repr(request) == "<Request GET /pets>"
    assert request.query == "a=1"
    assert request.headers.get("a") == request.headers.get("A") == "1"
    assert read == ["headers"]


@pytest.mark.parametrize(("name", "value"), [("Retry-After", "3"), ("X-Name", "M\u00fcnchen")])
def test_a_field_is_there_in_both_native_forms(name, value):
    assert field(name, value).text == (name, value)
    assert field(name, value).raw == (name.lower().encode(), value.encode("latin-1"))


def test_responses_are_shown_by_kind_and_size():
    assert repr(Response("THROTTLED", 429, [], b"12345")) == "<Response THROTTLED 429, 5 bytes>"
    assert ResponseHead(200).added == []
