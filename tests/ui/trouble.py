"""Failures and keys. The server is made to fail by answering in its place, so each case comes for certain."""

import json

from playwright.sync_api import expect

from site_page import CHAT, KEY, MODELS, chunk


def told(site, title, *words):
    """The failure is told in place; another try gives an answer, and leaves no empty version behind."""
    alert = site.last.get_by_role("alert")
    for text in [title, *words]:
        expect(alert).to_contain_text(text)
    alert.get_by_role("button", name="Try again").click()
    expect(site.last.locator(".prose").last).to_contain_text("All is well")
    expect(site.page.get_by_role("alert")).to_have_count(0)


def test_refusals_in_words(site):
    cases = [
        (429, "The queue is full.", {"headers": {"retry-after": "3"}}, ["The server is busy.", "The queue is full.", "3 seconds"]),
        (500, "A number was not finite.", {"headers": {"x-request-id": "r-17"}}, ["The server failed", "not finite", "Request r-17"]),
        (503, "No step ends.", {}, ["The server is not ready.", "No step ends."]),
        (400, "The prompt is too long.", {"code": "context_length_exceeded"}, ["did not take this request", "too long", "Start a new chat"]),
    ]
    for status, message, more, words in cases:
        site.open()
        site.answer_with("All is well")
        site.refuse(status, message, **more)
        site.say("Hello")
        told(site, *words)
        expect(site.last.locator(".turns")).to_be_hidden()


def test_an_error_that_is_no_json(site):
    page = site.open()
    site.expect_status(502)
    site.answer_with("All is well")
    page.route(CHAT, lambda route: route.fulfill(status=502, body="<b>Bad gateway</b>"), times=1)
    site.say("Hello")
    expect(site.last).not_to_contain_text("gateway")
    told(site, "The server failed", "status 502")


def test_a_refused_setting_is_one_click_away(site):
    page = site.open()
    site.refuse(400, "top_k is 7: at most 5.", param="top_k")
    site.say("Hello")
    site.last.get_by_role("button", name="Open the setting").click()
    expect(page.locator("#set-top_k")).to_be_focused()


def test_a_server_that_is_away(site):
    page = site.open()
    site.expected.append("net::ERR_CONNECTION_REFUSED")
    site.answer_with("All is well")
    page.route(CHAT, lambda route: route.abort("connectionrefused"), times=1)
    site.say("Hello")
    told(site, "The server cannot be reached.", "Nothing is lost")


def test_a_server_that_is_away_at_first(site):
    page = site.open(ready=False)
    site.expected.append("net::ERR_CONNECTION_REFUSED")
    page.route(MODELS, lambda route: route.abort("connectionrefused"), times=1)
    page.goto(site.url)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#model")).not_to_be_empty()
    expect(alert).to_have_count(0)


def test_an_answer_that_breaks_off(site):
    site.open()
    site.answer_with("All is well")
    site.answer_events([json.dumps(chunk({"content": "Half of it"}))], times=1)
    site.say("Hello")
    expect(site.last.locator(".prose").last).to_have_text("Half of it")
    told(site, "The answer broke off.")
    expect(site.last.locator(".turns")).to_contain_text("2/2")


def test_a_failed_regeneration_leaves_the_way_back(site):
    site.open()
    site.answer_with("All is well")
    site.say("Hello")
    site.refuse(429, "The queue is full.")
    site.last.get_by_role("button", name="Regenerate").click()
    expect(site.last.get_by_role("alert")).to_be_visible()
    site.last.get_by_role("button", name="Previous version").click()
    expect(site.last.locator(".prose").last).to_have_text("All is well")
    site.last.get_by_role("button", name="Next version").click()
    told(site, "The server is busy.")


def test_a_question_without_an_answer_is_joined_to_the_next(site):
    site.open()
    site.refuse(500, "No.")
    site.say("one")
    site.set(max_tokens=4)
    site.say("two")
    assert site.requests[-1]["messages"] == [{"role": "user", "content": "one\n\ntwo"}]


def test_a_failure_inside_the_stream(site):
    site.open()
    site.answer_with("All is well")
    site.answer_events([json.dumps(chunk({"content": "Half"})), json.dumps({"error": {"message": "A step failed."}}), "[DONE]"], times=1)
    site.say("Hello")
    told(site, "The server failed", "A step failed.")


def test_bad_events_are_a_broken_answer(site):
    site.open()
    site.answer_with("All is well")
    site.answer_events(["{not json"], times=1)
    site.say("Hello")
    told(site, "The answer broke off.")


def with_key(site, pattern):
    """Requests without the right key are refused; with it they go on to the server."""
    def check(route):
        if route.request.headers.get("authorization") == f"Bearer {KEY}":
            route.fallback()
        else:
            body = json.dumps({"error": {"message": "No key.", "type": "authentication_error", "param": None, "code": "invalid_api_key"}})
            route.fulfill(status=401, headers={"content-type": "application/json"}, body=body)
    site.expect_status(401)
    site.page.route(pattern, check)


def test_a_key_when_a_message_is_refused(site):
    page = site.open()
    expect(page.get_by_label("This server asks for an API key.")).to_have_count(0)
    site.answer_with("All is well")
    with_key(site, CHAT)
    site.say("Hello")
    field = page.get_by_label("This server asks for an API key.")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    field.fill("wrong")
    field.press("Enter")
    field = page.get_by_label("The server did not accept this key.")
    expect(field).to_be_focused()
    field.fill(KEY)
    page.get_by_role("button", name="Use key").click()
    expect(site.last.locator(".prose").last).to_have_text("All is well")
    expect(site.answers).to_have_count(1)
    only_in_this_tab(site)


def test_a_key_from_the_start(site):
    page = site.open(ready=False)
    with_key(site, "**/v1/**")
    page.goto(site.url)
    field = page.get_by_label("This server asks for an API key.")
    field.fill(KEY)
    field.press("Enter")
    expect(page.locator("#model")).not_to_be_empty()
    expect(page.locator("#draft")).to_be_focused()
    site.set(max_tokens=4)
    site.say("Hello")
    expect(site.last.locator(".facts")).to_contain_text("token")
    only_in_this_tab(site)
    page.click("#forget")
    expect(page.locator("#key-state")).to_be_hidden()
    site.say("And now?")
    expect(page.get_by_label("This server asks for an API key.")).to_be_visible()


def test_keyed_servers_open_to_the_key(site):
    page = site.open(ready=False)
    site.expect_status(401)
    page.goto(site.url)
    page.get_by_label("This server asks for an API key.").fill("wrong")
    page.get_by_role("button", name="Use key").click()
    field = page.get_by_label("The server did not accept this key.")
    expect(field).to_be_focused()
    field.fill(KEY)
    field.press("Enter")
    expect(page.locator("#model")).not_to_be_empty()
    site.set(max_tokens=4)
    site.say("Hello")
    expect(site.last.locator(".facts")).to_contain_text("token")
    only_in_this_tab(site)


def only_in_this_tab(site):
    stored = site.page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]")
    assert KEY in stored[0]
    assert not any(KEY in each for each in stored[1:]), stored
    assert KEY not in site.page.content()
