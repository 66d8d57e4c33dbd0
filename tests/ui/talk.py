"""Talking to the model behind the page: nothing here is made up but where a test says so."""

import json
import re
import time
import urllib.request

from playwright.sync_api import expect


def test_the_page_is_small_and_strict(site):
    site.open()
    policy = site.response.headers["content-security-policy"]
    for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:"]:
        assert rule in policy, policy
    assert "unsafe" not in policy, policy
    names = site.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    files = {site.url, *(name for name in names if name.endswith((".js", ".css")))}
    size = sum(len(urllib.request.urlopen(name).read()) for name in files)
    assert 10_000 < size < 60_000, f"{size} bytes in {sorted(files)}"


def test_an_answer_is_what_the_server_says(site):
    page = site.open()
    site.set(temperature=0, max_tokens=40)
    site.say("The old captain")
    request = {**site.requests[-1], "stream": False}
    del request["stream_options"]
    ask = urllib.request.Request(site.url + "v1/chat/completions", json.dumps(request).encode(), {"content-type": "application/json"})
    whole = json.load(urllib.request.urlopen(ask))["choices"][0]["message"]["content"]
    assert whole and site.copied(site.last) == whole
    expect(page.locator("#draft")).to_have_value("")


def test_facts_of_an_answer(site):
    page = site.open()
    site.set(max_tokens=20)
    site.say("Tell me about rivers")
    facts = site.last.locator(".facts")
    for pattern in [r"\d tokens?", r"\d tok/s", r"first token .*\d m?s", r"prompt \d"]:
        expect(facts).to_contain_text(re.compile(pattern))
    expect(page.locator("#context")).to_contain_text("tokens of context")
    expect(page.locator("#facts")).to_contain_text(page.locator("#model").inner_text())


def test_text_streams_in(site):
    page = site.open()
    site.set(max_tokens=400, seed=2)
    site.slow_down(6_000)
    site.say("Write a long story", done=False)
    prose = site.last.locator(".prose").last
    expect(prose).not_to_be_empty()
    first = prose.inner_text()
    expect(site.last).to_have_attribute("aria-busy", "true")
    expect(prose).not_to_have_text(first)
    assert prose.inner_text().startswith(first[:20])
    expect(page.locator("#send")).to_have_accessible_name("Stop")
    page.click("#send")
    site.wait_done()


def test_stop_by_key_and_by_button(site):
    page = site.open()
    site.set(max_tokens=900, seed=3)
    site.slow_down(6_000)
    for stop in [lambda: page.keyboard.press("Escape"), lambda: page.click("#send")]:
        site.say("Write a long story", done=False)
        expect(site.last.locator(".prose").last).not_to_be_empty()
        page.wait_for_timeout(200)
        if page.locator("#panel").is_visible():
            page.click("#panel-close")
        stop()
        site.wait_done()
        expect(site.last.locator(".facts")).to_contain_text("stopped")
        expect(page.locator("#status")).to_have_text("Stopped.")
        stopped = site.last.inner_text()
        page.wait_for_timeout(300)
        assert site.last.inner_text() == stopped
        wait_until_idle(site)


def wait_until_idle(site):
    """The server notices that nobody listens any more."""
    for _ in range(50):
        text = urllib.request.urlopen(site.url + "metrics").read().decode()
        if re.search(r"^vllm:num_requests_running(?:{.*})? 0(?:\.0)?$", text, re.MULTILINE):
            return
        time.sleep(0.1)
    raise AssertionError(text)


def test_a_stopped_answer_is_context_for_the_next(site):
    page = site.open()
    site.set(max_tokens=900, seed=3)
    site.slow_down(6_000)
    site.say("Write a long story", done=False)
    expect(site.last.locator(".prose").last).not_to_be_empty()
    page.click("#send")
    site.wait_done()
    site.set(max_tokens=5)
    text = site.copied(site.last)
    site.say("Go on")
    assert [message["role"] for message in site.requests[-1]["messages"]] == ["user", "assistant", "user"]
    assert site.requests[-1]["messages"][1]["content"] == text


def test_regenerate_keeps_both(site):
    page = site.open()
    site.set(max_tokens=12, temperature=1)
    site.say("Name a river")
    first = site.copied(site.last)
    site.last.get_by_role("button", name="Regenerate").click()
    expect(site.last.locator(".turns")).to_contain_text("2/2")
    site.wait_done()
    second = site.copied(site.last)
    assert site.requests[0]["messages"] == site.requests[1]["messages"]
    expect(site.answers).to_have_count(1)
    site.last.get_by_role("button", name="Previous version").click()
    assert site.copied(site.last) == first
    site.last.get_by_role("button", name="Next version").click()
    assert site.copied(site.last) == second
    expect(page.locator("#log article")).to_have_count(2)


def test_edit_an_earlier_message(site):
    page = site.open()
    site.set(max_tokens=8)
    page.click("#panel-close")
    for text in ["first", "second", "third"]:
        site.say(text)
    question = site.questions.nth(1)
    question.hover()
    question.get_by_role("button", name="Edit").click()
    field = page.get_by_label("Edit your message")
    expect(field).to_be_focused()
    expect(field).to_have_value("second")
    field.fill("other")
    field.press("Enter")
    expect(site.questions).to_have_count(2)
    site.wait_done()
    sent = site.requests[-1]["messages"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["first", "other"]
    site.say("fourth")
    sent = site.requests[-1]["messages"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["first", "other", "fourth"]
    question = site.questions.nth(1)
    question.hover()
    question.get_by_role("button", name="Previous version").click()
    expect(site.questions.last).to_contain_text("third")
    expect(site.questions).to_have_count(3)


def test_settings_are_sent_and_remembered(site):
    page = site.open()
    site.say("Hello")
    assert set(site.requests[-1]) == {"model", "messages", "stream", "stream_options"}, site.requests[-1]
    chosen = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7, "max_tokens": 6}
    site.set(**chosen, system="Be brief.")
    site.say("Hello again")
    sent = site.requests[-1]
    assert {name: sent.get(name) for name in chosen} == chosen
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    expect(page.locator("#settings")).to_have_accessible_name("Settings, changed")
    page.reload()
    page.click("#settings")
    expect(page.locator("#set-top_k")).to_have_value("40")
    expect(page.locator("#system")).to_have_value("Be brief.")
    page.click("#reset-all")
    site.set(max_tokens=4)
    site.say("Once more")
    assert not {"temperature", "top_p", "top_k", "min_p", "seed"} & set(site.requests[-1])
    assert site.requests[-1]["messages"][0]["role"] == "user"


def test_a_setting_out_of_range_is_told_and_left_out(site):
    page = site.open()
    for name, value in {"temperature": "3", "top_p": "0", "top_k": "1.5", "min_p": "2", "seed": "-1", "max_tokens": "0"}.items():
        site.set(**{name: value})
        expect(page.locator(f"#set-{name}")).to_have_attribute("aria-invalid", "true")
        expect(page.locator(f"#set-{name}-hint")).to_contain_text("Not used. Allowed:")
    site.set(max_tokens=4)
    expect(page.locator("#set-max_tokens-hint")).not_to_contain_text("Not used")
    site.say("Hello")
    assert set(site.requests[-1]) == {"model", "messages", "max_tokens", "stream", "stream_options"}


def test_the_same_seed_gives_the_same_answer(site):
    site.open()
    site.set(seed=11, max_tokens=24, temperature=0.8)
    site.say("A poem about grain")
    first = site.copied(site.last)
    site.last.get_by_role("button", name="Regenerate").click()
    expect(site.last.locator(".turns")).to_contain_text("2/2")
    site.wait_done()
    assert site.copied(site.last) == first


def test_new_chat_and_back(site):
    page = site.open()
    site.set(max_tokens=4)
    site.say("Hello")
    page.click("#new")
    expect(page.locator("#log article")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#draft")).to_be_focused()
    page.get_by_role("button", name="Back to the previous chat").click()
    expect(site.questions).to_contain_text("Hello")
    page.click("#new")
    site.say("Other")
    assert len(site.requests[-1]["messages"]) == 1


def test_a_reload_keeps_the_conversation(site):
    page = site.open()
    site.set(max_tokens=6)
    site.say("Hello")
    text = site.copied(site.last)
    page.reload()
    expect(site.questions).to_contain_text("Hello")
    assert site.copied(site.last) == text
    assert page.evaluate("localStorage.getItem('dualgrain.conversation')") is None


def test_a_new_chat_while_an_answer_comes_in_stops_it(site):
    page = site.open()
    site.set(max_tokens=900)
    site.slow_down(6_000)
    site.say("Write a long story", done=False)
    expect(site.last.locator(".prose").last).not_to_be_empty()
    page.click("#new")
    expect(page.locator("#send")).to_have_accessible_name("Send")
    expect(page.locator("#log article")).to_have_count(0)
